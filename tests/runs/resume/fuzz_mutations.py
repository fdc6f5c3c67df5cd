"""What is done to files."""

from __future__ import annotations

import json
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

_ODD_VALUES: tuple[Callable[[], Any], ...] = (
    *(lambda value=value: value for value in (None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**400, 0.5)),
    *(lambda value=value: value for value in (1e308, -0.0, "", "x", "x" * 10_000, "../../etc", "\u0000", "nan", "1e9")),
    *(lambda value=value: value for value in ("canary:net", "canary:CartPole-v1", "\ud800", "\x1b[31m", "<b>", -1e308)),
    *(list, dict, lambda: [[]], lambda: [None] * 1000, lambda: {"state": {}}, lambda: {"a": {"b": {"c": 1}}}),
    lambda: json.loads("[" * 900 + "]" * 900),
)


def mutate_bytes(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 2, 5, 30))):
        position = rng.randrange(len(data) + 1)
        match rng.randrange(6):
            case 0 if data:
                data[position % len(data)] ^= 1 << rng.randrange(8)
            case 1:
                del data[position:]
            case 2:
                del data[position : position + rng.randint(1, 50)]
            case 3:
                data[position:position] = rng.randbytes(rng.randint(1, 50))
            case 4:
                start = rng.randrange(len(data) + 1)
                data[position:position] = data[start : start + rng.randint(1, 200)]
            case _:
                data[position : position + 8] = rng.choice((b"\xff" * 8, b"\x00" * 8, b"[" * 8, b'"', b"1e999", b"NaN"))


def mutate_json(value: Any, rng: random.Random) -> None:
    """Change one thing, somewhere below `value`."""
    while True:
        keys: list[Any] = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return
        key = rng.choice(keys)
        if isinstance(value[key], dict | list) and rng.random() < 0.8:
            value = value[key]
            continue
        action = rng.randrange(4)
        if action == 0:
            del value[key]
        elif action == 1 and isinstance(value, dict):
            value[rng.choice(("", "x", key + "_", "a/b", "__class__"))] = value.pop(key)
        else:
            value[key] = rng.choice(_ODD_VALUES)()
        return


def mutate_header(data: bytes, rng: random.Random) -> bytes:
    """Change the header of a safetensors file."""
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    mutate_json(header, rng)
    if rng.random() < 0.3:
        tensor = rng.choice(list(header.values()) or [{}])
        if isinstance(tensor, dict):
            tensor["dtype"] = rng.choice(("F64", "F16", "BF16", "I8", "U64", "BOOL", "F8_E4M3", "F4", "C64", "X"))
    text = json.dumps(header).encode()
    length = rng.choice((len(text),) * 8 + (0, len(text) + 1, 2**40, 2**64 - 1))
    return struct.pack("<Q", length) + text + data[8 + size :]


def replace_by_something_else(path: Path, rng: random.Random, outside: Path) -> None:
    """A folder, a link to a file or a folder of `outside`, to nothing or itself, a pipe, or nothing."""
    path.unlink()
    match rng.randrange(7):
        case 0:
            path.mkdir()
        case 1:
            path.symlink_to(outside / "file")
        case 2:
            path.symlink_to(path.name)
        case 3:
            os.mkfifo(path)
        case 4:
            path.symlink_to(outside / "nothing")
        case 5:
            path.symlink_to(outside)
