"""What may be different when a run goes on. Free of torch, so that the command line answers at once."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from esper.runs.config import RunConfig
from esper.runs.layers import recorded
from esper.simic.config import SCHEDULES

Mode: TypeAlias = Literal["continue", "extend", "restart"]
MODES: tuple[Mode, ...] = ("continue", "extend", "restart")

# Where and how a run computes, how it is stored, when it ends; and what config.json does not record. Everything else
# decides what is learned. Another device or compilation, and in torch another number of threads, rounds differently:
# allowed, but no longer the same to the last bit.
MAY_CHANGE = frozenset(
    {
        *("device", "compile", "threads"),
        *("total_timesteps", "checkpoint_every", "keep_checkpoints", "max_skipped_updates"),
        *("eval_every", "eval_episodes", "stop_at_return"),
        *("telemetry", "snapshot_every", "tensorboard", "wandb", "picture"),
    }
)


def may_change(name: str, mode: Mode) -> bool:
    """Whether setting `name` may differ; schedules may where they get a new horizon."""
    is_schedule = name == "shared_lr" or any(name == each or name.startswith(f"{each}_") for each in SCHEDULES)
    return name in MAY_CHANGE or (is_schedule and mode != "continue")


def changes(before: RunConfig, now: RunConfig) -> dict[str, tuple[Any, Any]]:
    """Old and new value of every recorded setting that differs."""
    old, new = recorded(before), recorded(now)
    return {name: (old[name], new[name]) for name in old if old[name] != new[name]}
