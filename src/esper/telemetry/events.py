"""The events of a run. One declaration gives the JSONL record, the TensorBoard tags and the columns of plots.

A value that was not computed is None and left out of the record, never 0; so is one that is not finite, a number that
JSON does not have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from esper.telemetry.metrics import metric, of_rollout
from esper.telemetry.rounds import Flat, GrowthEpisode, RoundCompleted

# Of the record: counted up whenever a field or an event goes, or comes to mean something else.
SCHEMA_VERSION = 3

# Fields, and events, that differ between two runs with the same seed.
TIME_FIELDS = frozenset({"time", "seconds", "steps_per_second"})
# Numbers over which sinks show others. An evaluation has the step of its update, and another number of the update.
ON_THE_AXIS = frozenset({"update", "env_steps"})
TIMED_EVENTS = frozenset({"checkpoint_saved"})


@dataclass(frozen=True, kw_only=True)
class RunStarted:
    """A run begins, with these settings.

    `schedules` holds each resolved schedule: its base rate, floor, and where its parts begin, in updates. `engine` is
    what computes the updates: native, torch (compiled), graphs or eager. `versions` has esper's commit too, where it
    runs from a checkout; `-dirty` says that files differ from it. `actions_scaled_to` has the bounds that -1 and 1
    stand for.
    `initial_policy` has the tensors that were taken, where not all weights are random, and why others were not.
    """

    config: Mapping[str, Any]
    seed: int
    total_updates: int
    schedules: Mapping[str, Mapping[str, float | int | str | None]]
    lr_schedule_switch: Literal["on", "off"]
    engine: str
    threads: int
    telemetry: str
    versions: Mapping[str, str]
    actions_scaled_to: Mapping[str, Sequence[float]] | None = None
    initial_policy: Mapping[str, Any] | None = None
    schema: int = SCHEMA_VERSION


@dataclass(frozen=True, kw_only=True)
class AtUpdate(Flat):
    """Where a run is: `update` is its index, the clock of the schedules, `env_steps` counts all environments.

    `lr` and `lr_phase` are by parameter group. The schedules are at `schedule_update` of `schedule_total_updates`:
    they have no other state. `lr` is theirs; the optimizer multiplied it by `lr_factor`, of its last step, where there
    is feedback.
    """

    update: int
    env_steps: int
    lr: Mapping[str, float]
    lr_phase: Mapping[str, str]
    lr_factor: Mapping[str, float] | None = None
    schedule_update: int
    schedule_total_updates: int


@dataclass(frozen=True, kw_only=True)
class UpdateCompleted(AtUpdate):
    """One PPO update, with its metrics."""

    clip_coef: float = metric("how far from 1 the ratio still gains", summary=None)
    entropy_coef: float = metric("weight of the entropy bonus", summary=None)
    value_coef: float | None = metric("weight of the value loss", summary=None, default=None)
    value_clip_coef: float | None = metric(
        "how far new values may be from the old ones in the value loss", summary=None, default=None
    )
    target_kl: float | None = metric("approx_kl at which an update ends", unit="nat", summary=None, default=None)
    optimizer_steps: int = metric("minibatches that the optimizer stepped on", summary=None)
    loss: float = metric("what is minimised: the sum of all terms of the loss")
    policy_loss: float = metric("clipped objective of the policy, negated", in_snapshots=True)
    value_loss: float = metric("half the mean squared error of the values", unit="return^2", in_snapshots=True)
    entropy: float = metric("entropy of the policy", unit="nat", in_snapshots=True)
    approx_kl: float = metric(
        "estimate of KL(old policy, new policy), E[(r - 1) - log r]", unit="nat", in_snapshots=True
    )
    clip_fraction: float = metric(
        "share of the samples whose ratio is further from 1 than clip_coef", in_snapshots=True
    )
    ratio_mean: float = metric("importance ratio")
    ratio_std: float = metric(
        "standard deviation of the importance ratio", summary="std", column="ratio_deviation_sq", in_snapshots=True
    )
    ratio_min: float = metric("lowest importance ratio", summary="min", in_snapshots=True)
    ratio_max: float = metric("highest importance ratio", summary="max", in_snapshots=True)
    approx_kl_after: float | None = metric(
        "approx_kl of the rollout after the update, with metrics_after",
        unit="nat",
        summary=None,
        in_snapshots=True,
        default=None,
    )
    clip_fraction_after: float | None = metric(
        "clip_fraction of the rollout after the update", summary=None, in_snapshots=True, default=None
    )
    ratio_std_after: float | None = metric(
        "ratio_std of the rollout after the update", summary=None, in_snapshots=True, default=None
    )
    grad_norm: Mapping[str, float] = metric(
        "norm of the gradient before clipping, by parameter group", by_group=True, in_snapshots=True
    )
    explained_variance: float | None = metric(
        "1 - Var(returns - values) / Var(returns) over the rollout, before the update: at most 1; absent where the "
        "standard deviation of returns is at most 0.02 of their root mean square",
        summary=None,
        in_snapshots=True,
    )
    episodes: int = of_rollout("episodes that ended in this rollout")
    episode_return_mean: float | None = of_rollout(
        "mean return of these episodes, in the environment's rewards", unit="return", in_snapshots=True
    )
    episode_return_std: float | None = of_rollout("standard deviation of their returns", unit="return")
    episode_return_min: float | None = of_rollout("lowest of their returns", unit="return")
    episode_return_max: float | None = of_rollout("highest of their returns", unit="return")
    episode_length_mean: float | None = of_rollout("mean length of these episodes", unit="step")
    steps_per_second: float = metric("environment steps per second", unit="step/s", summary=None, section="time")
    user: Mapping[str, float] | None = metric("metrics of callbacks, by name", summary=None, default=None)
    loss_term: Mapping[str, float] | None = metric(
        "mean of each term of the loss that was given in Python, by name, without its weight",
        by_group=True,
        default=None,
    )
    success_rate: float | None = of_rollout(
        "share of successes among those of these episodes for which the environment reports `is_success`",
        default=None,
    )
    truncated_fraction: float | None = of_rollout("share of these episodes that were truncated", default=None)
    observation_max: float | None = of_rollout(
        "largest absolute value in observation vectors that are not normalized", default=None
    )
    action_extent: float | None = of_rollout(
        "root mean square of Box actions after clipping: 0 in the middle of their bounds, 1 always at a bound",
        default=None,
    )


@dataclass(frozen=True, kw_only=True)
class UpdateSkipped:
    """An update without an optimizer step, or undone; parameters are as before it.

    `non_finite`: something was not a finite number; otherwise the first step was over `target_kl`. `cause` names the
    observation, reward or action with its environment and step, or the minibatch. `recurrent_resets` counts the
    environments whose recurrent state was reset within an episode of the rollout, as it was not finite.
    """

    update: int
    env_steps: int
    cause: str
    non_finite: bool
    recurrent_resets: int | None = None


@dataclass(frozen=True, kw_only=True)
class AnalyticsSnapshot(AtUpdate):
    """Statistics of the last `window` updates, by metric, every `snapshot_every` updates.

    `value_loss_roughness` is the standard deviation of first differences of log `value_loss`.
    """

    window: int
    mean: Mapping[str, float]
    std: Mapping[str, float]
    min: Mapping[str, float]
    max: Mapping[str, float]
    value_loss_roughness: float | None


@dataclass(frozen=True, kw_only=True)
class DebugSnapshot(AtUpdate):
    """The minibatches of an update, one that was skipped too: a list for each metric, null for what is not finite.

    It has the metrics of an update that are of minibatches, quantiles of the importance ratio, and `stepped`: 0 for
    minibatches that the optimizer did not step on, because one before was over `target_kl` or not finite.
    """

    minibatch: Mapping[str, Sequence[float | None]]


@dataclass(frozen=True, kw_only=True)
class AnomalyDetected:
    """Something began to go wrong; the same kind is said again when it comes back after 10 updates or more."""

    update: int
    env_steps: int
    kind: str
    value: float | None
    says: str


@dataclass(frozen=True, kw_only=True)
class LearningStalled:
    """At the end of a run whose returns stand still: the `cause`, what was measured, and what to try, if anything."""

    update: int
    env_steps: int
    cause: str
    says: str
    tries: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class EvaluationCompleted:
    """Whole episodes with the most likely actions, after update `update`, always from the same initial states.

    `eval_capped` of them did not end and were cut, as the environment has no time limit; their returns and lengths
    count as far as they went. `eval_success_rate` is as `success_rate` of `UpdateCompleted`.
    """

    update: int
    env_steps: int
    eval_episodes: int
    eval_return_mean: float
    eval_return_std: float
    eval_length_mean: float
    seconds: float
    eval_capped: int | None = None
    eval_success_rate: float | None = None


@dataclass(frozen=True, kw_only=True)
class VideoRecorded:
    """An episode with the most likely actions, after update `update`: `frames` in the file `video` in the folder."""

    update: int
    env_steps: int
    video: str
    frames: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class RunResumed:
    """The run goes on from `checkpoint`, before update `update`.

    `exact_resume` is False where the environment could not tell where it stood: then fresh episodes begin, from
    `env_seed`. `schedules` are as in `RunStarted`, from here on; `lr_before` and `lr` are the next update's rates as
    the checkpoint had them and as they are now, `lr_factor_before` and `lr_factor` the factors of the feedback.
    `changed` has old and new value of every setting that is not as it was, and `broken` says what was wrong with newer
    checkpoints.
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
    lr_factor_before: Mapping[str, float] | None = None
    lr_factor: Mapping[str, float] | None = None
    changed: Mapping[str, Sequence[Any]]
    broken: Sequence[str]
    engine: str
    threads: int
    telemetry: str
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
    """How the run ended, and why if before its last update; `seconds` is from its (latest) start.

    `updates_undone` of the `updates` were undone because something was not finite.

    A run that reached its `stop_at_return` is completed, with that as the cause.
    """

    status: Literal["completed", "interrupted", "diverged", "failed"]
    cause: str | None
    updates: int
    updates_undone: int
    env_steps: int
    episodes: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class SinkFailed:
    """Something beside the record could not be written, and is not written any more."""

    sink: str
    cause: str


Event: TypeAlias = (
    RunStarted
    | RunResumed
    | UpdateCompleted
    | RoundCompleted
    | GrowthEpisode
    | UpdateSkipped
    | AnalyticsSnapshot
    | DebugSnapshot
    | AnomalyDetected
    | LearningStalled
    | EvaluationCompleted
    | VideoRecorded
    | CheckpointSaved
    | SinkFailed
    | RunFinished
)


class SinkError(Exception):
    """Events cannot be written any more: where, and why."""


class Sink(Protocol):
    """Takes the events of one run.

    Raises:
        SinkError: when an event would be lost.
    """

    def emit(self, event: Event) -> None: ...

    def close(self) -> None: ...


class Writer(Sink, Protocol):
    """A sink that may keep back what it is given; `flush` writes it. A checkpoint is captured after that."""

    def flush(self) -> None: ...
