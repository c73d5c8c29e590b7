"""A request: the rows a caller sent, checked and turned into pictures to draw. Imports no torch.

Every row is honoured or the request is refused with the rows at fault; nothing is cut, rounded or guessed in silence.
"""

from __future__ import annotations

import difflib
import math
import reprlib
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from personalize.dreambooth.sampling import Sampling
from personalize.dreambooth.shapes import Size, check_shape
from personalize.photographs.prompts import MAX_CHARACTERS, Subject, check_prompt, foreign_syntax, mentions
from personalize.serving.versions import Unreachable, Version, spoken

MAX_SIDE = 2**16
"""Pixels of a side beyond which nobody need be told of the nearest size."""

MAX_SEED = 2**32 - 1
"""Numbers travel as doubles, which hold every integer up to 2^53; 32 bits are what other tools take as a seed."""

WORST_BYTES_PER_PIXEL = {"png": 3.1, "webp": 1.0, "jpeg": 1.0}
"""Measured on uniform noise, the picture that compresses worst, at this module's quality of 90."""

MANIFEST_BYTES = 8192
"""More than a picture's signed manifest takes (4 to 6 kB)."""


class RequestError(ValueError):
    """The caller asked for something that this model does not give; the message says which row, what and the bounds."""


@dataclass(frozen=True)
class Limits:
    """What one request may ask for, and all of them together. `sizes`: (width, height) drawn besides the default one.

    `response_bytes` stays below the 16 MB that Databricks Model Serving passes. `batch` pictures of `batch_pixels`
    together are drawn at once; `queue` is in pixels × steps.
    """

    rows: int = 16
    images: int = 8
    steps: int = 100
    guidance_scale: float = 30.0
    adapter_scale: float = 2.0
    response_bytes: int = 15_000_000
    sizes: Sequence[Sequence[int]] = ()
    batch: int = 16
    batch_pixels: int = 4 * 1024 * 1024
    queue: float = 64 * 25 * 1024 * 1024


@dataclass(frozen=True)
class Defaults:
    """What holds where a row says nothing."""

    sampling: Sampling = field(default_factory=Sampling)
    format: str = "webp"


Find = Callable[[str, str, str], Version]
"""Whose adapter a row means, by its `model`, `model_version` and `subject` (`Versions.find`)."""


@dataclass(frozen=True)
class Order:
    """One picture to draw, the row that asked for it, and whose adapter it is drawn with."""

    row: int
    prompt: str
    seed: int
    sampling: Sampling
    adapter_scale: float
    format: str
    version: Version

    @property
    def facts(self) -> dict[str, Any]:
        """What the picture is made from, but for who draws it."""
        return {
            "prompt": self.prompt,
            "negative_prompt": self.sampling.negative_prompt,
            "seed": self.seed,
            "num_inference_steps": self.sampling.steps,
            "guidance_scale": self.sampling.guidance_scale,
            "adapter_scale": self.adapter_scale,
        }


@dataclass(frozen=True)
class Fault:
    """Why a row is not drawn. status: of HTTP; 4xx is the caller's fault."""

    row: int
    words: str
    status: int = 400


INPUTS: Mapping[str, str] = {
    "prompt": "what to draw; `{subject}` in it stands for the subject",
    "negative_prompt": "what to keep away from",
    "subject": "a token the model was taught; fills `{subject}` in the prompt, or must occur in it",
    "model": "a registered model that is served here; its champion, where no version is given",
    "model_version": "number or alias of a version of it, whose adapter draws this row",
    "seed": "0 to 4294967295; drawn and returned when absent; picture i of a row has seed + i",
    "num_inference_steps": "denoising steps",
    "guidance_scale": "strength of the prompt; 1 turns guidance off",
    "width": "pixels; with `height` one of the sizes in which the model was trained",
    "height": "pixels; as `width`",
    "num_images": "pictures from this row",
    "adapter_scale": "strength of what was learned: 0 is the base model, 1 as trained",
    "format": "webp, png or jpeg",
}

NUMBERS = ("seed", "num_inference_steps", "guidance_scale", "width", "height", "num_images", "adapter_scale")
"""Those inputs that are numbers; `model_version` is either, and the others are text."""

ANSWER: Mapping[str, type] = {
    "image": str,
    "format": str,
    "width": int,
    "height": int,
    "seed": int,
    "prompt": str,
    "row": int,
    "fingerprint": str,
    "latency_ms": float,
    "queue_ms": float,
    "request_id": str,
    "model_version": str,
    "safety": str,
    "status": int,
    "error": str,
}
"""Columns of the answer, a row a picture."""

PARAMS: Mapping[str, str] = {
    "timeout_s": "seconds after which nobody waits for the answer any more",
    "caller": "who asks: callers share the device equally; a request without one is a caller of its own",
    "request_id": "a name for the request, in the log and in each row of the answer; made up when absent",
    "priority": "high: before the caller's own other pictures; low: a quarter of a caller's share; normal",
    "partial": "true: a row that cannot be drawn says so in `error`, and the others are drawn",
}


def rows_of(asked: Any) -> list[dict[str, Any]]:
    """What was asked for as rows: a frame, rows, columns, texts or one text.

    Raises RequestError for what is none of these.
    """
    if hasattr(asked, "to_frame"):  # a Series of prompts
        asked = list(asked)
    if hasattr(asked, "to_dict"):
        asked = asked.to_dict("records")
    if isinstance(asked, Mapping):
        columns = {name: value if isinstance(value, (list, tuple)) else None for name, value in asked.items()}
        length = max((len(values) for values in columns.values() if values is not None), default=1)
        if any(values is not None and len(values) != length for values in columns.values()):
            raise RequestError("the columns are not equally long.")
        asked = [
            {name: asked[name] if values is None else values[i] for name, values in columns.items()}
            for i in range(length)
        ]
    rows = []
    for number, row in enumerate([asked] if isinstance(asked, str) else asked):
        if not isinstance(row, (str, Mapping)):
            raise RequestError(f"row {number} is neither a prompt nor a row of named values: {str(row)[:60]!r}.")
        rows.append({"prompt": row} if isinstance(row, str) else dict(row))
    return rows


def orders(
    rows: Sequence[Mapping[str, Any]],
    defaults: Defaults,
    limits: Limits,
    find: Find,
    tokenizers: Sequence[Any],
    draw_seed: Callable[[], int],
) -> tuple[list[Order], list[Fault]]:
    """Pictures to draw, in the order of the rows, and the rows at fault.

    Raises RequestError for what is wrong with the request as a whole.
    """
    if not rows:
        raise RequestError("The request has no rows. Send at least one, e.g. {'prompt': 'a photo of a chair'}.")
    if len(rows) > limits.rows:
        raise RequestError(f"The request has {len(rows)} rows; at most {limits.rows} are taken at once.")
    found, faults = read_rows(rows, defaults, limits, find, tokenizers, draw_seed)
    if len(found) > limits.images:
        raise RequestError(f"The request asks for {len(found)} pictures; at most {limits.images} are drawn at once.")
    check_answer_size(found, limits)
    return found, faults


def read_rows(
    rows: Sequence[Mapping[str, Any]],
    defaults: Defaults,
    limits: Limits,
    find: Find,
    tokenizers: Sequence[Any],
    draw_seed: Callable[[], int],
) -> tuple[list[Order], list[Fault]]:
    """Pictures to draw for any number of rows, each within the limits; see `orders`."""
    found: list[Order] = []
    faults: list[Fault] = []
    for number, row in enumerate(rows):
        try:
            found += _row(number, row, defaults, limits, find, tokenizers, draw_seed)
        except ValueError as error:
            faults.append(Fault(number, str(error)))
        except Unreachable as error:
            faults.append(Fault(number, str(error), 503))
    return found, faults


def all_of(faults: Sequence[Fault]) -> str:
    """What is wrong with a request in which rows are at fault, by row (the first five)."""
    more = f" (and {len(faults) - 5} more rows)" if len(faults) > 5 else ""
    return "; ".join(f"row {fault.row}: {fault.words}" for fault in faults[:5]) + more


def unknown_names(names: Iterable[object], known: Iterable[str] = INPUTS) -> str:
    """What to say of names that are not known, with the nearest that are; empty where all are."""
    known = list(known)
    said = []
    for name in [str(name)[:60] for name in names if name not in known][:3]:
        near = difflib.get_close_matches(name, known, 1)
        said.append(f"{name!r} is not known" + (f"; did you mean {near[0]!r}?" if near else "."))
    return f"{' '.join(said)} Known are {', '.join(known)}." if said else ""


def check_answer_size(found: Sequence[Order], limits: Limits) -> None:
    """Raises RequestError when the answer could be too large to send, before any time is spent on drawing it."""
    size = sum(_worst_answer_bytes(order) for order in found)
    if size > limits.response_bytes:
        raise RequestError(
            f"The answer could be {size / 1e6:.1f} MB, more than the {limits.response_bytes / 1e6:.1f} MB that may be "
            f"sent back. Ask for webp or jpeg instead of png, fewer pictures or a smaller size."
        )


def _worst_answer_bytes(order: Order) -> float:
    pixels = order.sampling.width * order.sampling.height
    return 4 / 3 * (pixels * WORST_BYTES_PER_PIXEL[order.format] + 4096 + MANIFEST_BYTES) + 2048


def _row(
    number: int,
    row: Mapping[str, Any],
    defaults: Defaults,
    limits: Limits,
    find: Find,
    tokenizers: Sequence[Any],
    draw_seed: Callable[[], int],
) -> list[Order]:
    if unknown := unknown_names(row):
        raise RequestError(unknown)
    subject = _text(row, "subject", "")
    version = find(_text(row, "model", ""), _which(row), subject)
    prompt = _with_subject(_text(row, "prompt", ""), subject, version.subjects)
    if not prompt:
        raise RequestError("prompt is missing or empty.")
    size = _size(row, defaults, limits)
    sampling = Sampling(
        steps=_whole(row, "num_inference_steps", defaults.sampling.steps, 1, limits.steps),
        guidance_scale=_number(row, "guidance_scale", defaults.sampling.guidance_scale, 0.0, limits.guidance_scale),
        width=size.width,
        height=size.height,
        negative_prompt=_text(row, "negative_prompt", defaults.sampling.negative_prompt),
    )
    for text in filter(None, (prompt, sampling.negative_prompt)):
        if said := foreign_syntax(text):
            raise RequestError(f"{said}. Take it out; adapter_scale and model_version choose the adapter.")
        check_prompt(tokenizers, text)
    encoding = _text(row, "format", defaults.format).lower().replace("jpg", "jpeg")
    if encoding not in WORST_BYTES_PER_PIXEL:
        raise RequestError(f"format {encoding!r} is not one of webp, png, jpeg.")
    images = _whole(row, "num_images", 1, 1, limits.images)
    scale = _number(row, "adapter_scale", 1.0, 0.0, limits.adapter_scale)
    seed = _whole(row, "seed", None, 0, MAX_SEED)
    first = draw_seed() if seed is None else seed
    return [
        Order(number, prompt, (first + i) % (MAX_SEED + 1), sampling, scale, encoding, version) for i in range(images)
    ]


def _with_subject(prompt: str, subject: str, subjects: Sequence[Subject]) -> str:
    """Fills `{subject}`, or checks that the subject's token occurs: a picture of something else would be no answer."""
    known = {one.token: one for one in subjects}
    subject = next((token for token in known if token.casefold() == spoken(subject)), subject)
    if subject and subject not in known:
        raise RequestError(f"subject {subject!r} is not known. This model was taught: {', '.join(sorted(known))}.")
    if "{subject}" in prompt:
        if not subject:
            raise RequestError(f"the prompt has {{subject}} but no subject is given: {', '.join(sorted(known))}.")
        return prompt.replace("{subject}", known[subject].name)
    if subject and not mentions(prompt, subject):
        raise RequestError(f"the prompt does not mention subject {subject!r}; write {{subject}} where it belongs.")
    return prompt


def _which(row: Mapping[str, Any]) -> str:
    """A version's number, written as a number or as text, or its alias."""
    value = row.get("model_version")
    if isinstance(value, (int, float)) and not isinstance(value, bool) and not _absent(value):
        return str(_whole(row, "model_version", None, 1, 999_999_999))
    return _text(row, "model_version", "")


def _shown(value: Any) -> str:
    """The beginning of what was sent, whatever it is and however deep."""
    return value[:60] if isinstance(value, str) else reprlib.repr(value)[:60]


def _absent(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _text(row: Mapping[str, Any], key: str, default: str) -> str:
    value = row.get(key)
    if _absent(value):
        return default
    if not isinstance(value, str):
        raise RequestError(f"{key} must be text, not {type(value).__name__} {_shown(value)!r}.")
    if len(value) > MAX_CHARACTERS:
        raise RequestError(f"{key} is {len(value):,} characters long; at most {MAX_CHARACTERS:,} are read.")
    # control characters and lone surrogates say nothing to a tokenizer and break logs and metadata
    plain = "".join(" " if unicodedata.category(char) in ("Cc", "Cs") else char for char in value)
    return " ".join(plain.split())


def _number(row: Mapping[str, Any], key: str, default: float, low: float, high: float) -> float:
    value = row.get(key)
    if _absent(value):
        return default
    try:
        if isinstance(value, (bool, str)):
            raise TypeError
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise RequestError(f"{key} must be a number, not {_shown(value)!r}.") from None
    if not low <= number <= high:
        raise RequestError(f"{key} {number:g} is outside {low:g} to {high:g}.")
    return number


def _whole(row: Mapping[str, Any], key: str, default: Any, low: int, high: int) -> Any:
    if _absent(row.get(key)):
        return default
    number = _number(row, key, 0.0, -math.inf, math.inf)
    if not number.is_integer():
        raise RequestError(f"{key} {number:g} is not a whole number.")
    if not low <= number <= high:
        raise RequestError(f"{key} {number:.0f} is outside {low} to {high}.")
    return int(number)


def _size(row: Mapping[str, Any], defaults: Defaults, limits: Limits) -> Size:
    usual = Size(defaults.sampling.height, defaults.sampling.width)
    height = _whole(row, "height", usual.height, 1, MAX_SIDE)
    size = Size(height, _whole(row, "width", usual.width, 1, MAX_SIDE))
    check_shape(size, [usual, *(shape for w, h in limits.sizes if (shape := Size(h, w)) != usual)])
    return size
