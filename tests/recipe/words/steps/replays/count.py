"""Some of the words counted again."""

import json
import random

from counting.tally import tally

from personalize.evidence.chain import Link


def replay(config, inputs, outputs, artifact, asked):
    counts = json.loads((outputs / "counts.json").read_text())
    words = random.Random(asked.seed).sample(sorted(counts), min(asked.segments, len(counts)))
    again = tally((inputs["read"].path / "all.txt").read_text(encoding="utf-8"))
    return [Link(word, counts[word] == again[word], f"{counts[word]} then, {again[word]} now") for word in words]
