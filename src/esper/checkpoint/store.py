"""Files of state. Writing is atomic and flushed; reading trusts nothing: bounded in size, no pickle, no links."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

# What is larger is refused, so that a file can fill neither the memory nor the day: parsed JSON takes up to 25 times
# its size and 0.2 s a MiB, tensors twice their size for a moment. The states of 4,000 copies of an environment fit,
# and 700 million parameters with their moments.
MAX_JSON_BYTES = 8 * 2**20
MAX_TENSOR_BYTES = 8 * 2**30


class StoreError(Exception):
    """State that cannot be read or written: the file and what is wrong with it."""


class CorruptError(StoreError):
    """A file that is not as it was written: cut short, missing, changed on the disk."""


def save_pair(folder: Path, name: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write `NAME.safetensors` and `NAME.json`; a reader sees each as it was or as it is, never half of one."""
    write_atomically(folder / f"{name}.safetensors", dump_tensors(tensors))
    write_atomically(folder / f"{name}.json", dump_json(metadata))


def load_pair(folder: Path, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors (on the CPU) and metadata.

    Raises:
        StoreError: for a missing or broken file.
    """
    metadata_path, tensors_path = folder / f"{name}.json", folder / f"{name}.safetensors"
    metadata = parse_json(read_bytes(metadata_path, MAX_JSON_BYTES), metadata_path)
    return parse_tensors(read_bytes(tensors_path, MAX_TENSOR_BYTES), tensors_path), metadata


def dump_json(value: Mapping[str, Any]) -> bytes:
    """Strict JSON: a number that is not finite is a ValueError."""
    return json.dumps(value, indent=2, allow_nan=False).encode() + b"\n"


def dump_tensors(tensors: Mapping[str, Tensor]) -> bytes:
    """A safetensors file."""
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def parse_json(data: bytes, path: Path) -> dict[str, Any]:
    """The one object in `data`, which was read from `path`.

    Raises:
        StoreError: when it is something else, or no strict JSON.
    """
    try:
        value = json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path}: not JSON: {str(error) or type(error).__name__:.200}") from None
    if not isinstance(value, dict):
        raise StoreError(f"{path}: must hold one object")
    return value


def parse_tensors(data: bytes, path: Path) -> dict[str, Tensor]:
    """The tensors in `data`, which was read from `path`.

    Raises:
        StoreError: when it is no whole safetensors file.
    """
    try:
        return load(data)
    # Of names that torch lacks, the library makes KeyError; of sizes that do not fit, ValueError or RuntimeError.
    except (SafetensorError, KeyError, ValueError, RuntimeError, TypeError, OverflowError) as error:
        raise StoreError(f"{path}: not a whole safetensors file: {error!s:.200}") from None


def read_bytes(path: Path, limit: int) -> bytes:
    """The regular file at `path`.

    Raises:
        CorruptError: when there is none, or the disk cannot give it back.
        StoreError: when it is a link, no regular file, or larger than `limit` bytes.
    """
    try:
        # Opening a pipe would wait for a writer; a link could lead anywhere.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise StoreError(f"{path}: not a file")
            if status.st_size > limit:
                raise StoreError(f"{path}: has {status.st_size:,} bytes; at most {limit:,} are read")
            return file.read(limit)
    except (OSError, ValueError) as error:
        damaged = getattr(error, "errno", None) in (errno.ENOENT, errno.EIO)
        reason = "is a link" if path.is_symlink() else getattr(error, "strerror", None) or str(error)
        raise (CorruptError if damaged else StoreError)(f"{path}: {reason}") from None


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to a file beside `path`, flush it to the disk, and rename it to `path`."""
    temporary = path.with_name(f".{path.name}.tmp")
    write_flushed(temporary, data)
    temporary.replace(path)
    flush_folder(path.parent)


def write_flushed(path: Path, data: bytes) -> None:
    """Write `data` to `path` and wait until it is on the disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def flush_folder(path: Path) -> None:
    """Make renames in `path` survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON")
