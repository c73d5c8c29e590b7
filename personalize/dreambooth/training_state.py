"""Training state: from it a killed run goes on as if it had not been; written whole or not at all, without pickle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from personalize.dreambooth import tensorfile
from personalize.dreambooth.setup import Setup
from personalize.files import read_json, whole, write_text

KEPT = 2
"""States kept: the newest, and the one before it should the newest be damaged."""


@dataclass(frozen=True)
class TrainingState:
    """Everything a run cannot recompute. Data order, noise and rates are functions of the step and are not in it."""

    step: int = 0
    """optimiser steps done"""
    weights: dict[str, Tensor] = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)
    """the EMA weights; empty when there are none"""
    optimizer: dict[str, Any] = field(default_factory=dict)
    history: dict[str, Any] = field(default_factory=dict)
    scaler: dict[str, float] = field(default_factory=dict)
    """loss scaling, of float16 alone"""
    proof: dict[str, Any] = field(default_factory=dict)
    """the chain of digests so far (`proof.Chain`)"""


def resume(run: Setup, optimizer: Any) -> tuple[TrainingState, dict[str, Tensor]]:
    """Puts the newest state of this very run back, where there is one -> (it, or that of step 0; EMA weights)."""
    state = latest(run.place.folder, run.place.identity) or TrainingState()
    average = {name: p.detach().clone() for name, p in run.model.params.items()} if run.settings.ema_decay else {}
    if state.step:
        restore(state, run, optimizer, average)
    return state, average


def restore(state: TrainingState, run: Setup, optimizer: Any, average: Mapping[str, Tensor]) -> None:
    """Puts a state back, as if its step had just been done."""
    scaler = run.place.accelerator.scaler
    load_weights(run.model.params, state.weights)
    optimizer.load_state_dict(state.optimizer)
    if scaler is not None and state.scaler:
        scaler.load_state_dict(state.scaler)
    if state.average:
        load_weights(average, state.average)


def state_of(step: int, run: Setup, optimizer: Any, average: Mapping[str, Tensor]) -> TrainingState:
    """What `restore` puts back."""
    scaler = run.place.accelerator.scaler
    return TrainingState(
        step,
        {name: p.detach() for name, p in run.model.params.items()},
        dict(average),
        optimizer.state_dict(),
        scaler=scaler.state_dict() if scaler is not None else {},
    )


def save(work: Path, state: TrainingState, identity: str) -> Path:
    """Writes the state into a folder of its own, then drops old ones.

    `identity` says which run this is (settings, pictures, base); another run's state is never resumed.
    """
    folder = work / "state" / f"step-{state.step:06d}"
    write(folder, state, identity)
    for old in sorted(folder.parent.glob("step-*"))[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


def write(folder: Path, state: TrainingState, identity: str) -> None:
    """One state as tensors.safetensors and state.json; the same state gives the same bytes."""
    packed, scalars = pack_optimizer(state.optimizer)
    tensors = {f"weights/{name}": tensor for name, tensor in state.weights.items()}
    tensors |= {f"average/{name}": tensor for name, tensor in state.average.items()}
    tensors |= {f"optimizer/{name}": tensor for name, tensor in packed.items()}
    about = {"identity": identity, "step": state.step, "history": state.history, "optimizer": scalars}
    about |= {"scaler": state.scaler, "proof": state.proof}
    with whole(folder) as part:
        tensorfile.save(part / "tensors.safetensors", tensors)
        write_text(part / "state.json", json.dumps(about))  # Prodigy's has an infinity


def latest(work: Path, identity: str) -> TrainingState | None:
    """The newest readable state of this very run, or None. Damaged and foreign states are passed over."""
    for folder in sorted((work / "state").glob("step-*"), reverse=True):
        try:
            about = read_json(folder / "state.json")
            if about["identity"] != identity:
                continue
            return read(folder)
        except Exception:  # a damaged file raises errors of many kinds; the state before it is as good
            continue
    return None


def read(folder: Path) -> TrainingState:
    """What `write` has left there, on the CPU. Raises errors of many kinds where it is damaged."""
    about = read_json(folder / "state.json")
    groups: dict[str, dict[str, Tensor]] = {"weights": {}, "average": {}, "optimizer": {}}
    for key, tensor in tensorfile.load(folder / "tensors.safetensors").items():
        kind, name = key.split("/", 1)
        groups[kind][name] = tensor
    return TrainingState(
        about["step"],
        groups["weights"],
        groups["average"],
        unpack_optimizer(groups["optimizer"], about["optimizer"]),
        about["history"],
        about["scaler"],
        about["proof"],
    )


def pack_optimizer(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimiser's state_dict -> (tensors by `index/name`, the rest as JSON). ValueError for what is neither."""
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, Any] = {"state": {}, "groups": []}
    for index, values in state.get("state", {}).items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"state/{index}/{name}"] = value
            else:
                scalars["state"].setdefault(str(index), {})[name] = _plain(name, value)
    for number, group in enumerate(state.get("param_groups", [])):
        plain = {}
        for name, value in group.items():
            if isinstance(value, Tensor):
                tensors[f"group/{number}/{name}"] = value
            else:
                plain[name] = _plain(name, value)
        scalars["groups"].append(plain)
    return tensors, scalars


def unpack_optimizer(tensors: Mapping[str, Tensor], scalars: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `pack_optimizer`."""
    state: dict[int, dict[str, Any]] = {int(index): dict(values) for index, values in scalars["state"].items()}
    groups = [
        {name: tuple(value) if name == "betas" else value for name, value in group.items()}
        for group in scalars["groups"]
    ]
    for key, tensor in tensors.items():
        kind, index, name = key.split("/", 2)
        if kind == "state":
            state.setdefault(int(index), {})[name] = tensor
        else:
            groups[int(index)][name] = tensor
    return {"state": state, "param_groups": groups}


def _plain(name: str, value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(name, item) for item in value]
    raise ValueError(f"this optimiser keeps {name} as {type(value).__name__}, which cannot be saved and resumed.")


@torch.no_grad()
def load_weights(into: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Copies weights into parameters of the same names. KeyError for a name that is missing."""
    for name, parameter in into.items():
        parameter.copy_(weights[name])
