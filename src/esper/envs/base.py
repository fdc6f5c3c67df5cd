"""The learner's interface to environments: sizes and batched steps. Imports only numpy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FloatArray: TypeAlias = NDArray[np.float32]
# float32 vectors [N, D], or uint8 images [N, C, H, W].
ObsArray: TypeAlias = NDArray[np.float32] | NDArray[np.uint8]
BoolArray: TypeAlias = NDArray[np.bool_]
# Nested mappings with string keys; leaves are arrays or JSON values.
StateTree: TypeAlias = Mapping[str, Any]

# A larger bound of an action means unbounded: some environments give the largest number of a dtype.
LARGEST_BOUND = 1e30
_SHOWN = 8


class EnvError(RuntimeError):
    """An environment raised in a step or a reset; the message says which one, and what it raised."""


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """Observations of `size` numbers, float32."""

    size: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.size,)


@dataclass(frozen=True, kw_only=True)
class Images:
    """Observations of uint8, `shape` [channels, height, width]; a learner divides them by `highest`."""

    shape: tuple[int, int, int]
    highest: int = 255


Observations: TypeAlias = Vectors | Images


@dataclass(frozen=True, kw_only=True)
class DiscreteActions:
    """One of `n` choices, numbered from 0."""

    n: int

    @property
    def outputs(self) -> int:
        """The number of outputs of the policy network."""
        return self.n


@dataclass(frozen=True, kw_only=True)
class MultiDiscreteActions:
    """Several choices at once, the k-th one of `nvec[k]`, each numbered from 0."""

    nvec: tuple[int, ...]

    @property
    def outputs(self) -> int:
        return sum(self.nvec)


@dataclass(frozen=True, kw_only=True)
class ActionBounds:
    """The lowest and the highest value of each number of an action; all are finite."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __str__(self) -> str:
        """One interval, as [0, 1000], or those of the first numbers if they differ."""
        intervals = [f"[{low:g}, {high:g}]" for low, high in zip(self.low, self.high, strict=True)]
        if len(set(intervals)) == 1:
            return intervals[0]
        return ", ".join(intervals[:_SHOWN]) + (", ..." if len(intervals) > _SHOWN else "")

    @property
    def scale(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """A factor and an offset, [A] each, which take -1 to `low` and 1 to `high`."""
        low, high = np.array(self.low), np.array(self.high)
        return (high - low) / 2, (high + low) / 2


@dataclass(frozen=True, kw_only=True)
class ContinuousActions:
    """A vector of `size` numbers; the environment clips what lies outside its bounds.

    If they are `scaled_to` bounds, -1 and 1 stand for the lowest and the highest value.
    """

    size: int
    scaled_to: ActionBounds | None = None

    @property
    def outputs(self) -> int:
        return self.size


Actions: TypeAlias = DiscreteActions | MultiDiscreteActions | ContinuousActions


def scaled_to(actions: Actions) -> ActionBounds | None:
    """The bounds that -1 and 1 stand for; None if actions are not scaled."""
    return actions.scaled_to if isinstance(actions, ContinuousActions) else None


@dataclass(frozen=True, kw_only=True)
class EnvSpec:
    """Sizes of `num_envs` environments that are stepped together.

    `masked`: `action_masks` marks the allowed actions. `resets_in_a_step`: an environment uses a step to reset, and
    this step is `ignored`. Episodes are truncated after `max_episode_steps` at the latest; None if there is no known
    time limit. `action_bounds` are those at which continuous actions are clipped, -1 and 1 where they are scaled; None
    if one is not finite, or none is known.
    """

    num_envs: int
    observations: Observations
    actions: Actions
    masked: bool = False
    resets_in_a_step: bool = False
    max_episode_steps: int | None = None
    action_bounds: ActionBounds | None = None


class Step(NamedTuple):
    """One step of all N environments.

    `obs` [N, ...] is what to act on next. Where an episode is `terminated` or `truncated`, `final_obs` [N, ...] has its
    last observation (None if no episode ended). `ignored` [N] marks environments that used the step to reset: their
    action had no effect, and the transition must not be learned from (None if there are none). `success` [N] is 1 or 0
    where an episode ended and its success is known, and NaN elsewhere (None if it is known nowhere).
    """

    obs: ObsArray
    reward: NDArray[np.float64]
    terminated: BoolArray
    truncated: BoolArray
    final_obs: ObsArray | None
    ignored: BoolArray | None
    success: NDArray[np.float64] | None = None

    @property
    def begins(self) -> BoolArray:
        """[N], whether `obs` begins an episode. A step that was used to reset begins one, too."""
        ended = self.terminated | self.truncated
        return ended if self.ignored is None else ended | self.ignored


class VectorEnv(Protocol):
    """N environments stepped together on the host, in NumPy arrays; each resets by itself when its episode ends.

    This is the interface between environments and the learner: any object with these methods can be trained on.
    """

    @property
    def spec(self) -> EnvSpec: ...

    @property
    def action_masks(self) -> BoolArray | None:
        """[N, M], true for the actions that are allowed next; M counts the values of all choices. None unless masked.

        Every choice has an allowed value. The masks belong to the observations of the last `reset` or `step`.
        """
        ...

    def reset(self, seed: int) -> ObsArray:
        """Reset every environment with seeds derived from `seed`; returns observations [N, ...]."""
        ...

    def step(self, actions: NDArray[np.generic]) -> Step:
        """Actions are int64 [N] or [N, K], or float32 [N, A]. The returned arrays may be overwritten by the next call.

        Raises:
            EnvError: when an environment raises, or its mask cannot be used.
        """
        ...

    def state_dict(self) -> StateTree | None:
        """The exact state of every environment, for `load_state_dict`; None if it is not available."""
        ...

    def load_state_dict(self, state: StateTree) -> None:
        """Restore `state`; call `reset` first.

        Raises:
            ValueError: when `state` does not fit this environment.
        """
        ...

    def close(self) -> None: ...


class EnvStates(NamedTuple):
    """The state of all environments of a `DeviceEnv`: states [N, S], and steps of their episodes so far [N], int32."""

    state: Tensor
    steps: Tensor


class DeviceStep(NamedTuple):
    """One step of all environments of a `DeviceEnv`; the tensors are [N].

    `states` are those after resets; `final_obs` [N, ...] are the observations before them.
    """

    states: EnvStates
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    final_obs: Tensor


@runtime_checkable
class DeviceEnv(VectorEnv, Protocol):
    """A `VectorEnv` whose steps are a function of tensors, for a learner that stays on the device.

    `states` is the current state; the caller of `advance` stores its outcome there, and `state_dict` returns it.
    Episodes are truncated after `max_episode_steps`.
    """

    states: EnvStates
    name: str

    @property
    def max_episode_steps(self) -> int: ...

    def to(self, device: torch.device) -> None:
        """Keep `states` on `device`, and draw there; call `reset` or `load_state_dict` next."""
        ...

    def draw(self, num_steps: int) -> Tensor:
        """[num_steps, N, draws] uniform in [0, 1), for the next steps and the episodes that begin in them."""
        ...

    def observe(self, states: EnvStates) -> Tensor:
        """float32 [N, D], or uint8 images [N, C, H, W]."""
        ...

    def advance(self, states: EnvStates, actions: Tensor, uniform: Tensor) -> DeviceStep:
        """Step all; `uniform` [N, draws]. Pure, without branches on values: it can be compiled and unrolled."""
        ...
