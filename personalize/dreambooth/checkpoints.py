"""Checkpoints: the state from which a killed run goes on, written whole or not at all, without pickle."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from personalize.dreambooth import tensorfile

KEPT = 2
"""States kept: the newest, and the one before it should the newest be damaged."""


@dataclass
class State:
    """Everything a run cannot recompute. Data order, noise and rates are functions of the step and are not in it."""

    step: int = 0
    """optimiser steps done"""
    weights: dict[str, Tensor] = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)
    """the EMA weights; empty when there are none"""
    optimizer: dict[str, Any] = field(default_factory=dict)
    history: dict[str, Any] = field(default_factory=dict)
    scaler: dict[str, float] = field(default_factory=dict)
    flops: float = 0.0
    """arithmetic of a micro-batch; counted in the first step alone, as watching changes a step's last bits"""


def folder_of(work: Path, step: int) -> Path:
    return work / "state" / f"step-{step:06d}"


def save(work: Path, state: State, identity: str) -> Path:
    """Writes the state into a folder of its own that appears complete, then drops old ones.

    `identity` says which run this is (settings, pictures, base); another run's state is never resumed.
    """
    final = folder_of(work, state.step)
    part = final.with_name(f".{final.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    packed, scalars = pack_optimizer(state.optimizer)
    tensors = {f"weights/{name}": tensor for name, tensor in state.weights.items()}
    tensors |= {f"average/{name}": tensor for name, tensor in state.average.items()}
    tensors |= {f"optimizer/{name}": tensor for name, tensor in packed.items()}
    tensorfile.save(part / "tensors.safetensors", tensors, {})
    about = {"identity": identity, "step": state.step, "history": state.history, "optimizer": scalars}
    about |= {"scaler": state.scaler, "flops": state.flops}
    tensorfile.write(part / "state.json", json.dumps(about).encode())
    shutil.rmtree(final, ignore_errors=True)
    part.rename(final)
    for old in sorted(final.parent.glob("step-*"))[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def latest(work: Path, identity: str) -> State | None:
    """The newest readable state of this very run, or None. Damaged and foreign states are passed over."""
    for folder in sorted((work / "state").glob("step-*"), reverse=True):
        try:
            about = json.loads((folder / "state.json").read_text())
            if about["identity"] != identity:
                continue
            return _read(folder, about)
        except Exception:  # a damaged file raises errors of many kinds; the state before it is as good
            continue
    return None


def _read(folder: Path, about: Mapping[str, Any]) -> State:
    from safetensors.torch import load_file

    groups: dict[str, dict[str, Tensor]] = {"weights": {}, "average": {}, "optimizer": {}}
    for key, tensor in load_file(str(folder / "tensors.safetensors")).items():
        kind, name = key.split("/", 1)
        groups[kind][name] = tensor
    return State(
        about["step"],
        groups["weights"],
        groups["average"],
        unpack_optimizer(groups["optimizer"], about["optimizer"]),
        about["history"],
        about["scaler"],
        about["flops"],
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


def save_weights(file: Path, weights: Mapping[str, Tensor]) -> None:
    tensorfile.save(file, weights, {})


@torch.no_grad()
def load_weights(into: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Copies weights into parameters of the same names. KeyError for a name that is missing."""
    for name, parameter in into.items():
        parameter.copy_(weights[name])


def read_weights(file: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(str(file))
