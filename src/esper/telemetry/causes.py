"""Causes why learning stands still, in the order in which they are looked for: each is one function.

Lists of the usual symptoms: Schulman 2016, "The nuts and bolts of deep RL research"; Jones 2021, "Debugging RL, without
the agonizing pain".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import sqrt
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from esper.telemetry.anomalies import ENTROPY_SHARE

# A policy that changes by less than this in an update will not learn within any usual number of them.
_NO_CHANGE = 1e-6
_HARDLY_ANY_CHANGE = 1e-5
# An Adam step moves no parameter by much more than the learning rate.
_LOW_RATE = 1e-5
# The more a gradient is shrunk the nearer it is to Adam's epsilon, and the shorter is the step.
_FAR_OVER_CLIP = 10.0
_MINOR_SHARE = 0.1
# Inputs in the hundreds saturate the first layer, and what tells observations apart is lost.
_LARGE_OBSERVATION = 100.0
# The actions of a standard normal policy at bounds -1 and 1 have an extent of 0.7.
_AT_BOUNDS, _IN_THE_MIDDLE = 0.9, 0.05
# A value function learns to change its outputs by a few units in a rollout, not by hundreds.
_LARGE_ERROR = 50.0
_EXPLAINS_NOTHING = 0.05


class Measured:
    """The metrics of a run by name, a number for each update, NaN where it is not known; and the settings."""

    def __init__(self, columns: Mapping[str, NDArray[np.float64]], settings: Mapping[str, Any]) -> None:
        self.settings, self._columns = settings, columns

    def known(self, name: str) -> NDArray[np.float64]:
        """The numbers of the updates that have one."""
        column = self._columns[name]
        return column[np.isfinite(column)]

    def last(self, name: str) -> float:
        """The median over the last quarter of the updates; NaN if none has one."""
        return _median(np.array_split(self._columns[name], 4)[-1])

    def whole(self, name: str) -> float:
        """The median over all updates; NaN if none has one."""
        return _median(self._columns[name])


class Try(NamedTuple):
    """A setting, and the value to try: `higher` or `lower`, or one that replaces `instead_of`."""

    setting: str
    value: str
    instead_of: Any = None

    @property
    def words(self) -> str:
        return f"a {self.value} {self.setting}" if self.value in ("higher", "lower") else f"{self.setting}={self.value}"

    def applies(self, settings: Mapping[str, Any]) -> bool:
        return self.instead_of is None or settings.get(self.setting) == self.instead_of


class Judge(Protocol):
    """Returns what was measured, in words, if the cause holds."""

    __name__: str

    def __call__(self, run: Measured) -> str | None: ...


class Cause(NamedTuple):
    """Why learning stands still: `when` it holds, the metrics that it reads, what to try.

    It holds only where one of `tries` applies, if there are any.
    """

    name: str
    when: str
    reads: tuple[str, ...]
    tries: tuple[Try, ...]
    judge: Judge


CAUSES: list[Cause] = []


def cause(when: str, *tries: Try, reads: tuple[str, ...]) -> Callable[[Judge], Judge]:
    """Declare the decorated function as the next of `CAUSES`, with its name."""

    def declare(judge: Judge) -> Judge:
        CAUSES.append(Cause(judge.__name__.removeprefix("_"), when, reads, tries, judge))
        return judge

    return declare


_CONSTANT = ("episodes", "episode_return_min", "episode_return_max", "truncated_fraction")


@cause(
    "all episodes had the same return, and all were truncated",
    Try("max_episode_steps", "higher"),
    reads=(*_CONSTANT, "episode_length_mean"),
)
def _time_limit(run: Measured) -> str | None:
    same = _same_returns(run)
    if same is None or not _all_truncated(run):
        return None
    steps = run.whole("episode_length_mean")
    return f"{same} and were truncated after {steps:.0f} steps: in these no action changed the return"


@cause("all episodes had the same return, and not all were truncated", reads=_CONSTANT)
def _constant_return(run: Measured) -> str | None:
    same = _same_returns(run)
    return None if same is None or _all_truncated(run) else f"{same}: the rewards do not tell actions apart"


@cause(
    f"over the whole run approx_kl is below {_NO_CHANGE:g} and the policy's learning rate at most {_LOW_RATE:g}",
    Try("lr", "higher"),
    reads=("approx_kl", "lr/policy"),
)
def _low_learning_rate(run: Measured) -> str | None:
    kl, rate = run.whole("approx_kl"), run.whole("lr/policy")
    if not (kl < _NO_CHANGE and rate <= _LOW_RATE):
        return None
    return f"the policy hardly changed, approx_kl {kl:.1g} at a learning rate of {rate:.2g}"


@cause(f"entropy is below {ENTROPY_SHARE:.0%} of the first update's", Try("lr", "lower"), reads=("entropy",))
def _policy_collapse(run: Measured) -> str | None:
    entropies, entropy = run.known("entropy"), run.last("entropy")
    # Entropy of a continuous policy can be negative, so a share has no meaning.
    if not (len(entropies) and 0 <= entropy < ENTROPY_SHARE * entropies[0]):
        return None
    return f"the policy no longer explores, entropy {entropy:.1g} after {entropies[0]:.2g} in the first update"


_NORMS = ("grad_norm/policy", "grad_norm/value", "grad_norm/shared")


@cause(
    f"all gradients are clipped together, their norm is over {_FAR_OVER_CLIP:g} times max_grad_norm, at most "
    f"{_MINOR_SHARE:.0%} of it the policy's, and approx_kl below {_HARDLY_ANY_CHANGE:g}",
    Try("normalize_rewards", "true", instead_of=False),
    Try("max_grad_norm", "higher"),
    reads=(*_NORMS, "approx_kl"),
)
def _clipped_by_others(run: Measured) -> str | None:
    norms = {name: run.last(name) for name in _NORMS}
    policy, others = norms.pop("grad_norm/policy"), {name: norm for name, norm in norms.items() if norm > 0}
    clip, kl = run.settings.get("max_grad_norm"), run.last("approx_kl")
    if clip is None or not others or run.settings.get("max_grad_norm_over") == "group":
        return None
    joint = sqrt(policy**2 + sum(norm**2 for norm in others.values()))
    if not (joint > _FAR_OVER_CLIP * clip and policy <= _MINOR_SHARE * joint and kl < _HARDLY_ANY_CHANGE):
        return None
    longest = max(others, key=lambda name: others[name])
    return (
        f"{longest} is {others[longest]:.2g}, clipped at {clip:g} with the policy's {policy:.2g}: approx_kl is {kl:.1g}"
    )


@cause(
    f"observation_max is at least {_LARGE_OBSERVATION:g}",
    Try("normalize_observations", "true", instead_of=False),
    reads=("observation_max",),
)
def _large_observations(run: Measured) -> str | None:
    largest = run.last("observation_max")
    return f"observations reach {largest:.4g}, not normalized" if largest >= _LARGE_OBSERVATION else None


@cause(f"action_extent is at least {_AT_BOUNDS:g}", Try("lr", "lower"), reads=("action_extent",))
def _actions_at_bounds(run: Measured) -> str | None:
    extent = run.last("action_extent")
    return f"actions are at their bounds, action_extent {extent:.2f} of 1" if extent >= _AT_BOUNDS else None


@cause(
    f"action_extent is at most {_IN_THE_MIDDLE:g}",
    Try("scale_actions", "auto", instead_of="off"),
    reads=("action_extent",),
)
def _actions_in_the_middle(run: Measured) -> str | None:
    extent = run.last("action_extent")
    if not extent <= _IN_THE_MIDDLE:
        return None
    return f"actions stay in the middle of their bounds, action_extent {extent:.1g} of 1"


@cause(
    f"explained_variance is below {_EXPLAINS_NOTHING:g}, and values are off by over {_LARGE_ERROR:g} (RMS)",
    Try("normalize_rewards", "true", instead_of=False),
    reads=("explained_variance", "value_loss"),
)
def _large_returns(run: Measured) -> str | None:
    explained, error = run.last("explained_variance"), sqrt(2 * run.last("value_loss"))
    if not (explained < _EXPLAINS_NOTHING and error > _LARGE_ERROR):
        return None
    return f"the value function is off by {error:.2g} and explains nothing, explained_variance {explained:.1g}"


def _same_returns(run: Measured) -> str | None:
    """That all episodes had one return, if they had."""
    low, high = run.known("episode_return_min"), run.known("episode_return_max")
    if not len(low) or low.min() < high.max():
        return None
    return f"all {np.sum(run.known('episodes')):,.0f} episodes had the return {high[0]:.4g}"


def _all_truncated(run: Measured) -> bool:
    fractions = run.known("truncated_fraction")
    return len(fractions) > 0 and bool(fractions.min() == 1)


def _median(values: NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else np.nan
