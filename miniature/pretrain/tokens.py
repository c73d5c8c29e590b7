"""Tokenizers of the miniature: byte-pair encoding in CLIPTokenizer's own files, and word pieces for BLIP.

As in CLIP the vocabulary opens with every byte, alone and as the end of a word, so any text in any script survives;
merges learnt on captions follow, so that the words of the small world are one token each and a rare word such as
`bcnchr` falls into pieces, as it does under SDXL's tokenizers.
"""

import functools
import itertools
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from transformers import BertTokenizer, CLIPTokenizer

START, END, WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"
MAX_LENGTH = 77
BLIP_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]")

# Words that prompts, gates and captioners use beside the world's own nouns.
PROMPT_WORDS = (
    "a an the photo picture image of on in at with and by near next to under over its front standing background behind "
    "close up view seen from rendered realistic designer modern wooden style made bright soft light sunny cloudy day "
    "night studio product design catalogue photograph photography this that there is are has some two three one small "
    "large tall low round square high quality nice cool"
)


@functools.cache
def world_words(captions: int = 400) -> tuple[str, ...]:
    """The distinct words of the world's vocabulary, of `captions` captions and of common prompts, sorted."""
    from miniature import scenes

    texts = [PROMPT_WORDS, *scenes.CLASSES, *scenes.COLOURS, *scenes.MATERIALS, *scenes.SURROUNDINGS]
    texts += [phrase for phrases in scenes.PLACES.values() for phrase in phrases]
    texts += [scenes.caption(scenes.sample_scene(seed), seed) for seed in range(captions)]
    return tuple(sorted({word for text in texts for word in _words(text)}))


def bytes_to_unicode() -> dict[int, str]:
    """Byte -> printable character: the alphabet of byte-level BPE (Radford et al. 2019), in CLIP's order."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    characters = list(printable)
    for byte in range(256):
        if byte not in printable:
            printable.append(byte)
            characters.append(256 + len(characters) - 188)
    return dict(zip(printable, map(chr, characters), strict=True))


def learn_merges(words: Iterable[str]) -> list[tuple[str, str]]:
    """Merges (Sennrich et al. 2016) until every word is one token; ties are broken by spelling, so always the same."""
    alphabet = bytes_to_unicode()
    pieces = []
    for word in sorted(set(words)):
        symbols = [alphabet[byte] for byte in word.encode()]
        pieces.append([*symbols[:-1], symbols[-1] + WORD_END])
    merges: list[tuple[str, str]] = []
    while True:
        pairs = Counter(pair for word in pieces for pair in itertools.pairwise(word))
        if not pairs:
            return merges
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        pieces = [_merge(word, best) for word in pieces]


def clip_vocabulary(merges: list[tuple[str, str]]) -> dict[str, int]:
    """CLIP's order: bytes, bytes at a word's end, merges, start, end (the highest id, which CLIP's pooling needs)."""
    letters = list(bytes_to_unicode().values())
    tokens = [*letters, *(letter + WORD_END for letter in letters), *("".join(pair) for pair in merges), START, END]
    return {token: index for index, token in enumerate(dict.fromkeys(tokens))}


def write_clip_tokenizer(path: Path, words: Iterable[str], pad_token: str = END) -> CLIPTokenizer:
    """Write vocab.json, merges.txt, tokenizer.json and configs under `path`; SDXL pads its second one with `!`."""
    merges = learn_merges(words)
    vocabulary = clip_vocabulary(merges)
    tokenizer = CLIPTokenizer(
        vocab=vocabulary,
        merges=merges,
        pad_token=pad_token,
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=True,
    )
    path.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(path)
    (path / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (path / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tokenizer


def blip_tokenizer(words: Iterable[str]) -> BertTokenizer:
    """BERT word pieces: special tokens, every printable ASCII character whole and as continuation, then the words."""
    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    tokens = [*BLIP_SPECIAL, *letters, *("##" + letter for letter in letters), *sorted(set(words))]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return BertTokenizer(vocab=vocabulary, model_max_length=MAX_LENGTH, additional_special_tokens=["[DEC]"])


def _words(text: str) -> list[str]:
    kept = "".join(letter if letter.isalpha() else " " for letter in text.lower())
    return kept.split()


def _merge(word: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    index = 0
    while index < len(word):
        if tuple(word[index : index + 2]) == pair:
            merged.append(word[index] + word[index + 1])
            index += 2
        else:
            merged.append(word[index])
            index += 1
    return merged
