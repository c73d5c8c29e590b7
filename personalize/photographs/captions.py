"""Captions: `a photo of a <token> <class noun>, <context>`.

What the caption says of a photograph's surroundings the token need not learn, so the context is worth having; what it
said of the subject itself (its colour, its legs) would be learnt as those words instead of the token, so it is left
out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from personalize.photographs.prompts import MAX_TOKENS, Subject, Tokenizer, check_prompt, foreign_syntax, mentions

PLACEHOLDERS: Final = ("token", "class_noun")
COMMON_WORD: Final = 2.5
"""Zipf frequency (2 = once in ten million words, 5 = `dog`); `sks`, a rifle that spoilt many a subject, has 2.3."""

_PLACE: Final = re.compile(
    r"\b(in front of|next to|on top of|surrounded by|beside|against|near|under|inside|outside|behind|between|among|"
    r"along|above|below|around|over|by|at|on|in)\b(?! (?:it|its|them|him|her|front)\b)"
)
_UNFINISHED: Final = re.compile(
    r"(?:^|\s)(?:(?:an?|the|its|some)(?:\s(?:very|wooden|white|black|gr[ae]y|brown|red|green|blue|yellow|orange|pink|"
    r"purple|beige|bright|small|large|big|little|long|tall|old|new|modern|empty|"
    r"concrete|brick|marble|tiled|stone|metal|dirty|clean|grassy|sandy|cloudy|sunny|hardwood|living|dining|and))*|"
    r"and|or|with|of|to|in|on|at|by|near|under|against|between|among|beside|along|over|around|behind|from|for|"
    r"in front|next|surrounded|that|which|where|while|is|are|has)$"
)
"""Words at the end that wait for another: a captioner stopped in the middle of a phrase."""
_PHRASE: Final = re.compile(
    r",|\b(?:and|or|with|of|to|in|on|at|by|near|under|against|between|among|beside|along|over|around|behind|from|for|"
    r"that|which|where|while|is|are|has)\b"
)
"""Where a phrase begins."""
_HALLUCINATED: Final = re.compile(r"\bara(?:f|ff)e?d?\b\s*")  # a word of BLIP large's own, as in `arafed chair`
_HERE: Final = re.compile(r"\b(?:in|on) (?:the|this) (?:photo(?:graph)?|picture|image)\b,?\s*")
_LEAD: Final = re.compile(
    r"^(?:(?:there (?:is|are)|this is|an? (?:photo|picture|photograph|image|close up|view) of)\s+)+"
)


@dataclass(frozen=True)
class Caption:
    """The words for one photograph. `origin` says whose they are, `doubts` what a person should know about them."""

    text: str
    origin: str
    context: str = ""
    doubts: tuple[str, ...] = ()


def compose(subject: Subject, context: str = "", template: str = "a photo of a {token} {class_noun}") -> str:
    """The caption of one photograph. The context follows after a comma, so that any phrase fits."""
    caption = template.format(token=subject.token, class_noun=subject.class_noun)
    return f"{caption}, {context}" if context else caption


def check_template(template: str) -> None:
    """Raises ValueError unless `template` names {token} and {class_noun} and nothing else."""
    found = re.findall(r"{(.*?)}", template)
    if sorted(found) != sorted(PLACEHOLDERS) or template.count("{") != 2 or template.count("}") != 2:
        raise ValueError(
            f"the template {template!r} needs {{token}} and {{class_noun}}, each once, and no other braces; "
            f"for example 'a photo of a {{token}} {{class_noun}}'"
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


def surroundings_in(answer: str, class_noun: str) -> str:
    """The surroundings in what a model answered that was asked for them; nothing of what it says of the subject.

    >>> surroundings_in("On a rug in a bright room. The chair is red.", "chair")
    'on a rug in a bright room'
    >>> surroundings_in("In a garden, where the chair has red cushions", "chair")
    'in a garden'
    """
    for sentence in re.split(r"[.!?:;]+(?:\s|$)", _HERE.sub("", answer.lower())):
        mention = _mention(sentence, class_noun)
        if mention and not _PLACE.search(sentence, 0, mention.start()):  # the chair stands in a garden
            sentence = context_of(sentence, class_noun)
            mention = _mention(sentence, class_noun)
        if mention:
            sentence = without_last_phrase(sentence[: mention.start()], "")
        if context := context_of(sentence, class_noun):
            return context
    return ""


def without_last_phrase(caption: str, begins: str) -> str:
    """A sentence that was cut off, less the phrase in which that happened; the words that it `begins` with stay.

    >>> without_last_phrase("a photo of a chair in a room with a mahog", "a photo of a chair")
    'a photo of a chair in a room'
    """
    phrases = [match.start() for match in _PHRASE.finditer(caption, len(begins))]
    return (caption[: phrases[-1]] if phrases else caption[: len(begins)]).rstrip(" ,")


def sees_class_noun(caption: str, class_noun: str) -> bool:
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
    """(the words of `context` that the text encoders can hear, the words given up).

    Raises ValueError when the caption is too long even without a context.
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


def as_written(text: str, origin: str, subject: Subject, tokenizers: Sequence[Tokenizer]) -> Caption:
    """A person's caption, word for word. Raises ValueError when the text encoders would not hear the whole of it."""
    check_prompt(tokenizers, text)
    doubts = [f"in your caption {said}"] if (said := foreign_syntax(text)) else []
    if not mentions(text, subject.token):
        doubts.append(
            f"your caption does not say {subject.token!r}, so this photograph teaches the token nothing: {text!r}"
        )
    return Caption(text, origin, doubts=tuple(doubts))


def composed(context: str, origin: str, subject: Subject, tokenizers: Sequence[Tokenizer], template: str) -> Caption:
    """Token, class noun and as much of the context as the text encoders hear. origin: `template` or a model's words."""
    context, lost = fitted(tokenizers, subject, context, template)
    doubts = []
    if lost:
        doubts.append(f"the caption passed {MAX_TOKENS} tokens; the end of its context went: {lost!r}")
    if origin.startswith("blip") and not sees_class_noun(origin, subject.class_noun):
        doubts.append(f"BLIP saw no {subject.class_noun} on it; look at its caption.")
    if origin.startswith("chat") and not context:
        doubts.append(f"no surroundings were found in the model's answer ({origin}).")
    return Caption(compose(subject, context, template), origin, context, tuple(doubts))


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
            f"token {token!r} is a common word (Zipf frequency {frequency:.1f}): what it means now will mix with what "
            f"is taught. {advice}"
        )
    elif len(pieces) == 1:
        warnings.append(
            f"token {token!r} is one word of the text encoder's own vocabulary, so it may mean something already. "
            f"Generate 'a photo of a {token}' from the base model to see. {advice}"
        )
    if len(pieces) > max_pieces:
        warnings.append(
            f"token {token!r} falls into {len(pieces)} pieces ({' '.join(pieces)}), more than {max_pieces}: it is "
            f"learnt more slowly and takes room in every prompt. A shorter one would do better."
        )
    return warnings


def token_pieces(tokenizer: Any, token: str) -> list[str]:
    """The word pieces that the text encoder makes of `token`, without end-of-word marks."""
    return [piece.removesuffix("</w>") for piece in tokenizer.tokenize(token)]
