"""What `benchmarks/equality.py` calls different, and what it leaves to the clock."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from equality_files import compare_folders

RATE = 1e-3


def events(*names: str, **fields: Any) -> bytes:
    return b"".join(json.dumps({"event": name, **fields}).encode() + b"\n" for name in names)


def tensors(*values: float, dtype: str = "float32") -> bytes:
    return save({"weight": np.array(values, dtype=dtype)})


LINE = "update {}/9  env steps 64  steps/s {}  left 0:0{}  return (3 episodes) {}\n"
PAGE = "<p>run: completed, 9 of 9 updates, 64 environment steps, {} s</p><td>{}</td>"

DIFFERENT = {
    "one bit of a tensor": ("a.safetensors", tensors(1.0), tensors(1.0000001), "weight: 1.0, now 1.0000001"),
    "the sign of zero": ("a.safetensors", tensors(0.0), tensors(-0.0), "weight: 0.0, now -0.0"),
    "a dtype": ("a.safetensors", tensors(1.0), tensors(1.0, dtype="float64"), "torch.float32 [1], now torch.float64"),
    "one bit of a rate": (
        *("events.jsonl", events("update_completed", lr=RATE)),
        *(events("update_completed", lr=float(np.nextafter(RATE, 1))), "[0]/lr: 0.001, now 0.0010000000000000002"),
    ),
    "an event's name": ("events.jsonl", events("a"), events("b"), "[0]/event: 'a', now 'b'"),
    "an event more": ("events.jsonl", events("a"), events("a", "b"), "1 items, now 2"),
    "a number's type": ("config.json", b'{"n": 1}', b'{"n": 1.0}', "n: 1, now 1.0"),
    "a field": ("config.json", b"{}", b'{"n": 1}', "n: only in the new one"),
    "a word": ("0.stdout", b"finished", b"completed", "[0]: 'finished', now 'completed'"),
    "progress": ("0.stdout", LINE.format(1, 9, 9, 3).encode(), LINE.format(1, 9, 9, 4).encode(), "now"),
    "a page": ("report.html", PAGE.format(1, "x").encode(), PAGE.format(1, "y").encode(), "'x', now 'y'"),
    "a picture": ("training.png", b"x", b"y", "b'x', now b'y'"),
}
ALIKE = {
    "NaN": ("a.safetensors", tensors(np.nan), tensors(np.nan)),
    "times": ("events.jsonl", events("a", seconds=1.0), events("a", "checkpoint_saved", seconds=2.0)),
    "versions": ("state.json", b'{"versions": {"esper": "1"}}', b'{"versions": {"esper": "2"}}'),
    "speeds": ("0.stdout", LINE.format(1, 9, 9, 3).encode(), LINE.format(1, "1,000", 5, 3).encode()),
    "versions on the terminal": ("0.stdout", b'{"versions": {"esper": "1"}}', b'{"versions": {"esper": "2"}}'),
    "how often progress is shown": (
        *("0.stdout", "".join(LINE.format(i, 9, 9, 3) for i in (1, 9)).encode()),
        "".join(LINE.format(i, 9, 9, 3) for i in (1, 5, 9)).encode(),
    ),
    "seconds of a page": ("report.html", PAGE.format(1, "x").encode(), PAGE.format(2, "x").encode()),
}


def compare(name: str, old: bytes, new: bytes, folder: Path) -> list[str]:
    for side, content in (("old", old), ("new", new)):
        (folder / side).mkdir()
        (folder / side / name).write_bytes(content)
    return compare_folders(folder / "old", folder / "new").differences


@pytest.mark.parametrize("case", DIFFERENT)
def test_is_different(case: str, tmp_path: Path) -> None:
    name, old, new, says = DIFFERENT[case]
    (found,) = compare(name, old, new, tmp_path)
    assert found.startswith(f"{name}: ")
    assert says in found


@pytest.mark.parametrize("case", ALIKE)
def test_is_alike(case: str, tmp_path: Path) -> None:
    assert compare(*ALIKE[case], tmp_path) == []


def test_a_file_is_missing(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    (tmp_path / "old" / "policy.json").touch()
    found = compare_folders(tmp_path / "old", tmp_path / "new")
    assert found.differences == ["policy.json: only in the old one"]
