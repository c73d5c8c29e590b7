"""Tensor files: safetensors whose bytes depend on their content alone."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from personalize.files import write_bytes


def serialize(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file's bytes. The library writes its metadata in random order; here the header is sorted."""
    from safetensors.torch import save

    raw = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    (length,) = struct.unpack("<Q", raw[:8])
    header = {"__metadata__": dict(sorted(metadata.items())), **json.loads(raw[8 : 8 + length])}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + raw[8 + length :]


def content_hash(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over the tensors' bytes as they lie in the file, header left out: the modelspec hash of the weights."""
    raw = serialize(tensors, {})
    (length,) = struct.unpack("<Q", raw[:8])
    return hashlib.sha256(raw[8 + length :]).hexdigest()


def save(file: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Replaces a file in one step."""
    write_bytes(file, serialize(tensors, {"format": "pt", **(metadata or {})}))


def load(file: Path) -> dict[str, Tensor]:
    """The tensors of a file, on the CPU."""
    from safetensors.torch import load_file

    return load_file(str(file))
