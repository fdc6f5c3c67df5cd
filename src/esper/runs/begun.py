"""How far the run of a config has come in its folder, and whether that run has these settings."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from esper.runs.config import RunConfig
from esper.runs.layers import MAX_FILE_BYTES, as_recorded
from esper.settings.options import complete, settings_of
from esper.storage import files

_TAIL_BYTES = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Progress:
    """`fraction` of the steps are done. Only runs that are `new` or `begun` are still to be run."""

    status: Literal["new", "begun", "completed", "diverged"]
    fraction: float


def progress_of(config: RunConfig) -> Progress:
    """The progress of the run in the folder of `config`, from the last line of its record."""
    try:
        last = last_event(_folder(config))
    except OSError:
        return Progress(status="new", fraction=0.0)
    steps, status = last.get("env_steps"), last.get("status")
    done = min(max(steps, 0), config.ppo.total_timesteps) if type(steps) is int else 0
    fraction = done / config.ppo.total_timesteps
    if last.get("event") == "run_finished" and status == "completed":
        return Progress(status="completed", fraction=1.0)
    if last.get("event") == "run_finished" and status == "diverged":
        return Progress(status="diverged", fraction=fraction)
    return Progress(status="begun", fraction=fraction)


def other_settings(config: RunConfig, root: Path) -> list[str] | None:
    """How the settings of a run in the folder of `config`, below `root`, differ from `config`; None without a run.

    Raises:
        ValueError: when they cannot be read, or are behind a link.
    """
    path = _folder(config) / "config.json"
    try:
        there = files.parse_json(files.read(path, MAX_FILE_BYTES, root=root))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read: {files.why(error)}") from None
    if not isinstance(there, dict):
        raise ValueError(f"{path}: must hold the settings of a run")
    settings = settings_of(RunConfig)
    # Settings of later versions had their defaults, unless these changed what is learned.
    there = {**as_recorded(RunConfig()), **complete(there, settings)}
    mine = as_recorded(config)
    names = [name for name in mine if not settings[name].decides_nothing]
    return [f"{name} {there.get(name)}, now {mine[name]}" for name in names if there.get(name) != mine[name]]


def last_event(run_dir: Path) -> dict[str, Any]:
    """The last whole event of the record in `run_dir`; {} if it has none.

    Raises:
        OSError: when it cannot be read.
    """
    with files.open_to_read(run_dir / "events.jsonl") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL_BYTES))
        for line in reversed(file.read().splitlines()):
            try:
                event = files.parse_json(line)
            except ValueError:
                # A line that is being written, or is incomplete as the run was killed.
                continue
            if isinstance(event, dict):
                return event
    return {}


def _folder(config: RunConfig) -> Path:
    assert config.run_dir is not None
    return Path(config.run_dir)
