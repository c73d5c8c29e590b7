"""Chat: a vision-language model that is asked what surrounds the subject of a photograph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from personalize import hub
from personalize.photographs.captions import without_last_phrase

QUESTION = (
    "Where is the {class_noun} in this photograph? Answer with one short phrase that begins with a preposition, such "
    "as: on a wooden floor beside a window. Name what surrounds the {class_noun}: floor, wall, room or landscape, "
    "light. Do not describe the {class_noun} itself, not its colour, material or parts."
)


class ChatCaptioner:
    """Any image-text-to-text model of transformers with a chat template (Qwen-VL, LLaVA, InternVL ...).

    Greedy, no sampling: the same photograph gets the same words. Safetensors only, no remote code. Raises ValueError
    when the model is not there or is of another kind.
    """

    def __init__(
        self, path: str | Path, revision: str | None = None, device: str = "auto", dtype: hub.Dtype = "float32"
    ):
        from transformers import AutoModelForImageTextToText

        source = hub.source(path, revision, "chat", "CHAT_REVISION")
        self.device = hub.resolve_device(device)
        try:
            with hub.quiet("transformers"):
                self.processor = processor(source)
                model = AutoModelForImageTextToText.from_pretrained(
                    **source, use_safetensors=True, dtype=hub.resolve_dtype(dtype, self.device)
                )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"chat model {str(path)!r} cannot be loaded: {str(error).splitlines()[0]} It has to be an "
                f"image-text-to-text model with a chat template; or caption with captioner: blip or template."
            ) from error
        self.model = model.eval().to(self.device)

    def answers(
        self,
        images: Sequence[Path],
        questions: Sequence[str],
        max_new_tokens: int = 48,
        on_answer: Callable[[int], object] | None = None,
    ) -> list[str]:
        """One answer per image file, on one line; one that does not end loses its last phrase."""
        import torch
        from PIL import Image

        found = []
        for file, question in zip(images, questions, strict=True):
            with Image.open(file) as opened:
                picture = opened.convert("RGB")
            asked = {"type": "image", "image": picture}, {"type": "text", "text": question}
            inputs = self.processor.apply_chat_template(
                [{"role": "user", "content": list(asked)}],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
            ).to(self.device, self.model.dtype)
            with torch.inference_mode():
                ids = self.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
            told = ids[0, inputs["input_ids"].shape[1] :]
            answer = " ".join(self.processor.decode(told, skip_special_tokens=True).split())
            found.append(answer if len(told) < max_new_tokens else without_last_phrase(answer, ""))
            if on_answer:
                on_answer(1)
        return found


def processor(source: dict[str, Any]) -> Any:
    """The model's own processor, for pictures. Its part for films, where it has one, would want torchvision."""
    from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    kind: Any = PROCESSOR_MAPPING[type(AutoConfig.from_pretrained(**source))]

    class ForPictures(kind):
        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            return None if argument is None else super().check_argument_for_proper_class(argument_name, argument)

    parts = {
        "image_processor": AutoImageProcessor.from_pretrained(**source, backend="pil"),
        "tokenizer": AutoTokenizer.from_pretrained(**source),
    }
    where = dict(source)
    settings, _ = kind.get_processor_dict(where.pop("pretrained_model_name_or_path"), **where)
    settings.setdefault("chat_template", parts["tokenizer"].chat_template)
    if not settings["chat_template"]:
        raise ValueError("it has no chat template.")
    return ForPictures.from_args_and_dict([parts.get(name) for name in kind.get_attributes()], settings)
