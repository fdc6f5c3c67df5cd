"""The events of a run. One declaration gives the JSONL record, the TensorBoard tags and the columns of plots.

A value that was not computed is None and left out of the record, never 0; so is one that is not finite, a number that
JSON does not have.
"""

from __future__ import annotations

import dataclasses
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

# Of the record: counted up whenever a field or an event goes, or comes to mean something else.
SCHEMA_VERSION = 2

# Fields, and events, that differ between two runs with the same seed.
TIME_FIELDS = frozenset({"time", "seconds", "steps_per_second"})
TIMED_EVENTS = frozenset({"checkpoint_saved"})


@dataclass(frozen=True, kw_only=True)
class RunStarted:
    """`schedules` holds each resolved schedule: its base rate, floor, and where its parts begin, in updates.

    `engine` is what computes the updates: native, torch (compiled) or eager. `versions` has esper's commit too, where
    it runs from a checkout; `-dirty` says that files differ from it.
    """

    config: Mapping[str, Any]
    seed: int
    total_updates: int
    schedules: Mapping[str, Mapping[str, float | int | str | None]]
    lr_schedule_switch: Literal["on", "off"]
    engine: str
    threads: int
    versions: Mapping[str, str]
    schema: int = SCHEMA_VERSION


@dataclass(frozen=True, kw_only=True)
class UpdateCompleted:
    """One PPO update. `update` is its index (the clock of the schedules), `env_steps` counts all environments.

    `lr`, `lr_phase` and `grad_norm` (before clipping) are by parameter group. Losses, `entropy`, `approx_kl`,
    `clip_fraction` and the importance `ratio` are over all minibatches optimised; `value_loss` is half the mean
    squared error. The `episode` fields are over the episodes that ended in this rollout, in the environment's rewards.
    """

    update: int
    env_steps: int
    lr: Mapping[str, float]
    lr_phase: Mapping[str, str]
    clip_coef: float
    entropy_coef: float
    optimizer_steps: int
    loss: float
    policy_loss: float
    value_loss: float
    entropy: float
    approx_kl: float
    clip_fraction: float
    ratio_mean: float
    ratio_std: float
    ratio_min: float
    ratio_max: float
    grad_norm: Mapping[str, float]
    explained_variance: float | None
    episodes: int
    episode_return_mean: float | None
    episode_return_std: float | None
    episode_return_min: float | None
    episode_return_max: float | None
    episode_length_mean: float | None
    steps_per_second: float


@dataclass(frozen=True, kw_only=True)
class UpdateSkipped:
    """An update without an optimizer step, or undone; parameters and clock are as before it."""

    update: int
    env_steps: int
    cause: str


@dataclass(frozen=True, kw_only=True)
class RunResumed:
    """The run goes on from `checkpoint`, before update `update`.

    `exact_resume` is False where the environment could not tell where it stood: then fresh episodes begin, from
    `env_seed`. `schedules` are as in `RunStarted`, from here on; `lr_before` and `lr` are the next update's rates as
    the checkpoint had them and as they are now. `changed` has old and new value of every setting that is not as it
    was, and `broken` says what was wrong with newer checkpoints.
    """

    checkpoint: str
    update: int
    env_steps: int
    resume_schedule: str
    exact_resume: bool
    env_seed: int | None
    total_updates: int
    schedules: Mapping[str, Mapping[str, float | int | str | None]]
    lr_before: Mapping[str, float]
    lr: Mapping[str, float]
    changed: Mapping[str, Sequence[Any]]
    broken: Sequence[str]
    engine: str
    threads: int
    versions: Mapping[str, str]
    schema: int = SCHEMA_VERSION


@dataclass(frozen=True, kw_only=True)
class CheckpointSaved:
    """A checkpoint is whole on the disk; `exact_resume` as in `RunResumed`, `seconds` what writing took."""

    checkpoint: str
    env_steps: int
    exact_resume: bool
    seconds: float


@dataclass(frozen=True, kw_only=True)
class RunFinished:
    """How the run ended, and why if before its last update; `seconds` is from its (latest) start."""

    status: Literal["completed", "interrupted", "diverged", "failed"]
    cause: str | None
    updates: int
    env_steps: int
    episodes: int
    seconds: float


Event: TypeAlias = RunStarted | RunResumed | UpdateCompleted | UpdateSkipped | CheckpointSaved | RunFinished


class SinkError(Exception):
    """Events cannot be written any more: where, and why."""


class Sink(Protocol):
    """Takes the events of one run.

    Raises:
        SinkError: when an event would be lost.
    """

    def emit(self, event: Event) -> None: ...

    def close(self) -> None: ...


def event_name(event: Event) -> str:
    """`update_completed` for `UpdateCompleted`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(event).__name__).lower()


def to_record(event: Event) -> dict[str, Any]:
    """`event` as one flat JSON object: mappings by group become `lr/policy`; None and non-finite are left out."""
    record: dict[str, Any] = {"event": event_name(event)}
    for field in dataclasses.fields(event):
        value = getattr(event, field.name)
        if isinstance(event, UpdateCompleted) and isinstance(value, Mapping):
            record.update((f"{field.name}/{group}", item) for group, item in value.items())
        elif value is not None and not (isinstance(value, float) and not math.isfinite(value)):
            record[field.name] = value
    return record


def episode_fields(returns: Sequence[float], lengths: Sequence[int]) -> dict[str, Any]:
    """The `episode` fields of `UpdateCompleted`."""
    if not returns:
        names = ("return_mean", "return_std", "return_min", "return_max", "length_mean")
        return {"episodes": 0, **{f"episode_{name}": None for name in names}}
    mean = statistics.fmean(returns)
    return {
        "episodes": len(returns),
        "episode_return_mean": mean,
        # statistics.pstdev fails on a return that is not finite.
        "episode_return_std": math.sqrt(statistics.fmean((value - mean) ** 2 for value in returns)),
        "episode_return_min": min(returns),
        "episode_return_max": max(returns),
        "episode_length_mean": statistics.fmean(lengths),
    }
