"""Advice: what to do next, from what the gates found and from what training said. The one place that gives any.

The evaluation card shows all of it, and a run's last words are its beginning. Where training has said what it lacked
(no checkpoint kept the prompt, likeness still rose), nothing here says otherwise: a failed gate only adds to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from personalize.cards import Advice, command

LIKENESS = ("likeness", "held_out", "gap_closed", "recognised", "colour_difference")
PROMPT = ("prompt_kept", "clip_t", "r_precision")
CLASS = ("leakage", "retention", "class_clip_t", "class_r_precision")
SAMENESS = ("variety", "copied")
SURROUNDINGS = ("displaced", "altered", "register")
UNFINISHED = ("still improving", "unlike", "compromise")
"""What training says of itself when another training would do better than this one."""


def advise(scores: Mapping[str, Any], history: Mapping[str, Any]) -> list[Advice]:
    """What to do, most promising first. scores: scores.json of evaluate; history: history.json of train."""
    from personalize.evaluation.scorecard import SCHEMA  # which imports NumPy: too slow for a plan

    if scores.get("schema") != SCHEMA:
        return [Advice("It was judged by an older version of this project.", "Evaluate it again.", command("evaluate"))]
    if scores["verdict"] == "passed":
        do = "Look at the pictures yourself, the worst first. If they are good enough for you too, promote the model."
        return [Advice("Every requirement is met.", do)]
    if not [gate for gate in scores["gates"] if gate["verdict"] != "skipped"]:
        do = "Say in recipe.yaml (evaluate.gates) what the model must show, and evaluate it again."
        return [Advice("Nothing was required of the model.", do, command("evaluate"))]
    if scores["verdict"] == "undecided":
        unfinished = history.get("chosen", {}).get("verdict") in UNFINISHED
        found = [
            *_about_judges(scores),
            *(_about_training(scores, history, "undecided") if unfinished or _on_the_line(scores) else ()),
            *(_about_pictures(scores, history, "undecided") if _on_the_line(scores) else ()),
            *_about_prompts(scores),
        ]
    else:
        found = [*_about_training(scores, history), *_about_pictures(scores, history), *_about_judges(scores)]
    return found or [
        Advice("More pictures would not decide it: what was found lies on the line.", "Look for yourself.")
    ]


def in_brief(advice: Sequence[Advice], most: int = 480) -> str:
    """As a run ends with it: whole lines, the first ones, `most` characters."""
    lines: list[str] = []
    for each in advice:
        more = [each.do, *(f"  {line}" for line in each.command.splitlines())]
        if lines and len("\n".join([*lines, *more])) > most:
            break
        lines += more
    return "\n".join(lines)[:most]


def _failed(scores: Mapping[str, Any], metrics: Iterable[str], verdict: str = "failed") -> list[Mapping[str, Any]]:
    return [gate for gate in scores["gates"] if gate["metric"] in metrics and gate["verdict"] == verdict]


def _named(gates: Sequence[Mapping[str, Any]]) -> str:
    """ "Not met: likeness to the photographs (zwvchr)." """
    names = dict.fromkeys(gate["words"] + (f" ({gate['subject']})" if gate["subject"] else "") for gate in gates)
    word = "Undecided" if all(gate["verdict"] == "undecided" for gate in gates) else "Not met"
    return f"{word}: {'; '.join(names)}."


def _about_judges(scores: Mapping[str, Any]) -> list[Advice]:
    """More pictures do not help where those who judge them cannot see."""
    advice = []
    deciding = scores["judges"]["deciding"]
    if unfit := [name for name in deciding if name in scores["unfit"]]:
        advice.append(
            Advice(
                f"{' and '.join(unfit)} cannot tell these photographs apart, and so cannot judge pictures of them.",
                "Judge with a model that knows such things (recipe.yaml: evaluate.judges; the gpu profile's do).",
            )
        )
    disputed = [gate for gate in scores["gates"] if gate["verdict"] == "undecided" and _disputed(gate, scores["unfit"])]
    if disputed:
        advice.append(
            Advice(
                f"The judges disagree: {'; '.join(dict.fromkeys(gate['words'] for gate in disputed))}.",
                "Look at the pictures yourself; “Judges” says what each overlooks. More pictures do not end it.",
            )
        )
    return advice


def _disputed(gate: Mapping[str, Any], unfit: Mapping[str, str]) -> bool:
    by_judge: dict[str, set[str]] = {}
    for answer in gate["answers"]:
        if answer["judge"] not in unfit:
            by_judge.setdefault(answer["judge"], set()).add(answer["verdict"])
    passed = any(verdicts == {"passed"} for verdicts in by_judge.values())
    return passed and any("failed" in verdicts for verdicts in by_judge.values())


def _about_training(scores: Mapping[str, Any], history: Mapping[str, Any], of: str = "failed") -> list[Advice]:
    """Another training: what it said itself comes first, and alone decides in which direction."""
    alike, heard, others = (_failed(scores, metrics, of) for metrics in (LIKENESS, PROMPT, CLASS + SAMENESS))
    if not (alike or heard or others):
        return []
    said = history.get("chosen", {})
    settings = history.get("settings", {})
    slower = command(learning_rate=_times(settings.get("learning_rate"), 0.5))
    longer = command(max_train_steps=_times(settings.get("max_train_steps"), 1.5))
    because = _named([*alike, *heard, *others])
    verdict, reason = said.get("verdict"), said.get("reason", "")
    # "unlike" may have stopped short for want of steps, or because what came later had lost the prompt
    too_fast = verdict == "compromise" or (verdict == "unlike" and "lower learning rate" in reason)
    if too_fast:
        return [
            Advice(f"{because} Training said: {reason}", "Train again at a lower rate, with as many steps.", slower)
        ]
    if verdict in ("still improving", "unlike", "only"):
        if alike and not heard:
            return [Advice(f"{because} Training said: {reason}", "Train again for longer.", longer)]
        return [
            Advice(f"{because} Training said: {reason}", "Train again at a lower rate and for longer.", _both(settings))
        ]
    if heard and alike:
        do = "Train again at a lower rate and for longer: it lost the prompt before it had the subject."
        return [Advice(because, do, _both(settings))]
    if heard or others:
        do = "Train again at a lower rate: it learnt the subject at the cost of what it knew before."
        return [Advice(because, do, slower)]
    do = "Train again with a larger rank, or at a higher rate: it kept the prompt, and had stopped coming nearer."
    return [Advice(because, do, command(rank=2 * settings["rank"] if "rank" in settings else "..."))]


def _both(settings: Mapping[str, Any]) -> str:
    return command(
        learning_rate=_times(settings.get("learning_rate"), 0.5),
        max_train_steps=_times(settings.get("max_train_steps"), 1.5),
    )


def _times(value: float | None, factor: float) -> str:
    """A setting times a factor, as it is typed; a place to fill in where the training does not say what it was."""
    if value is None:
        return "..."
    return str(round(value * factor)) if isinstance(value, int) else f"{value * factor:.3g}"


def _about_pictures(scores: Mapping[str, Any], history: Mapping[str, Any], of: str = "failed") -> list[Advice]:
    """What other photographs, captions or settings do."""
    advice = []
    if gates := _failed(scores, ("recognised",), of):
        mixed = _mixed_up(scores, {answer["subject"] for gate in gates for answer in gate["answers"]})
        do = "Give subjects that are mixed up more photographs, above all of what tells them apart."
        advice.append(Advice(f"{_named(gates)} {mixed}".strip(), do))
    elif gates := _failed(scores, LIKENESS, of):
        advice.append(
            Advice(
                _named(gates), "More, and more varied, photographs of each subject help likeness more than settings do."
            )
        )
    if left_out := [(of["token"], name, why) for of in scores["subjects"] for name, why in of["left_out"].items()]:
        listed = "; ".join(f"{token}: {name} {why}" for token, name, why in left_out[:4])
        advice.append(Advice(f"Left out when judging: {listed}.", "Take these photographs out, or replace them."))
    if gates := _failed(scores, PROMPT, of):
        do = "Say in each photograph's caption where it was taken, so that the token need not learn the place."
        advice.append(Advice(_named(gates), do, command(captioner="blip")))
    if gates := _failed(scores, CLASS, of):
        weight = history.get("settings", {}).get("prior_loss_weight")
        more = command(**{"train.prior_loss_weight": _times(weight, 2.0)})
        advice.append(
            Advice(_named(gates), "Preserve the class more (prior preservation, with more class images).", more)
        )
    if gates := _failed(scores, SAMENESS, of):
        do = (
            "Give each subject photographs in more different places: what is the same in all of them is learnt with it."
        )
        advice.append(Advice(_named(gates), do))
    if gates := _failed(scores, SURROUNDINGS, of):
        share = history.get("settings", {}).get("prior_surroundings") or 0.125
        asked = {"train.prior_target": "base", "train.prior_surroundings": f"{min(1, 2 * share):.3g}"}
        do = "Keep more of what surrounds a subject as the base draws it (class images asked for with its token)."
        advice.append(Advice(_named(gates), do, command(**asked)))
    known = {*LIKENESS, *PROMPT, *CLASS, *SAMENESS, *SURROUNDINGS}
    if gates := [gate for gate in scores["gates"] if gate["verdict"] == of and gate["metric"] not in known]:
        do = (
            "Look whether the photographs have the same fault (blur, noise, a watermark, wrong proportions), which is "
            "learnt with the subject. If they have not, training went too far: a lower rate."
        )
        advice.append(Advice(_named(gates), do))
    return advice


def _mixed_up(scores: Mapping[str, Any], asked: set[str]) -> str:
    """ "40 % of the pictures of zwvchr look more like brkchr." """
    found = []
    for of, shares in zip(scores["subjects"], scores["confusion"]["shares"], strict=True):
        others = dict(zip(scores["confusion"]["columns"], shares, strict=True))
        others.pop(of["token"])
        other, share = max(others.items(), key=lambda pair: pair[1])
        if share and asked & {of["token"], ""}:
            found.append((share, f"{100 * share:.0f} % of the pictures of {of['token']} look more like {other}"))
    listed = [words for _, words in sorted(found, reverse=True)[:3]]
    return f"{'; '.join(listed)}." if listed else ""


def _on_the_line(scores: Mapping[str, Any]) -> bool:
    """Whether what was found lies so near a line that a better model decides sooner than more pictures of this one."""
    from personalize.evaluation.gates import more_would_decide

    there, wanted = len(scores["prompts"]), scores["prompts_wanted"]
    return wanted is not None and not more_would_decide(wanted, there)


def _about_prompts(scores: Mapping[str, Any]) -> list[Advice]:
    """Whether more prompts would decide, and how many."""
    there, wanted = len(scores["prompts"]), scores["prompts_wanted"]
    if wanted is None or wanted <= there:
        return []
    if _on_the_line(scores):
        do = f"Make a better model. (About {wanted} prompts would decide about this one; it was asked {there}.)"
        return [Advice("What was found lies almost on the line of what is required.", do)]
    do = (
        f"Ask about {wanted} prompts in all (there are {there}): add {wanted - there} at the end of baseline.prompts "
        "in recipe.yaml and give the same command again. Only the new ones are drawn; nothing is trained again."
    )
    return [Advice("There are too few pictures to tell, and prompts are what counts.", do, command())]
