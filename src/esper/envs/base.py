"""What a learner sees of an environment: its sizes, and batched steps. Imports numpy alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float32]
BoolArray: TypeAlias = NDArray[np.bool_]
# Nested mappings with string keys; leaves are arrays or JSON values.
StateTree: TypeAlias = Mapping[str, Any]


class EnvError(RuntimeError):
    """An environment raised in a step or a reset: which copy, and what."""


@dataclass(frozen=True, kw_only=True)
class DiscreteActions:
    """One of `n` choices, numbered from 0."""

    n: int


@dataclass(frozen=True, kw_only=True)
class ContinuousActions:
    """A vector of `size` numbers; the environment clips what lies outside its bounds."""

    size: int


Actions: TypeAlias = DiscreteActions | ContinuousActions


@dataclass(frozen=True, kw_only=True)
class EnvSpec:
    """Sizes of a vectorized environment: `num_envs` copies, observations as vectors of `observation_size`."""

    num_envs: int
    observation_size: int
    actions: Actions


class Step(NamedTuple):
    """One step of all N copies.

    `obs` [N, D] is what to act on next. A copy that is `terminated` or `truncated` has its episode's last observation
    in `final_obs` [N, D] (None when no episode ended). `ignored` [N] marks copies that used the step to reset: their
    action had no effect, and the transition says nothing about the task (None when there are none).
    """

    obs: FloatArray
    reward: NDArray[np.float64]
    terminated: BoolArray
    truncated: BoolArray
    final_obs: FloatArray | None
    ignored: BoolArray | None


class VectorEnv(Protocol):
    """Copies of an environment stepped together on the host; episodes restart by themselves."""

    @property
    def spec(self) -> EnvSpec: ...

    def reset(self, seed: int) -> FloatArray:
        """Start every copy afresh from `seed`; returns observations [N, D]."""
        ...

    def step(self, actions: NDArray[np.generic]) -> Step:
        """Actions are int64 [N] or float32 [N, A]. The returned arrays may be overwritten by the next call.

        Raises:
            EnvError: when a copy raises.
        """
        ...

    def state_dict(self) -> StateTree | None:
        """Where every copy stands, so exactly that `load_state_dict` goes on from there; None when it cannot tell."""
        ...

    def load_state_dict(self, state: StateTree) -> None:
        """Go on from `state`; call `reset` first.

        Raises:
            ValueError: when `state` is not of such an environment.
        """
        ...

    def close(self) -> None: ...
