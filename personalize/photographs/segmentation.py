"""Segmentation: a model that finds the subject on photographs which came without a mask."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from personalize import hub

if TYPE_CHECKING:
    from PIL import Image


class Segmenter:
    """CLIPSeg (Lüddecke & Ecker 2022) as a function from a photograph and a class noun to a mask of what it names.

    It looks at 352 x 352 pixels, so edges are soft; the loss is weighted in latents, which are hardly finer. float32;
    safetensors only. Raises ValueError when the model is not there.
    """

    def __init__(self, path: str | Path, revision: str | None = None, device: str = "auto"):
        from transformers import AutoTokenizer, CLIPSegForImageSegmentation
        from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

        source = hub.source(path, revision, "segmentation", "MASK_REVISION")
        self.device = hub.resolve_device(device)
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(**source)
            self.processor = ViTImageProcessorPil.from_pretrained(**source)
            with hub.quiet("transformers"):
                model = CLIPSegForImageSegmentation.from_pretrained(**source, use_safetensors=True)
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(
                f"segmentation model {str(path)!r} cannot be loaded: {str(error).splitlines()[0]} It has to be a "
                f"CLIPSeg; or use the masks that are given, masks: given."
            ) from error
        self.model = model.float().eval().to(self.device)

    def __call__(self, image: Image.Image, class_noun: str) -> Image.Image:
        """L in the size of `image`: how likely each pixel shows a `class_noun`, 255 for sure."""
        import torch
        from PIL import Image

        pixels = self.processor(image, return_tensors="pt")["pixel_values"].to(self.device)
        words = self.tokenizer([f"a photo of a {class_noun}"], return_tensors="pt").to(self.device)
        with torch.inference_mode():
            logits = self.model(
                pixel_values=pixels, input_ids=words["input_ids"], attention_mask=words["attention_mask"]
            ).logits
        likely = (torch.sigmoid(logits.float()).squeeze() * 255).round().to(torch.uint8).cpu().numpy()
        return Image.fromarray(likely).resize(image.size, Image.Resampling.BILINEAR)
