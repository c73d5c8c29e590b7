"""The verdict in a designer's words: what each requirement is about, said of the pictures and not of the metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from personalize.evaluation.gates import METRICS
from steps.cards.evaluate_sections import span

WORDS = {
    "likeness": ("resemble the photographs enough", "do not resemble the photographs enough"),
    "held_out": ("resemble photographs that training did not learn from", "resemble only photographs learnt from"),
    "gap_closed": ("come close enough to the real thing", "stop too far from the real thing"),
    "recognised": ("show that very one, and no other", "are too often some other one"),
    "clip_t": ("still show what the prompt asks for", "no longer show what the prompt asks for"),
    "prompt_kept": ("still show what the prompt asks for", "no longer show what the prompt asks for"),
    "r_precision": (
        "still are of the place or look asked for",
        "are too often of another place or look than asked for",
    ),
    "variety": ("differ from seed to seed", "are nearly the same for every seed"),
    "copied": ("are new pictures", "repeat photographs learnt by heart"),
    "sharpness": ("are as sharp as the base model's", "are not as sharp as the base model's, or are oversharpened"),
    "middle_sharpness": (
        "are as sharp in the middle as the base model's",
        "are not as sharp in the middle as the base model's, or are oversharpened there",
    ),
    "noise": ("are as clean as the base model's", "are noisier than the base model's, or smeared"),
    "blockiness": ("are free of blocks", "show blocks, as bad compression does"),
    "marks": ("carry no mark", "carry the same mark at the same place, as a watermark would"),
    "fringes": ("have their colours in register", "have colours that lie apart"),
    "upside_down": ("stand the right way up", "stand on their heads"),
    "displaced": (
        "stand where the base model puts them",
        "are turned, mirrored, stretched or bent, beside what the base model draws from the same noise",
    ),
    "altered": (
        "have the light, colours and grain that the base model gives them",
        "are darker, paler, coloured, blurred or noisy, beside what the base model draws from the same noise",
    ),
    "stamped": ("carry no mark", "carry the same mark as others at the same place, as a watermark would"),
    "repeats": ("are one picture each", "repeat themselves, mirrored or side by side"),
    "register": ("have surroundings that lie as the base model has them", "have surroundings that are bent or moved"),
    "proportions": ("have the proportions of the photographs'", "are narrower or broader than in the photographs"),
    "colour_difference": ("have the colours of the photographs'", "are of other colours than the photographs"),
    "aspect": ("keep their proportions", "are stretched"),
    "brightness": ("keep their light", "are lighter or darker than before"),
    "contrast": ("keep their contrast", "are flatter or harsher than before"),
    "saturation": ("keep their colours", "are paler or more garish than before"),
    "class_clip_t": ("still show what the prompt asks for", "no longer show what the prompt asks for"),
    "class_r_precision": ("still are of the place or look asked for", "are too often of another place than asked for"),
    "retention": ("still are what the base model drew", "are no longer what the base model drew"),
    "leakage": ("stay free of your subjects", "have turned into your subjects, or away from what they were"),
}
"""What pictures do when a gate holds, and when it does not."""


def reasons(result: Mapping[str, Any], nouns: Sequence[str]) -> list[str]:
    """What speaks against promotion, one line a requirement, the worst first; then what was met and what not asked."""
    gates = result["gates"]
    if not gates:
        return list(result["reasons"])
    against = [gate for verdict in ("failed", "undecided") for gate in gates if gate["verdict"] == verdict]
    lines = [reason(gate, nouns, result["unfit"]) for gate in against]
    passed = sum(gate["verdict"] == "passed" for gate in gates)
    skipped = [gate["why"] for gate in gates if gate["verdict"] == "skipped"]
    counted = f"{passed} of {len(gates)} requirements met"
    return [*lines, counted + (f", {len(skipped)} could not be asked ({'; '.join(skipped)})." if skipped else ".")]


def reason(gate: Mapping[str, Any], nouns: Sequence[str], unfit: Mapping[str, str]) -> str:
    """One requirement that is not met, or not yet known to be."""
    holds, fails = WORDS[gate["metric"]]
    pictures = f"Pictures of {whom(gate, nouns)}"
    by_judge: dict[str, list[str]] = {answer["judge"]: [] for answer in gate["answers"]}
    for answer in gate["answers"]:
        by_judge[answer["judge"]].append(answer["verdict"])
    able = {name: verdicts for name, verdicts in by_judge.items() if name not in unfit}
    if gate["verdict"] == "failed":
        said = f"{pictures} {fails}"
    elif by_judge and not able:
        said = f"No judge here can tell whether pictures of {whom(gate, nouns)} {holds}"
    elif any("failed" in of for of in able.values()) and any(set(of) == {"passed"} for of in able.values()):
        said = f"The judges disagree whether pictures of {whom(gate, nouns)} {holds}"
    else:
        said = f"Too few pictures to say whether those of {whom(gate, nouns)} {holds}"
    return f"{said}. Found: {found(gate)}; required: {gate['requirement']}."


def whom(gate: Mapping[str, Any], nouns: Sequence[str]) -> str:
    """Of whom the pictures are that a gate speaks of."""
    if not METRICS[gate["metric"]].each:
        return f"a plain {' or '.join(nouns)}"
    return gate["subject"] or "the subjects"


def found(gate: Mapping[str, Any]) -> str:
    """ "+0.105 against the base (+0.080 to +0.130)"."""
    paired = gate["kind"] != "threshold"
    value = "–" if gate["value"] is None else METRICS[gate["metric"]].write(gate["value"], sign=paired)
    against = f" against the {gate['against']}" if paired and gate["against"] else ""
    return f"{value}{against} ({span(gate['ci'], gate['metric'], paired)})"
