"""What is different between two folders of files that runs have written: each file is read by what kind it is.

Left out is what the clock decides, and what names versions. Nothing of esper is imported.
"""

from __future__ import annotations

import html
import json
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from tensorboardX.proto.event_pb2 import Event

# Of records and states. The length of a record depends on the digits of its times, as do sizes and checksums.
_TIMES_AND_SIZES = {"time", "seconds", "steps_per_second", "events_bytes", "bytes", "sha256"}
_LEFT_OUT = _TIMES_AND_SIZES | {"versions", "esper"}
_TIMED_EVENTS = ("checkpoint_saved",)
# Not of a run; its lines begin with the time.
_LOGS = ("MUJOCO_LOG.TXT",)
# Has a panel of speeds.
_TIMED_PICTURES = ("learning.png",)
_TIMED_LINES = ("written by", "size ")
_TIMES = (
    (re.compile(r"steps/s [\d,]+  left \d+:\d\d"), "steps/s, left"),
    (re.compile(r"( in )\d+:\d\d$"), r"\1(time)"),
    (re.compile(r"(env steps|environment steps), [\d,]+ s\b"), r"\1, (time)"),
)
_PROGRESS = re.compile(r"update \d+/\d+ ")
_ROWS = 5
_ADDED = ": only in the new one"


@dataclass
class Comparison:
    """How many files and values (numbers, texts) were compared, and where they differ.

    `additions` are the names that only the new one has: settings, fields and tags that came since.
    """

    files: int = 0
    values: int = 0
    differences: list[str] = field(default_factory=list)
    additions: set[str] = field(default_factory=set)


def compare_folders(old: Path, new: Path, *, additions: bool = False) -> Comparison:
    """Every file below `old` with that of the same name below `new`, which may have `additions`."""
    found = Comparison()
    files, others = _files(old), _files(new)
    for name in sorted({*files, *others}):
        if name not in files or name not in others:
            found.differences.append(f"{name}: only in the {'old' if name in files else 'new'} one")
            continue
        read = _reader(name)
        found.files += 1
        values = (read(files[name]), read(others[name]))
        found.values += _count(values[0])
        for difference in _differences(*values):
            if additions and difference.endswith(_ADDED):
                found.additions.add(re.sub(r"^.*[/\]]", "", difference.removesuffix(_ADDED)))
            else:
                found.differences.append(f"{name}: {difference}")
    return found


def _files(folder: Path) -> dict[str, Path]:
    """Files by their names, without the moment and the machine that TensorBoard puts into them."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in _LOGS:
            name = str(path.relative_to(folder))
            if match := re.match(r"(.*events\.out\.tfevents)\.", name):
                name = f"{match[1]}.{sum(match[1] in other for other in found)}"
            found[name] = path
    return found


def _reader(name: str) -> Callable[[Path], Any]:
    return next((read for ending, read in _READERS.items() if re.search(ending, name)), Path.read_bytes)


def _differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """Every leaf in which two trees differ, by its path."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in dict.fromkeys([*old, *new]):
            here = f"{path}/{name}".strip("/")
            if name not in old or name not in new:
                yield f"{here}: only in the old one" if name in old else f"{here}{_ADDED}"
            else:
                yield from _differences(old[name], new[name], here)
    elif isinstance(old, list) and isinstance(new, list):
        for index, (left, right) in enumerate(zip(old, new, strict=False)):
            yield from _differences(left, right, f"{path}[{index}]")
        if len(old) != len(new):
            yield f"{path}: {len(old)} items, now {len(new)}"
    elif isinstance(old, torch.Tensor) and isinstance(new, torch.Tensor):
        yield from _tensor_difference(old, new, path)
    # 1 is not 1.0, and 0.0 not -0.0.
    elif repr(old) != repr(new):
        yield f"{path}: {old!r:.80}, now {new!r:.80}"


def _tensor_difference(old: torch.Tensor, new: torch.Tensor, path: str) -> Iterator[str]:
    if old.dtype != new.dtype or old.shape != new.shape:
        yield f"{path}: {old.dtype} {list(old.shape)}, now {new.dtype} {list(new.shape)}"
        return
    # By bytes, so that NaN is itself, and 0.0 is not -0.0.
    bytes_of = [tensor.contiguous().numpy().reshape(-1, 1).view(np.uint8) for tensor in (old, new)]
    if wrong := np.flatnonzero((bytes_of[0] != bytes_of[1]).any(axis=1)).tolist():
        first = [tensor.flatten()[wrong[0]].item() for tensor in (old, new)]
        yield f"{path}: {first[0]!r}, now {first[1]!r}, the first of {len(wrong)} of {old.numel()} numbers"


def _count(tree: Any) -> int:
    if isinstance(tree, torch.Tensor):
        return tree.numel()
    if isinstance(tree, Mapping):
        return sum(map(_count, tree.values()))
    return sum(map(_count, tree)) if isinstance(tree, list) else 1


def _repeatable(tree: Any) -> Any:
    """`tree` without what is left out, at any depth."""
    if isinstance(tree, dict):
        return {name: _repeatable(value) for name, value in tree.items() if name not in _LEFT_OUT}
    return [_repeatable(value) for value in tree] if isinstance(tree, list) else tree


def _read_json(path: Path) -> Any:
    return _repeatable(json.loads(path.read_text()))


def _read_events(path: Path) -> list[Any]:
    events = map(json.loads, path.read_text().splitlines())
    return [_repeatable(event) for event in events if event["event"] not in _TIMED_EVENTS]


def _without_times(line: str) -> str:
    for pattern, instead in _TIMES:
        line = pattern.sub(instead, line)
    return line


def _read_output(path: Path) -> list[Any]:
    """Lines, or what they hold if that is JSON; of those that show progress every few seconds the first and last."""
    lines = path.read_text().splitlines()
    progress = [index for index, line in enumerate(lines) if _PROGRESS.match(line)]
    left_out = set(progress[1:-1])
    return [
        _repeatable(json.loads(line)) if line.startswith('{"') else _without_times(line)
        for index, line in enumerate(lines)
        if index not in left_out and not line.startswith(_TIMED_LINES)
    ]


def _read_page(path: Path) -> list[Any]:
    """The texts and curves of an HTML page, without pictures, which are compared as files, and without versions."""
    page = re.sub(r"<h2>Versions</h2>.*?</table>", "", path.read_text())
    return [
        _without_speeds(json.loads(text)) if text.startswith('[{"title"') else _without_times(html.unescape(text))
        for text in re.split(r"<[^>]*>", page)
        if text.strip()
    ]


def _without_speeds(panels: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [panel for panel in panels if "per_second" not in panel["title"]]


def _read_scalars(path: Path) -> dict[str, list[Any]]:
    """Steps and values of what is in a TensorBoard file, by tag, but for speeds."""
    data, position = path.read_bytes(), 0
    found: dict[str, list[Any]] = {}
    while position < len(data):
        (length,) = struct.unpack_from("<Q", data, position)
        event = Event.FromString(data[position + 12 : position + 12 + length])
        position += 12 + length + 4
        for value in event.summary.value:
            if "per_second" not in value.tag:
                found.setdefault(value.tag, []).append([event.step, value.simple_value])
    return found


def _read_exported(path: Path) -> list[Any]:
    """What an exported policy makes of fixed inputs."""
    program = torch.export.load(path)
    generator = torch.Generator().manual_seed(0)
    args, kwargs = program.example_inputs

    def fixed(example: torch.Tensor) -> torch.Tensor:
        shape = (_ROWS, *example.shape[1:])
        if example.dtype == torch.float32:
            return torch.randn(shape, generator=generator)
        # Pixels, or masks that allow everything.
        highest = 256 if example.dtype == torch.uint8 else 1
        return torch.randint(highest, shape, generator=generator).to(example.dtype) + (example.dtype == torch.bool)

    outputs = program.module()(*map(fixed, args), **{name: fixed(value) for name, value in kwargs.items()})
    return list(outputs) if isinstance(outputs, tuple) else [outputs]


# By a pattern of the file's name.
_READERS: Mapping[str, Callable[[Path], Any]] = {
    r"\.safetensors$": load_file,
    r"events\.jsonl$": _read_events,
    r"\.json$": _read_json,
    r"\.(stdout|stderr)$": _read_output,
    r"\.html$": _read_page,
    r"events\.out\.tfevents\.\d+$": _read_scalars,
    r"\.pt2$": _read_exported,
    rf"({'|'.join(_TIMED_PICTURES)})$": lambda path: path.name,
}
