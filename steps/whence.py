"""Whence: where a picture comes from, what holds of it and what does not.   gives: whence.json

    mlflow run . -e whence -P picture=output/a-chair-7.webp
    mlflow run . -e whence -P picture=output/a-chair-7.webp -P redraw=true      drawn again, and compared

The picture's signed manifest names version, adapters, seed and settings. The version is looked up in the registry and
followed, by the digests in its own statement and by those of its runs, to the commit and the photographs. It ends with
an error where something of that does not hold; that nobody has approved the version is said and is no error.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from personalize import hub
from personalize.evidence.chain import Link, broken, listed
from personalize.evidence.manifest import MIME, Manifest, hashed, read, text_digest
from personalize.evidence.statement import EvidenceError, Statement, short
from personalize.evidence.trust import Trust
from personalize.files import bytes_handed, write_bytes, write_json
from personalize.recipe import Inputs, RecipeError, StepConfig
from personalize.recipe.errors import in_words
from steps import generate
from steps.evidence import approval_of, chain_of

if TYPE_CHECKING:
    from PIL.Image import Image

    from personalize.serving.registry import ModelVersion

NEEDS: tuple[str, ...] = ()
REUSE = False

SAME_DB = 35.0
"""Peak signal-to-noise ratio from which two drawings are one picture. Two grey levels, the most that another batch or
processor moves a pixel, leave 39 dB and more of photographs once they are encoded anew; other pictures are below 25."""
MOST_BYTES = 200_000_000
SAID_ONLY = ("verdict", "tag", "approval")
"""Links that speak of what was decided about the version, not of where the picture comes from."""


class Config(StepConfig):
    picture: str = Field("", description="The picture: a file as it was given (webp, png, jpeg)")
    redraw: bool = Field(False, description="Whether to draw it again and compare")
    prompt: str = Field("", description="Its prompt, where the file does not have it; checked by its sha256")
    name: str = Field("personalize", min_length=1, description="The registered model, where the picture names none")
    base_model: str = Field("models/sdxl", description="Base model of pictures that the base alone has drawn")
    base_revision: str | None = Field(None, description="Commit of a Hugging Face base model (40 hexadecimal digits)")
    device: hub.Device = Field("auto", description="Where to draw it again")
    dtype: hub.Dtype = Field("float32", description="Precision to draw it again in")
    trust: Trust = Field(Trust(), description="The trust policy: whose results, approvals and pictures count")


@dataclass(frozen=True)
class Picture:
    """A file, what it says of itself (manifest before XMP), and whether it is as it was signed."""

    data: bytes
    encoding: str
    facts: Mapping[str, Any]
    links: Sequence[Link]


@dataclass(frozen=True)
class Origin:
    """What drew it: a registered version, with its statement, or the base alone (`base`); and what holds of that."""

    links: Sequence[Link]
    version: ModelVersion | None = None
    statement: Statement | None = None
    base: bool = False


def run(config: Config, inputs: Inputs, outputs: Path) -> None:
    """Raises RecipeError where a link does not hold; what was found is in whence.json all the same."""
    picture = look(config)
    origin = origin_of(config, picture.facts)
    suffix = Path(config.picture).suffix.lower()
    write_bytes(outputs / f"picture{suffix}", picture.data)
    links, told = [*picture.links, *origin.links], {"file_name": f"picture{suffix}"}
    if config.redraw:
        link, again = redrawn(config, picture, origin)
        links.append(link)
        if again:
            write_bytes(outputs / f"redrawn{suffix}", again)
            told["redrawn"] = f"redrawn{suffix}"
    known = lineage(picture.facts, origin)
    for name, value in known.items():
        print(f"  {name:<14}  {value}", flush=True)
    print("\n".join(["", *listed(links)]), flush=True)
    write_json(outputs / "whence.json", {**told, "lineage": known, "links": [asdict(link) for link in links]})
    if wrong := broken(link for link in links if link.name not in SAID_ONLY):
        raise RecipeError(f"{config.picture} is not shown to be what it says: {'; '.join(wrong)}")


def look(config: Config) -> Picture:
    """The file, and whether it is as it was signed. Raises RecipeError where it is no picture."""
    from PIL import Image, UnidentifiedImageError

    from personalize.serving.encoding import facts_of

    if not config.picture:
        raise RecipeError("Which picture? Add -P picture=output/a-chair-7.webp.")
    try:
        data = bytes_handed(Path(config.picture).expanduser(), MOST_BYTES)
        with Image.open(io.BytesIO(data)) as opened:
            encoding = (opened.format or "").lower()
        said = facts_of(data)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError) as error:
        why = "it is none" if isinstance(error, UnidentifiedImageError) else error
        raise RecipeError(f"whence.picture: {config.picture} cannot be read as a picture ({why}).") from error
    if encoding not in MIME:
        raise RecipeError(f"whence.picture: {config.picture} is {encoding}; pictures drawn here are {', '.join(MIME)}.")
    try:
        manifest = read(data, encoding)
    except EvidenceError as error:
        return Picture(data, encoding, said, [Link("manifest", False, f"it has {error}")])
    if manifest is None:
        return Picture(data, encoding, said, [_unsigned(config, said)])
    changed = f"it was changed since it was signed: {'; '.join(manifest.wrong)}"
    against = config.trust.against_maker(manifest.key)
    unknown = "whose it is does not show: the signature does not lead to the authority that it names"
    links = [
        Link("manifest", not manifest.wrong, changed if manifest.wrong else "as it was signed, to the byte"),
        Link("key", bool(manifest.key) and not against, _whose(manifest, against) if manifest.key else unknown),
        Link("source", manifest.generated, f"says {'' if manifest.generated else 'not '}that a model drew it"),
    ]
    apart = [name for name, value in hashed(said).items() if name in manifest.facts and manifest.facts[name] != value]
    if said:
        words = "what viewers read in it (XMP) is what was signed"
        links.append(Link("words", not apart, f"XMP and manifest differ in {', '.join(apart)}" if apart else words))
    if config.prompt:
        fits = text_digest(config.prompt) == manifest.facts.get("prompt_sha256")
        links.append(Link("prompt", fits, "is the one that was signed" if fits else "is not the one that was signed"))
    return Picture(data, encoding, {**said, **manifest.facts}, links)


def _unsigned(config: Config, said: Mapping[str, Any]) -> Link:
    if not said:
        return Link("manifest", False, "it has none and says nothing of itself: not drawn here, or stripped")
    counts = config.trust.takes_unsigned
    return Link("manifest", counts, "it has none: what it says of itself nobody has signed")


def _whose(manifest: Manifest, against: str) -> str:
    return f"it {against}" if against else f"signed with {short(manifest.key)}"


def origin_of(config: Config, facts: Mapping[str, Any]) -> Origin:
    """What drew a picture of which this is said."""
    if not facts:
        return Origin([])
    if "base" in facts or str(facts.get("model", "")).startswith("base ("):
        return Origin([_of_the_base(config, facts)], base=True)
    version = _version(config, facts)
    if version is None:
        words = f"no version of {facts.get('registered_model') or config.name} in the registry is it"
        return Origin([Link("version", False, f"{words}; give the model's name: -P whence.name=...")])
    chain = chain_of(version.name, version.version, config.trust)
    drew = dict(facts.get("adapters", {}))
    holds = chain.statement.subjects if chain.statement else {}
    other = [name for name, digest in drew.items() if holds.get(name) != digest]
    words = f"{version}, by the digest of its adapter" if drew else f"{version}, as the picture says"
    link = Link("version", not other, f"{version} has another adapter than drew it" if other else words)
    return Origin([link, *chain.links, approval_of(chain, config.trust)[1]], version, chain.statement)


def _of_the_base(config: Config, facts: Mapping[str, Any]) -> Link:
    now, then = hub.identity(config.base_model, config.base_revision), facts.get("base", "")
    words = f"drawn by {config.base_model} alone, without an adapter"
    other = f"drawn by another base model ({then}) than {config.base_model} ({now})"
    return Link("base", now == then or not then, other if then and now != then else words)


def _version(config: Config, facts: Mapping[str, Any]) -> ModelVersion | None:
    from personalize.serving.registry import RegistryError, resolve, with_tag

    name, number = str(facts.get("registered_model", "")), str(facts.get("version", ""))
    if not number:  # what a server writes into a picture of another version that nobody signs: "chairs/3"
        name, _, number = str(facts.get("model_version", "")).rpartition("/")
    if not number:  # and `generate`: "chairs version 3"
        name, _, number = str(facts.get("model", "")).partition(" version ")
    try:
        if name and number:
            return resolve(f"models:/{name}/{number}")
        tagged = with_tag(config.name, "fingerprint", str(facts.get("fingerprint", "")))
        return resolve(f"models:/{config.name}/{tagged.version}") if tagged else None
    except RegistryError:
        return None


def lineage(facts: Mapping[str, Any], origin: Origin) -> dict[str, str]:
    """For reading: what drew it and how, by which runs that was made, from which code and photographs."""
    names = ("seed", "num_inference_steps", "guidance_scale", "adapter_scale")
    settings = ", ".join(f"{name} {facts[name]}" for name in names if name in facts)
    told = {"prompt": str(facts.get("prompt", "")), "settings": settings, "version": str(origin.version or "")}
    if origin.statement:
        said = origin.statement.predicate
        code = said.get("code", {})
        told["runs"] = ", ".join(f"{step} {run}" for step, run in said.get("runs", {}).items() if run)
        told["commit"] = ", ".join(code.get("commits", [])) + (" and uncommitted changes" if code.get("dirty") else "")
        told |= dict(sorted(said.get("data", {}).items()))
        told["rights"] = str(said.get("rights", "")) or "nobody has said who allowed the use of the photographs"
    return {name: value for name, value in told.items() if value}


def redrawn(config: Config, picture: Picture, origin: Origin) -> tuple[Link, bytes]:
    """Whether it comes out the same when it is drawn again, and what came out; empty where nothing could be drawn."""
    from PIL import Image

    from personalize.serving.encoding import encode

    prompt = str(picture.facts.get("prompt", "")) or config.prompt
    if not prompt:
        return Link("redrawn", False, "cannot be drawn again: its prompt is not in it; give it: -P prompt=..."), b""
    if "seed" not in picture.facts or not (origin.version or origin.base):
        return Link("redrawn", False, "cannot be drawn again: what drew it is not known"), b""
    try:
        original = Image.open(io.BytesIO(picture.data)).convert("RGB")
        drawn = _draw(config, picture.facts, origin, prompt, original.size)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Link("redrawn", False, f"cannot be drawn again: {in_words(error)}"), b""
    again = encode(drawn, picture.encoding, {})
    most, ratio = differences(original, Image.open(io.BytesIO(again)).convert("RGB"))
    if not most:
        return Link("redrawn", True, "the same to the pixel"), again
    measured = f"at most {most} of 255, {ratio:.1f} dB"
    if ratio >= SAME_DB:
        return Link("redrawn", True, f"the same but for rounding ({measured})"), again
    return Link(
        "redrawn", False, f"it comes out as another picture ({measured}; {SAME_DB:g} dB would be the same)"
    ), again


def _draw(config: Config, facts: Mapping[str, Any], origin: Origin, prompt: str, size: tuple[int, int]) -> Image:
    from personalize.serving.painting import Painter

    seed = int(facts["seed"])
    told = {
        "prompt": prompt,
        "negative_prompt": str(facts.get("negative_prompt", "")),
        "model": origin.version.uri if origin.version else "base",
        "seed": seed,
        "sampling_steps": int(facts["num_inference_steps"]),
        "guidance_scale": float(facts["guidance_scale"]),
        "adapter_scale": float(facts["adapter_scale"]),
        "width": size[0],
        "height": size[1],
    }
    asked = generate.Config.model_validate(
        told | config.model_dump(include={"name", "base_model", "base_revision", "device", "dtype"})
    )
    model = generate.find_model(asked)
    orders = generate.read_orders(asked, model, [{"prompt": prompt, "seed": seed}], lambda: seed)
    [picture] = Painter(model, asked.device, asked.dtype, asked.adapter_scale == 1).pictures(orders)
    return picture


def differences(one: Image, other: Image) -> tuple[int, float]:
    """The largest difference of two pictures in grey levels, and their peak signal-to-noise ratio in dB."""
    import numpy as np

    if one.size != other.size:
        return 255, 0.0
    apart = np.abs(np.asarray(one, np.float64) - np.asarray(other, np.float64))
    square = float(np.mean(apart**2))
    return int(apart.max()), math.inf if square == 0 else 10 * math.log10(255**2 / square)
