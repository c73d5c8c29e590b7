"""CLIP and DINO as functions from pictures and texts to unit vectors.

Both encode in float32 with the PIL image processors, named explicitly: the torchvision ones differ by a few grey
levels, so that the same picture would score differently on two machines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from personalize import hub
from personalize.hub import quiet, resolve_device

if TYPE_CHECKING:
    import torch
    from PIL import Image

Features = NDArray[np.float32]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def open_rgb(path: Path) -> Image.Image:
    """The picture in a file, read whole. Raises OSError where it is missing or damaged."""
    from PIL import Image

    with Image.open(path) as image:
        return image.convert("RGB")


class ClipEncoder:
    """OpenAI's CLIP, or any directory that `CLIPModel` loads: pictures and texts into one space.

    Args:
        path: a local directory or a hub name.
        revision: the 40-digit commit of a hub name; ignored for a directory.
        device: "auto", "cpu", "cuda", "mps" or any torch device.
        batch_size: pictures (or texts) encoded at a time.

    Raises:
        ValueError: the model is not pinned, not there, not safetensors, or not a CLIP.
    """

    def __init__(self, path: str | Path, revision: str | None = None, device: str = "auto", batch_size: int = 32):
        from transformers import AutoTokenizer, CLIPModel
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        source = hub.source(path, revision, "CLIP", "CLIP_REVISION")
        self.name, self.batch_size, self.device = str(path), batch_size, resolve_device(device)
        self.model = _load(CLIPModel, source, "CLIP").to(self.device)
        self.processor = CLIPImageProcessorPil.from_pretrained(**source)
        self.tokenizer = AutoTokenizer.from_pretrained(**source)
        self.max_tokens = int(self.model.config.text_config.max_position_embeddings)

    def images(self, images: Sequence[Image.Image]) -> Features:
        """Pictures to `[n, d]` unit vectors."""
        return _image_features(self, images, lambda pixels: self.model.get_image_features(pixel_values=pixels))

    def texts(self, texts: Sequence[str]) -> Features:
        """Texts to `[n, d]` unit vectors. Raises ValueError rather than cut a text that is too long."""
        import torch

        batches = []
        for start in range(0, len(texts), self.batch_size):
            batch = list(texts[start : start + self.batch_size])
            tokens = self.tokenizer(batch, padding=True, return_tensors="pt")
            if tokens["input_ids"].shape[1] > self.max_tokens:
                longest = max(batch, key=len)
                raise ValueError(f"{self.name} reads {self.max_tokens} tokens and {longest!r} has more: shorten it")
            with torch.inference_mode():
                batches.append(
                    _pooled(
                        self.model.get_text_features(
                            input_ids=tokens["input_ids"].to(self.device),
                            attention_mask=tokens["attention_mask"].to(self.device),
                        )
                    )
                )
        return _unit_vectors(batches, self.model.config.projection_dim)


class DinoEncoder:
    """DINO's ViT (Caron et al. 2021), or any directory that `ViTModel` loads: pictures to `[CLS]` vectors.

    facebook/dino-* ship the ViT processor's defaults, which squash a picture into a square; DINO was trained and is
    compared in the literature on the short side resized to 256 and the centre 224 pixels cut out, so that is done here.
    A model of another size is read as its own preprocessor_config.json says.

    Args, Raises: as `ClipEncoder`.
    """

    def __init__(self, path: str | Path, revision: str | None = None, device: str = "auto", batch_size: int = 32):
        from transformers import ViTModel

        source = hub.source(path, revision, "DINO", "DINO_REVISION")
        self.name, self.batch_size, self.device = str(path), batch_size, resolve_device(device)
        self.model = _load(ViTModel, source, "DINO", add_pooling_layer=False).to(self.device)
        self.processor = _dino_processor(source, int(self.model.config.image_size))

    def images(self, images: Sequence[Image.Image]) -> Features:
        """Pictures to `[n, d]` unit vectors."""
        return _image_features(self, images, lambda pixels: self.model(pixel_values=pixels).last_hidden_state[:, 0])


def _dino_processor(source: dict[str, Any], image_size: int) -> Any:
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    settings, _ = ViTImageProcessorPil.get_image_processor_dict(**source)
    kind = settings.get("image_processor_type") or settings.get("feature_extractor_type") or ""
    if not kind.startswith("ViT"):
        return BitImageProcessorPil.from_pretrained(**source)
    if image_size != 224:
        return ViTImageProcessorPil.from_pretrained(**source)
    return BitImageProcessorPil(
        size={"shortest_edge": 256},
        crop_size={"height": 224, "width": 224},
        resample=3,
        image_mean=IMAGENET_MEAN,
        image_std=IMAGENET_STD,
    )


def _load(kind: Any, source: dict[str, Any], what: str, **more: Any) -> Any:
    import torch

    try:
        with quiet("transformers"):
            model = kind.from_pretrained(**source, **more, dtype=torch.float32, use_safetensors=True)
    except OSError as error:
        raise ValueError(f"{what} model {source['pretrained_model_name_or_path']} cannot be loaded: {error}") from error
    return model.eval().requires_grad_(False)


def _image_features(
    encoder: ClipEncoder | DinoEncoder, images: Sequence[Image.Image], forward: Callable[[torch.Tensor], Any]
) -> Features:
    import torch

    batches = []
    for start in range(0, len(images), encoder.batch_size):
        batch = [image.convert("RGB") for image in images[start : start + encoder.batch_size]]
        pixels = encoder.processor(batch, return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            batches.append(_pooled(forward(pixels.to(encoder.device, torch.float32))))
    width = getattr(encoder.model.config, "projection_dim", None) or encoder.model.config.hidden_size
    return _unit_vectors(batches, width)


def _pooled(features: Any) -> torch.Tensor:
    """transformers 5 returns the projected features inside an output object, 4 returned them bare."""
    return features.pooler_output if hasattr(features, "pooler_output") else features


def _unit_vectors(batches: Sequence[torch.Tensor], width: int) -> Features:
    import torch

    if not batches:
        return np.zeros((0, width), np.float32)
    features = torch.cat(list(batches)).float()
    return torch.nn.functional.normalize(features, dim=-1).cpu().numpy()
