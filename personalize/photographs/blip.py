"""BLIP: a captioner that looks at photographs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from personalize import hub
from personalize.photographs.captions import without_last_phrase


class BlipCaptioner:
    """BLIP (Li et al. 2022) as a function from photographs to sentences, begun with words of ours.

    Begun with `a photo of a chair` it goes on with what is around the chair. Beam search, no sampling: the same
    photograph gets the same words. float32; safetensors only. Raises ValueError when the model is not there.
    """

    def __init__(self, path: str | Path, revision: str | None = None, device: str = "auto"):
        from transformers import AutoTokenizer, BlipForConditionalGeneration
        from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

        source = hub.source(path, revision, "BLIP", "BLIP_REVISION")
        self.device = hub.resolve_device(device)
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(**source)
            self.processor = BlipImageProcessorPil.from_pretrained(**source)
            with hub.quiet("transformers"):
                model = BlipForConditionalGeneration.from_pretrained(**source, use_safetensors=True)
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(
                f"BLIP model {str(path)!r} cannot be loaded: {str(error).splitlines()[0]} Fetch it again (`dvc pull "
                f"models.dvc` for the project's own), or caption with captioner: template."
            ) from error
        self.model = model.float().eval().to(self.device)

    def describe(
        self,
        images: Sequence[Path],
        prefixes: Sequence[str],
        batch_size: int = 8,
        max_new_tokens: int = 30,
        on_batch: Callable[[int], object] | None = None,
    ) -> list[str]:
        """One sentence per image file, each beginning with its prefix; one that does not end loses its last phrase."""
        import torch
        from PIL import Image

        sentences: dict[int, str] = {}
        # Prompts of one length at a time: BLIP's decoder is not made for padding on the left.
        for prefix in dict.fromkeys(prefixes):
            rows = [row for row, own in enumerate(prefixes) if own == prefix]
            for start in range(0, len(rows), batch_size):
                batch = rows[start : start + batch_size]
                opened = [Image.open(images[row]).convert("RGB") for row in batch]
                pixels = self.processor(opened, return_tensors="pt")["pixel_values"]
                words = self.tokenizer([prefix] * len(batch), return_tensors="pt")
                with torch.inference_mode():
                    ids = self.model.generate(
                        pixel_values=pixels.to(self.device),
                        input_ids=words["input_ids"].to(self.device),
                        attention_mask=words["attention_mask"].to(self.device),
                        max_new_tokens=max_new_tokens,
                        num_beams=3,
                        do_sample=False,
                        no_repeat_ngram_size=3,
                    )
                decoded = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
                ended = (ids == self.tokenizer.sep_token_id).any(dim=1).tolist()
                for row, text, whole in zip(batch, decoded, ended, strict=True):
                    sentence = " ".join(text.split())
                    sentences[row] = sentence if whole else without_last_phrase(sentence, prefix)
                if on_batch:
                    on_batch(len(batch))
        return [sentences[row] for row in range(len(images))]
