"""A request: the rows a caller sent, checked and turned into pictures to draw. Imports no torch.

Every row is honoured or the request is refused with the rows at fault; nothing is cut, rounded or guessed in silence.
"""

from __future__ import annotations

import difflib
import math
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from personalize.dreambooth.sampling import Sampling
from personalize.photographs.prompts import Subject, check_prompt, mentions

MAX_CHARACTERS = 4_000
"""Of a text, looked at before it is tokenised. The 75 tokens that are read are some 400 characters of prose."""

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
    """What one request may ask for, and all of them together.

    `response_bytes` stays below the 16 MB that Databricks Model Serving passes. `batch` pictures of `batch_pixels`
    together are drawn at once; `queue` is in pixels × steps.
    """

    rows: int = 16
    images: int = 8
    steps: int = 100
    pixels: int = 1024 * 1024 * 3 // 2
    min_side: int = 64
    guidance_scale: float = 30.0
    adapter_scale: float = 2.0
    response_bytes: int = 15_000_000
    batch: int = 16
    batch_pixels: int = 4 * 1024 * 1024
    queue: float = 64 * 25 * 1024 * 1024


@dataclass(frozen=True)
class Defaults:
    """What holds where a row says nothing."""

    sampling: Sampling = field(default_factory=Sampling)
    format: str = "webp"


@dataclass(frozen=True)
class Order:
    """One picture to draw, and the row that asked for it."""

    row: int
    prompt: str
    seed: int
    sampling: Sampling
    adapter_scale: float
    format: str


INPUTS: Mapping[str, str] = {
    "prompt": "what to draw; `{subject}` in it stands for the subject",
    "negative_prompt": "what to keep away from",
    "subject": "a token the model was taught; fills `{subject}` in the prompt, or must occur in it",
    "seed": "0 to 4294967295; drawn and returned when absent; picture i of a row has seed + i",
    "num_inference_steps": "denoising steps",
    "guidance_scale": "strength of the prompt; 1 turns guidance off",
    "width": "pixels, a multiple of 8",
    "height": "pixels, a multiple of 8",
    "num_images": "pictures from this row",
    "adapter_scale": "strength of what was learned: 0 is the base model, 1 as trained",
    "format": "webp, png or jpeg",
}

NUMBERS = ("seed", "num_inference_steps", "guidance_scale", "width", "height", "num_images", "adapter_scale")
"""Those inputs that are numbers; the others are text."""

OUTPUTS = (
    *("image", "format", "width", "height", "seed", "prompt", "row"),
    *("fingerprint", "latency_ms", "queue_ms", "request_id", "safety"),
)
"""Of a row of the answer."""

PARAMS: Mapping[str, str] = {
    "timeout_s": "seconds after which nobody waits for the answer any more",
    "caller": "who asks: callers share the device equally; a request without one is a caller of its own",
    "request_id": "a name for the request, in the log and in each row of the answer; made up when absent",
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
    subjects: Sequence[Subject],
    tokenizers: Sequence[Any],
    draw_seed: Callable[[], int],
) -> list[Order]:
    """Pictures to draw for all rows, in order. Raises RequestError that names every row at fault (the first five)."""
    if not rows:
        raise RequestError("The request has no rows. Send at least one, e.g. {'prompt': 'a photo of a chair'}.")
    if len(rows) > limits.rows:
        raise RequestError(f"The request has {len(rows)} rows; at most {limits.rows} are taken at once.")
    found = read_rows(rows, defaults, limits, subjects, tokenizers, draw_seed)
    if len(found) > limits.images:
        raise RequestError(f"The request asks for {len(found)} pictures; at most {limits.images} are drawn at once.")
    check_answer_size(found, limits)
    return found


def read_rows(
    rows: Sequence[Mapping[str, Any]],
    defaults: Defaults,
    limits: Limits,
    subjects: Sequence[Subject],
    tokenizers: Sequence[Any],
    draw_seed: Callable[[], int],
) -> list[Order]:
    """Pictures to draw for any number of rows, each within the limits; see `orders`."""
    found: list[Order] = []
    faults: list[str] = []
    for number, row in enumerate(rows):
        try:
            found += _row(number, row, defaults, limits, subjects, tokenizers, draw_seed)
        except ValueError as error:
            faults.append(f"row {number}: {error}")
    if faults:
        more = f" (and {len(faults) - 5} more rows)" if len(faults) > 5 else ""
        raise RequestError("; ".join(faults[:5]) + more)
    return found


def unknown_names(names: Iterable[object], known: Iterable[str] = INPUTS) -> str:
    """What to say of names that are not known, with the nearest that are; empty where all are."""
    known = list(known)
    said = []
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1)
            said.append(f"{str(name)[:60]!r} is not known" + (f"; did you mean {near[0]!r}?" if near else "."))
    return f"{' '.join(said[:3])} Known are {', '.join(known)}." if said else ""


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
    subjects: Sequence[Subject],
    tokenizers: Sequence[Any],
    draw_seed: Callable[[], int],
) -> list[Order]:
    if unknown := unknown_names(row):
        raise RequestError(unknown)
    prompt = _with_subject(_text(row, "prompt", ""), _text(row, "subject", ""), subjects)
    if not prompt:
        raise RequestError("prompt is missing or empty.")
    sampling = Sampling(
        steps=_whole(row, "num_inference_steps", defaults.sampling.steps, 1, limits.steps),
        guidance_scale=_number(row, "guidance_scale", defaults.sampling.guidance_scale, 0.0, limits.guidance_scale),
        width=_side(row, "width", defaults.sampling.width, limits),
        height=_side(row, "height", defaults.sampling.height, limits),
        negative_prompt=_text(row, "negative_prompt", defaults.sampling.negative_prompt),
    )
    if sampling.width * sampling.height > limits.pixels:
        raise RequestError(
            f"width × height = {sampling.width} × {sampling.height} is {sampling.width * sampling.height:,} pixels; "
            f"at most {limits.pixels:,} are drawn."
        )
    check_prompt(tokenizers, prompt)
    if sampling.negative_prompt:
        check_prompt(tokenizers, sampling.negative_prompt)
    encoding = _text(row, "format", defaults.format).lower().replace("jpg", "jpeg")
    if encoding not in WORST_BYTES_PER_PIXEL:
        raise RequestError(f"format {encoding!r} is not one of webp, png, jpeg.")
    images = _whole(row, "num_images", 1, 1, limits.images)
    scale = _number(row, "adapter_scale", 1.0, 0.0, limits.adapter_scale)
    seed = _whole(row, "seed", None, 0, MAX_SEED)
    first = draw_seed() if seed is None else seed
    return [Order(number, prompt, (first + i) % (MAX_SEED + 1), sampling, scale, encoding) for i in range(images)]


def _with_subject(prompt: str, subject: str, subjects: Sequence[Subject]) -> str:
    """Fills `{subject}`, or checks that the subject's token occurs: a picture of something else would be no answer."""
    known = {one.token: one for one in subjects}
    # as a person writes it in a sentence: "Zwvchr," is zwvchr
    subject = next((token for token in known if token.casefold() == subject.strip(" ,.;:!?'\"()").casefold()), subject)
    if subject and subject not in known:
        raise RequestError(f"subject {subject!r} is not known. This model was taught: {', '.join(sorted(known))}.")
    if "{subject}" in prompt:
        if not subject:
            raise RequestError(f"the prompt has {{subject}} but no subject is given: {', '.join(sorted(known))}.")
        return prompt.replace("{subject}", known[subject].name)
    if subject and not mentions(prompt, subject):
        raise RequestError(f"the prompt does not mention subject {subject!r}; write {{subject}} where it belongs.")
    return prompt


def _absent(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _text(row: Mapping[str, Any], key: str, default: str) -> str:
    value = row.get(key)
    if _absent(value):
        return default
    if not isinstance(value, str):
        raise RequestError(f"{key} must be text, not {type(value).__name__} {str(value)[:60]!r}.")
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
        raise RequestError(f"{key} must be a number, not {str(value)[:60]!r}.") from None
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


def _side(row: Mapping[str, Any], key: str, default: int, limits: Limits) -> int:
    side: int = _whole(row, key, default, limits.min_side, limits.pixels // limits.min_side)
    if side % 8:
        raise RequestError(f"{key} {side} is not a multiple of 8; {side // 8 * 8} and {side // 8 * 8 + 8} are.")
    return side
