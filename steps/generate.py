"""Generate: a prompt in, a picture out, from the tuned model or from the base alone.   gives: pictures

    mlflow run . -e generate -P prompt="a photo of a bcnchr chair on the beach"
    mlflow run . -e generate -P prompt=@prompts.txt -P images=4 -P seed=7 -P model=base
    mlflow run . -e generate -P prompt=@prompts.csv

The tuned model is the registry's champion, or its challenger while nothing has been promoted. Pictures land in the
folder `output` under a name made of prompt and seed; nothing that lies there is ever overwritten.

A table (.csv, .parquet, .jsonl, a Delta table) has a request's columns; its pictures and `results` in the table's own
format land in a folder of `output`. All of it is read before anything is drawn. The same command goes on where a killed
one ended. With -P workers=4 so many processes draw at once, on the fleet's workers (Ray's).
"""

from __future__ import annotations

import contextlib
import functools
import random
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from personalize import hub
from personalize.evidence.trust import Trust
from personalize.files import file_digest, free_path, read_handed, read_json, write_bytes, write_json
from personalize.fleet import workers
from personalize.recipe import Inputs, RecipeError, StepConfig, process
from personalize.recipe.errors import in_short

if TYPE_CHECKING:
    from personalize.dreambooth.shapes import Size
    from personalize.evidence.manifest import Signing
    from personalize.serving.batch import Batch
    from personalize.serving.painting import Model, Painter
    from personalize.serving.request import Order

NEEDS: tuple[str, ...] = ()
REUSE = False

FETCHED = Path("build/models")
SHOWN = 50
"""Pictures of a table that the run keeps; all of them lie in the output folder."""
MOST_IMAGES = 1000
MANY = 1000
"""Parts that a worker's process draws before it makes way for a fresh one, which loads the model again."""
HOW = {"prompt", "model", "name", "output", "batch_size", "device", "trust", "workers", "gpus", "tries"}
"""Settings of which a batch is not made: they say where it is drawn, or are read before (prompt and model)."""
OF_A_SERVER = ("model", "model_version")
"""Columns of a request that a table has no use for: which version draws is said once, for all rows."""


class Config(StepConfig):
    prompt: str = Field("", description="What to draw; one prompt a line, or @file: one prompt a line, or a table")
    negative_prompt: str = Field("", description="What the pictures should keep away from")
    model: str = Field("tuned", min_length=1, description="tuned, base, or the address of a version: models:/<name>/3")
    name: str = Field("personalize", min_length=1, description="The registered model that `tuned` means")
    images: int = Field(1, ge=1, le=MOST_IMAGES, description="Pictures for each prompt")
    seed: int | None = Field(None, ge=0, le=2**32 - 1, description="Seed of the first picture; none draws one")
    sampling_steps: int = Field(25, ge=1, le=1000, description="Denoising steps")
    guidance_scale: float = Field(5.0, ge=0, description="Classifier-free guidance; 1 turns it off")
    adapter_scale: float = Field(1.0, ge=0, le=2, description="Strength of what was learned; 1 is as trained")
    resolution: int = Field(1024, ge=32, multiple_of=8, description="Side in pixels where no width or height is given")
    aspect_ratio_buckets: bool = Field(
        True, description="Draw in all sizes of training's aspect-ratio buckets; otherwise in squares alone"
    )
    width: int | None = Field(None, ge=8, description="Width in pixels; with height one of these sizes")
    height: int | None = Field(None, ge=8, description="Height in pixels")
    format: Literal["png", "webp", "jpeg"] = Field("png", description="File format; each carries prompt and seed")
    output: str = Field("output", min_length=1, description="Folder for the pictures")
    base_model: str = Field("models/sdxl", description="Base model for model=base: a folder or a Hugging Face name")
    base_revision: str | None = Field(None, description="Commit of a Hugging Face base model (40 hexadecimal digits)")
    batch_size: int = Field(8, ge=1, description="Pictures drawn at a time")
    device: hub.Device = Field("auto", description="Where to draw")
    dtype: hub.Dtype = Field("float32", description="Precision of UNet and text encoders")
    workers: int = Field(1, ge=1, description="Processes that draw at once, Ray's; each loads the model once")
    gpus: float | None = Field(
        None, ge=0, description="GPUs a worker, 0.5 for half a one; empty: 1 where there are any"
    )
    tries: int = Field(3, ge=1, description="Times that a part is tried whose process dies")
    trust: Trust = Field(Trust(), description="The trust policy: the key to sign pictures with")


def check(config: Config) -> None:
    """Before anything runs: workers can be had, where some are asked for."""
    if config.workers > 1:
        workers.check_installed()


def run(config: Config, inputs: Inputs, outputs: Path) -> None:
    from personalize.serving.request import RequestError

    begun = time.perf_counter()
    try:
        with process.giving_way():
            table = table_of(config.prompt)
            model, files = draw_table(config, table, outputs) if table else draw_prompts(config, outputs)
    except RequestError as error:
        raise RecipeError(f"generate.prompt: {error}") from error
    seconds = time.perf_counter() - begun
    write_json(outputs / "diagnostics/speed.json", {"seconds": round(seconds, 1)})
    log(outputs, seconds, len(files))
    shown = [files[0].parent] if table else files
    print(f"drawn by {model.label}:", *shown, sep="\n", flush=True)


def table_of(prompt: str) -> Path | None:
    """The table that `@path` names; None where the prompts are text."""
    from personalize.serving.table import is_table

    path = Path(prompt[1:]).expanduser()
    return path if prompt.startswith("@") and is_table(path) else None


def draw_prompts(config: Config, outputs: Path) -> tuple[Model, list[Path]]:
    """What draws, and the pictures in the output folder; picture i of each prompt has seed + i."""
    from personalize.serving.encoding import SUFFIX, file_stem

    prompts = read_prompts(config.prompt)
    model = find_model(config)
    first = random.SystemRandom().randrange(2**32) if config.seed is None else config.seed
    rows = [{"prompt": prompt, "seed": first} for prompt in prompts]
    orders = read_orders(config, model, rows, lambda: first, find_sizes(config, model))
    files: dict[int, Path] = {}
    kept: dict[int, dict[str, Any]] = {}
    for index, data in draw(config, model, orders, range(len(orders))):
        order = orders[index]
        stem, suffix = file_stem(order.prompt, order.seed), SUFFIX[order.format]
        files[index] = free_path(config.output, stem, suffix)
        copy = free_path(outputs, stem, suffix)
        for path in (files[index], copy):
            write_bytes(path, data)
        kept[index] = {"file_name": copy.name, **model.facts(order)}
    write_json(outputs / "pictures.json", [kept[index] for index in sorted(kept)])
    return model, [files[index] for index in sorted(files)]


def draw_table(config: Config, table: Path, outputs: Path) -> tuple[Model, list[Path]]:
    """What draws, and the pictures in the batch's own folder; the first few are kept with the run."""
    from personalize.serving.request import RequestError
    from personalize.serving.table import read_table

    rows = read_table(table)
    if other := next((name for name in OF_A_SERVER for row in rows if row.get(name) is not None), ""):
        raise RequestError(
            f"{table}: column {other!r} is for a server; one model draws a table: -P model=models:/<name>/3."
        )
    model = find_model(config)
    batch = batch_of(config, model, table, rows)
    orders = read_orders(config, model, rows, batch.seeds(), find_sizes(config, model))
    files = batch.files(orders)
    with batch.alone():
        left = [index for index, file in enumerate(files) if not file.exists()]
        if len(left) < len(files):
            print(f"{len(files) - len(left)} of {len(files)} pictures lie in {batch.folder} already", flush=True)
        for index, data in draw(config, model, orders, left):
            write_bytes(files[index], data)
        kind = table.suffix.lower() if table.is_file() else ".parquet"
        results = batch.write_results(kind, orders, {"model": model.name or model.base, "version": model.version})
    print(f"one row a picture: {results}", flush=True)
    write_bytes(outputs / results.name, results.read_bytes())
    kept = []
    for order, file in list(zip(orders, files, strict=True))[:SHOWN]:
        write_bytes(outputs / file.name, file.read_bytes())
        kept.append({"file_name": file.name, **model.facts(order)})
    write_json(outputs / "pictures.json", kept)
    return model, files


def batch_of(config: Config, model: Model, table: Path, rows: Sequence[Mapping[str, Any]]) -> Batch:
    """The batch that these rows, this model and these settings mean."""
    from personalize.dreambooth.sampling import adapter_file
    from personalize.serving.batch import find

    settings = config.model_dump(exclude={"seed", *HOW})
    adapter = file_digest(adapter_file(model.adapter), "sha256") if model.adapter else ""
    asked = {"rows": repr(rows), "settings": settings, "model": [model.label, model.revision, adapter]}
    return find(config.output, table.stem, asked, config.seed)


def read_orders(
    config: Config,
    model: Model,
    rows: Sequence[Mapping[str, Any]],
    draw_seed: Callable[[], int],
    sizes: Sequence[Size] = (),
) -> list[Order]:
    """The pictures of all rows. Raises RequestError that names rows which cannot be drawn, before any is.

    sizes: those that a row may ask for, besides the configured one.
    """
    from personalize.dreambooth.backbone import load_tokenizers
    from personalize.dreambooth.sampling import Sampling
    from personalize.serving.request import Defaults, Limits, RequestError, all_of, read_rows
    from personalize.serving.versions import Version, Versions

    sampling = Sampling(
        config.sampling_steps,
        config.guidance_scale,
        config.width or config.resolution,
        config.height or config.resolution,
        config.negative_prompt,
    )
    wide = [(size.width, size.height) for size in sizes]
    limits = Limits(images=MOST_IMAGES, steps=1000, guidance_scale=float("inf"), sizes=wide)
    usual = {"num_images": config.images, "adapter_scale": config.adapter_scale}
    filled = [{**usual, **{name: value for name, value in row.items() if value is not None}} for row in rows]
    tokenizers = load_tokenizers(model.base, model.revision)
    find = Versions(Version(model.subjects), {}).find
    orders, faults = read_rows(filled, Defaults(sampling, config.format), limits, find, tokenizers, draw_seed)
    if faults:
        raise RequestError(all_of(faults))
    return orders


def read_prompts(text: str) -> list[str]:
    """The prompts of `text`, or of the file that `@path` names: a line each. Raises RecipeError where there is none."""
    if text.startswith("@"):
        try:
            text = read_handed(Path(text[1:]).expanduser())
        except (OSError, ValueError, RuntimeError) as error:
            raise RecipeError(f"generate.prompt: {in_short(text)} cannot be read as a text file ({error}).") from error
    prompts = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    if not prompts:
        raise RecipeError('There is nothing to draw: add a prompt, -P prompt="a photo of a ... chair on the beach".')
    return prompts


def find_model(config: Config) -> Model:
    """The base as configured, or base and adapter out of a registered version.

    Raises RecipeError where nothing is registered yet, saying what to type.
    """
    from personalize.serving.base import base_of
    from personalize.serving.endpoint import fetch_files
    from personalize.serving.painting import Model
    from personalize.serving.registry import RegistryError, best_version, resolve

    if config.model == "base":
        return Model(f"base ({config.base_model})", config.base_model, config.base_revision)
    if config.model != "tuned" and not config.model.startswith("models:/"):
        raise RecipeError(f"generate.model: {config.model!r} is none of tuned, base and models:/<name>/<version>.")
    version = best_version(config.name) if config.model == "tuned" else resolve(config.model)
    artifacts = fetch_files(version, FETCHED / version.name) / "artifacts"
    if not (artifacts / "adapter").is_dir():
        raise RegistryError(f"{version} was not registered by this recipe: it has no artifacts/adapter.")
    base = str(base_of(artifacts.parent, config.dtype))
    return Model(str(version), base, None, artifacts / "adapter", version.name, version.version)


def find_sizes(config: Config, model: Model) -> list[Size]:
    """The sizes in which this base is trained. Raises RecipeError where what is asked for is none of them."""
    from personalize.dreambooth.backbone import shapes
    from personalize.dreambooth.shapes import Size, check_shape

    size = Size(config.height or config.resolution, config.width or config.resolution)
    try:
        found = shapes(model.base, model.revision, config.dtype, config.resolution, config.aspect_ratio_buckets)
        check_shape(size, found)
    except ValueError as error:
        raise RecipeError(f"generate: {error}") from None
    return found


def draw(config: Config, model: Model, orders: Sequence[Order], left: Sequence[int]) -> Iterator[tuple[int, bytes]]:
    """The files of those orders that are `left`, each with its place among them all, as they come."""
    from tqdm import tqdm

    from personalize.serving.painting import parts

    if not left:
        return
    merged = all(order.adapter_scale == 1 for order in orders)
    jobs = [(part, [orders[index] for index in part]) for part in parts(orders, left, config.batch_size)]
    with (
        hands(config, model, merged, len(jobs)) as carry_out,
        tqdm(total=len(orders), initial=len(orders) - len(left), desc="pictures", unit="picture") as bar,
    ):
        for part, files in carry_out(jobs):
            yield from zip(part, files, strict=True)
            bar.update(len(part))


Job = tuple[Sequence[int], "Sequence[Order]"]
CarryOut = Callable[[Sequence[Job]], Iterable[tuple[Sequence[int], Sequence[bytes]]]]


@contextlib.contextmanager
def hands(config: Config, model: Model, merged: bool, most: int) -> Iterator[CarryOut]:
    """Who draws: this process, or Ray's workers, each of which loads the model once; never more than `most`."""
    from personalize.serving.painting import Painter

    signing = signing_of(config, model)
    if min(config.workers, most) == 1:
        painter = Painter(model, config.device, config.dtype, merged, signing)
        yield lambda jobs: ((part, painter.files(orders)) for part, orders in jobs)
        return
    version = f"models:/{model.name}/{model.version}" if model.version else config.model
    there = config.model_copy(update={"model": version, "prompt": ""})  # the champion may move meanwhile
    with workers.hired(min(config.workers, most), config.gpus, "generate", config.tries) as hired:
        workers.check_reaches(hired.crew, hired.environment["MLFLOW_TRACKING_URI"])

        def carry_out(jobs: Sequence[Job]) -> Iterator[tuple[Sequence[int], Sequence[bytes]]]:
            calls = [(part, (there, merged, signing is not None, orders)) for part, orders in jobs]
            try:
                for ended in hired.spread(draw_there, calls, renewed=MANY):
                    yield ended.of, ended.result()
            except workers.Lost as error:
                raise RecipeError(f"generate: {error}. What was drawn is kept: the same command goes on.") from None

        yield carry_out


def draw_there(config: Config, merged: bool, signed: bool, orders: Sequence[Order]) -> list[bytes]:
    """A part in a worker's process. signed: so are the pictures of the others."""
    return _painter(config.model_dump_json(), merged, signed).files(orders)


@functools.lru_cache(maxsize=1)
def _painter(config_json: str, merged: bool, signed: bool) -> Painter:
    from personalize.serving.painting import Painter

    config = Config.model_validate_json(config_json)
    model = find_model(config)
    signing = signing_of(config, model) if signed else None
    if signed and signing is None:
        raise RecipeError(f"{socket.gethostname()} has no key to sign pictures with, and whoever asked for them has.")
    return Painter(model, config.device, config.dtype, merged, signing)


def signing_of(config: Config, model: Model) -> Signing | None:
    """What signs this model's pictures; None, said once, where there is no key."""
    from personalize.evidence.manifest import signing

    found = signing(model.origin, config.trust.key)
    if found is None:
        print("unsigned: there is no signing key, so the pictures carry no manifest", flush=True)
    return found


def log(outputs: Path, seconds: float, pictures: int) -> None:
    """The first pictures in MLflow's image slider, and how fast they were drawn."""
    import mlflow
    from PIL import Image

    mlflow.log_metrics({"pictures": pictures, "seconds": seconds, "seconds_per_picture": seconds / pictures})
    for step, row in enumerate(read_json(outputs / "pictures.json")[:SHOWN]):
        with Image.open(outputs / row["file_name"]) as picture:
            mlflow.log_image(picture.convert("RGB"), key="generated", step=step)
