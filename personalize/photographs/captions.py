"""Captions: `a photo of a <token> <class noun>, <context>`.

What the caption says of a photograph's surroundings the token need not learn, so the context is worth having; what it
said of the subject itself (its colour, its legs) would be learnt as those words instead of the token, so it is left
out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from personalize.photographs.prompts import Subject, Tokenizer, check_prompt

PLACEHOLDERS: Final = ("token", "class_noun")
COMMON_WORD: Final = 2.5
"""Zipf frequency (1 = once per hundred million words, 5 = `dog`); `sks`, a rifle that spoilt many a subject, has 2.3.
"""

_PLACE: Final = re.compile(
    r"\b(in front of|next to|on top of|surrounded by|beside|against|near|under|inside|outside|behind|between|among|"
    r"along|above|below|around|over|by|at|on|in)\b(?! (?:it|its|them|him|her|front)\b)"
)
_UNFINISHED: Final = re.compile(
    r"(?:^|\s)(?:an?|the|its|some|and|with|of|to|in|on|at|by|near|under|against|between|among|beside|along|"
    r"in front|next|surrounded)$"
)
"""A word at the end that waits for another: a captioner stopped in the middle of a phrase."""
_HALLUCINATED: Final = re.compile(r"\bara(?:f|ff)e?d?\b\s*")  # a word of BLIP large's own, as in `arafed chair`
_LEAD: Final = re.compile(
    r"^(?:(?:there (?:is|are)|this is|an? (?:photo|picture|photograph|image|close up|view) of)\s+)+"
)


def compose(subject: Subject, context: str = "", template: str = "a photo of a {token} {class_noun}") -> str:
    """The caption of one photograph. The context follows after a comma, so that any phrase fits."""
    caption = template.format(token=subject.token, class_noun=subject.class_noun)
    return f"{caption}, {context}" if context else caption


def check_template(template: str) -> None:
    """Raises ValueError unless `template` names {token} and {class_noun} and nothing else."""
    found = re.findall(r"{(.*?)}", template)
    if sorted(found) != sorted(PLACEHOLDERS) or template.count("{") != 2 or template.count("}") != 2:
        raise ValueError(
            f"the template {template!r} needs {{token}} and {{class_noun}}, each once, and no other braces; for "
            f"example "
            f"'a photo of a {{token}} {{class_noun}}'"
        )


def context_of(caption: str, class_noun: str) -> str:
    """The surroundings in a captioner's sentence: from the first word of place after the subject's mention.

    >>> context_of("there is a red chair with wooden legs sitting on a wooden floor", "chair")
    'on a wooden floor'
    >>> context_of("a vase with flowers in it on a table", "vase")
    'on a table'
    >>> context_of("a chair in a room with a", "chair")
    'in a room'
    """
    text = _LEAD.sub("", " ".join(_HALLUCINATED.sub("", caption.lower()).split()).strip(" .,"))
    mention = _mention(text, class_noun)
    place = _PLACE.search(text, mention.end() if mention else 0)
    context = text[place.start() :] if place else ""
    context = " ".join(re.sub(r"[^\w ,'-]+", " ", context).split()).strip(" ,'-")
    while unfinished := _UNFINISHED.search(context):
        context = context[: unfinished.start()].rstrip(" ,")
    return context


def mentions(caption: str, class_noun: str) -> bool:
    """Whether a captioner saw the subject that it was meant to see."""
    return _mention(caption.lower(), class_noun) is not None


def _mention(text: str, class_noun: str) -> re.Match[str] | None:
    """The class noun in `text`, whole or as the end of a word (armchair for chair), or its last word alone."""
    for noun in (class_noun.lower(), class_noun.lower().split()[-1]):
        if match := re.search(rf"\b\w*{re.escape(noun)}(?:s|es)?\b", text):
            return match
    return None


def fitted(
    tokenizers: Sequence[Tokenizer], subject: Subject, context: str, template: str = "a photo of a {token} {class_noun}"
) -> tuple[str, str]:
    """(the words of `context` that the text encoders can hear, the words given up). Raises ValueError when none would
    do.
    """
    words = context.split()
    for kept in range(len(words), -1, -1):
        try:
            check_prompt(tokenizers, compose(subject, " ".join(words[:kept]), template))
        except ValueError:
            if kept == 0:
                raise
        else:
            return " ".join(words[:kept]).rstrip(" ,"), " ".join(words[kept:])
    raise AssertionError("unreachable: kept == 0 returns or raises")


def token_warnings(subject: Subject, tokenizers: Sequence[Tokenizer], max_pieces: int) -> list[str]:
    """What is unwise about a token: it means something already, or the text encoder hears it as many pieces."""
    import wordfreq

    token, warnings = subject.token, []
    frequency = wordfreq.zipf_frequency(token, "en")
    pieces = max((token_pieces(tokenizer, token) for tokenizer in tokenizers), key=len)
    advice = "An invented word of consonants, such as 'zwvchr', has no past to overcome."
    if token == subject.class_noun.lower():
        warnings.append(
            f"token {token!r} is the class noun itself: the model cannot tell this one from any other. {advice}"
        )
    elif frequency >= COMMON_WORD:
        warnings.append(
            f"token {token!r} is a common word (Zipf frequency {frequency:.1f}): what it means now will mix with "
            f"what is "
            f"taught. {advice}"
        )
    elif len(pieces) == 1:
        warnings.append(
            f"token {token!r} is one word of the text encoder's own vocabulary, so it may mean something already. "
            f"Generate "
            f"'a photo of a {token}' from the base model to see. {advice}"
        )
    if len(pieces) > max_pieces:
        warnings.append(
            f"token {token!r} falls into {len(pieces)} pieces ({' '.join(pieces)}), more than {max_pieces}: it is "
            f"learnt more "
            f"slowly and takes room in every prompt. A shorter one would do better."
        )
    return warnings


def token_pieces(tokenizer: Any, token: str) -> list[str]:
    """The word pieces that the text encoder makes of `token`, without end-of-word marks."""
    return [piece.removesuffix("</w>") for piece in tokenizer.tokenize(token)]


class BlipCaptioner:
    """BLIP (Li et al. 2022) as a function from photographs to sentences, begun with words of ours.

    Begun with `a photo of a chair` it goes on with what is around the chair. Beam search, no sampling: the same
    photograph gets the same words. float32; safetensors only. Raises ValueError when the model is not there.
    """

    def __init__(self, path: str | Path, revision: str | None = None, device: str = "auto"):
        from transformers import AutoTokenizer, BlipForConditionalGeneration
        from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

        from personalize.hub import quiet, resolve_device

        source = _source(path, revision)
        self.device = resolve_device(device)
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(**source)
            self.processor = BlipImageProcessorPil.from_pretrained(**source)
            with quiet():
                model = BlipForConditionalGeneration.from_pretrained(**source, use_safetensors=True)
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(
                f"BLIP model {str(path)!r} cannot be loaded: {str(error).splitlines()[0]} Fetch it again (`dvc "
                f"pull models.dvc` "
                f"for the project's own), or caption with captioner: template."
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
        """One sentence per image file, each beginning with its prefix."""
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
                sentences.update(zip(batch, (" ".join(text.split()) for text in decoded), strict=True))
                if on_batch:
                    on_batch(len(batch))
        return [sentences[row] for row in range(len(images))]


def _source(path: str | Path, revision: str | None) -> dict[str, Any]:
    """Keyword arguments of `from_pretrained` for a local folder or for a hub model pinned by commit."""
    if Path(path).is_dir():
        return {"pretrained_model_name_or_path": str(path), "local_files_only": True}
    if revision and re.fullmatch(r"[0-9a-f]{40}", revision):
        return {"pretrained_model_name_or_path": str(path), "revision": revision}
    raise ValueError(
        f"BLIP model {str(path)!r} is not a folder here. The project's own comes with `dvc pull models.dvc`; for a "
        f"Hugging Face "
        f"model give its commit (40 hexadecimal digits) as BLIP_REVISION; or caption with captioner: template."
    )
