"""Files of state: tensors and JSON. Writing is atomic and flushed, reading bounded in size; nothing is unpickled."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from esper.storage import files

# Larger files are refused, to bound memory and time: parsed JSON takes up to 25 times its size and 0.2 s a MiB, tensors
# twice their size for a moment. The states of 4,000 environments fit, and 700 million parameters with their moments.
MAX_JSON_BYTES = 8 * 2**20
MAX_TENSOR_BYTES = 8 * 2**30


class StoreError(Exception):
    """State cannot be read or written; the message names the file and what is wrong with it."""


class CorruptError(StoreError):
    """State is not as it was written: truncated, missing, changed on the disk."""


def save_pair(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], *, root: Path) -> None:
    """Write `PATH.safetensors` and `PATH.json`, each atomically."""
    files.write(path.with_suffix(".safetensors"), dump_tensors(tensors), root=root)
    files.write(path.with_suffix(".json"), files.dump_json(metadata), root=root)


def load_pair(path: Path, *, root: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors (on the CPU) and metadata.

    Raises:
        StoreError: for a missing or broken file.
    """
    metadata_path, tensors_path = path.with_suffix(".json"), path.with_suffix(".safetensors")
    metadata = parse_json(read_bytes(metadata_path, MAX_JSON_BYTES, root=root), metadata_path)
    return parse_tensors(read_bytes(tensors_path, MAX_TENSOR_BYTES, root=root), tensors_path), metadata


def dump_tensors(tensors: Mapping[str, Tensor]) -> bytes:
    """A safetensors file. Tensors that share memory are stored once for each name."""
    data: dict[str, Tensor] = {}
    taken = set()
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        place = own.untyped_storage().data_ptr()
        data[name] = own.clone() if place in taken else own
        taken.add(place)
    return save(data)


def parse_json(data: bytes, path: Path) -> dict[str, Any]:
    """The one object in `data`, which was read from `path`.

    Raises:
        StoreError: when it is something else, or not strict JSON.
    """
    try:
        value = files.parse_json(data)
    except ValueError as error:
        raise StoreError(f"{path}: not JSON: {error!s:.200}") from None
    if not isinstance(value, dict):
        raise StoreError(f"{path}: must hold one object")
    return value


def parse_tensors(data: bytes, path: Path) -> dict[str, Tensor]:
    """The tensors in `data`, which was read from `path`.

    Raises:
        StoreError: when it is not a complete safetensors file.
    """
    try:
        return load(data)
    # The library raises KeyError for dtypes that torch lacks, ValueError or RuntimeError for sizes that do not fit.
    except (SafetensorError, KeyError, ValueError, RuntimeError, TypeError, OverflowError) as error:
        raise StoreError(f"{path}: not a complete safetensors file: {error!s:.200}") from None


def read_bytes(path: Path, limit: int, *, root: Path | None = None) -> bytes:
    """`files.read`.

    Raises:
        CorruptError: when it is missing, larger than `limit` bytes, the maximum that Esper writes, or unreadable.
        StoreError: when it is a link, not a regular file, or not permitted to be read.
    """
    try:
        return files.read(path, limit, root=root)
    except (OSError, ValueError) as error:
        damaged = getattr(error, "errno", None) in (errno.ENOENT, errno.EFBIG, errno.EIO)
        reason = files.why(error) if isinstance(error, OSError) else f"{path}: {error}"
        raise (CorruptError if damaged else StoreError)(reason) from None
