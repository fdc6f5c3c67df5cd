"""A named pair of files: `NAME.safetensors` with the tensors, `NAME.json` with everything else."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor


class StoreError(Exception):
    """A stored pair that cannot be read: the file and what is wrong with it."""


def save_pair(folder: Path, name: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write the pair; a reader sees the old files or the new ones, never half of one."""
    payload = save({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()})
    write_atomically(folder / f"{name}.safetensors", payload)
    write_atomically(folder / f"{name}.json", json.dumps(metadata, indent=2, allow_nan=False).encode() + b"\n")


def load_pair(folder: Path, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors (on the CPU) and metadata.

    Raises:
        StoreError: for a missing or broken file.
    """
    metadata_path, tensors_path = folder / f"{name}.json", folder / f"{name}.safetensors"
    try:
        metadata = json.loads(_read(metadata_path))
    except ValueError as error:
        raise StoreError(f"{metadata_path}: not JSON: {error}") from None
    if not isinstance(metadata, dict):
        raise StoreError(f"{metadata_path}: must hold one object")
    try:
        return load(_read(tensors_path)), metadata
    except (SafetensorError, ValueError) as error:
        raise StoreError(f"{tensors_path}: not a whole safetensors file: {error}") from None


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to a file beside `path`, flush it to the disk, and rename it to `path`."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from None
