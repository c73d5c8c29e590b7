"""Stretches of a finished training done again and compared with its proof, link by link."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from personalize.dreambooth.adapter_files import DIFFUSERS
from personalize.evidence.chain import Link
from personalize.files import read_json, scratch, write_json
from personalize.recipe import Inputs, RecipeError, Replay
from steps import train


def replay(
    config: train.Config, inputs: Inputs, outputs: Path, artifact: Callable[[str], Path], asked: Replay
) -> list[Link]:
    """Stretches of a finished training done again and compared with its proof; what was found, for each.

    outputs: what it made; artifact: fetches the states that its run has kept. Both are only read.
    """
    from personalize.dreambooth import proof

    if not (outputs / proof.CHAIN).is_file():
        raise RecipeError("train: that run has no proof of training (train.proof_every was 0, or its code is older)")
    try:
        links = proof.read_chain(outputs)
    except ValueError as error:
        return [Link("chain", False, str(error))]
    try:
        kept = read_json(artifact(f"{train.STATES}/{proof.INDEX}"))
    except Exception:  # whatever a foreign artifact store raises, without states all of it is one stretch
        kept = []
    every = proof.stretches(links, kept)
    wanted = proof.pick(every, asked.segments, asked.seed)
    print(f"train: {len(wanted)} of {len(every)} stretches: {', '.join(map(str, wanted))}", flush=True)
    found = proof.examine(outputs, links, every)
    steps = sorted({step for stretch in wanted for step in (stretch.first, stretch.last) if step in kept})
    with scratch("replay") as place:
        report = place / "found.json"
        job = {
            "config": config.model_dump(mode="json"),
            "folders": {name: str(folder) for name, folder in train.read_from(config, inputs).items()},
            "outputs": str(outputs),
            "run_id": "",
            "states": {str(step): str(artifact(f"{train.STATES}/{proof.place_of(step)}")) for step in steps},
            "stretches": [[stretch.first, stretch.last] for stretch in wanted],
            "tolerance": asked.tolerance,
            "report": str(report),
        }
        if train.processes(config) == 1:
            teach_again(job)
        else:
            train.launch("steps.replays.train", job, config, place)
        found += [proof.Finding(**each) for each in read_json(report)]
    return [Link(each.name, each.holds, each.words) for each in found]


def teach_again(job: Mapping[str, Any]) -> None:
    """Replays what a job asks for, in each of several processes where there are several; the first one reports."""
    from accelerate import PartialState

    from personalize.dreambooth import proof
    from personalize.dreambooth.replay import Past, replay
    from personalize.dreambooth.setup import Base

    config, outputs = train.Config(**job["config"]), Path(job["outputs"])
    taught = train.taught_from(config, {name: Path(folder) for name, folder in job["folders"].items()})
    watch = train.Watch(config, "", "replay")
    past = Past(
        proof.read_chain(outputs),
        read_json(outputs / "history.json"),
        {int(step): Path(folder) for step, folder in job["states"].items()},
        outputs / "lora" / DIFFUSERS,
    )
    found = replay(
        train.settings_of(config).for_photographs(len(taught.learnt), train.processes(config)),
        Base(config.base_model, config.base_revision or None, config.device, config.dtype),
        taught.learnt,
        taught.class_images,
        past,
        [proof.Stretch(*each) for each in job["stretches"]],
        work=Path(config.work),
        held_out=taught.held_out,
        previews=taught.previews,
        tolerance=job["tolerance"],
        phase=watch.phase,
    )
    watch.close()
    if PartialState().is_main_process:
        write_json(job["report"], [asdict(each) for each in found])


if __name__ == "__main__":
    teach_again(read_json(sys.argv[1]))
