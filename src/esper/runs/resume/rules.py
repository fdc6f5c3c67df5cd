"""What may change when a run resumes. Does not import torch, so the command line starts quickly."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from esper.runs.config import RunConfig
from esper.runs.layers import recorded
from esper.settings.options import settings_of

Mode: TypeAlias = Literal["continue", "extend", "restart"]
MODES: tuple[Mode, ...] = ("continue", "extend", "restart")


def may_change(name: str, mode: Mode) -> bool:
    """Whether setting `name` may differ; schedules may if they get a new horizon."""
    allowed = settings_of(RunConfig)[name].may_change
    return allowed == "always" or (allowed == "with a new horizon" and mode != "continue")


def changes(before: RunConfig, now: RunConfig) -> dict[str, tuple[Any, Any]]:
    """Old and new value of every recorded setting that differs."""
    old, new = recorded(before), recorded(now)
    return {
        name: (old[name], new[name]) for name in old if old[name] != new[name] and not _same_partial(old, new, name)
    }


def _same_partial(old: dict[str, Any], new: dict[str, Any], name: str) -> bool:
    """Whether it may be the same: files of older versions do not name the function and the arguments of a partial."""
    return old[name] == "<functools.partial>" and str(new[name]).startswith("<partial(")
