"""What a learner sees of an environment: its sizes, and batched steps. Imports numpy alone."""

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

# Of the bounds of actions: a larger one stands for none, as the largest number of a type does.
LARGEST_BOUND = 1e30
_SHOWN = 8


class EnvError(RuntimeError):
    """An environment raised in a step or a reset: which of several, and what."""


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
        """How many numbers a policy gives for an action."""
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
        """As [0, 1000], or the intervals of the first numbers where these differ."""
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

    Where they are `scaled_to` these bounds, -1 and 1 stand for the lowest and the highest value.
    """

    size: int
    scaled_to: ActionBounds | None = None

    @property
    def outputs(self) -> int:
        return self.size


Actions: TypeAlias = DiscreteActions | MultiDiscreteActions | ContinuousActions


def scaled_to(actions: Actions) -> ActionBounds | None:
    """The bounds that -1 and 1 stand for, of actions that are scaled."""
    return actions.scaled_to if isinstance(actions, ContinuousActions) else None


@dataclass(frozen=True, kw_only=True)
class EnvSpec:
    """Sizes of `num_envs` environments that are stepped together.

    `masked`: `action_masks` gives which actions are allowed. `resets_in_a_step`: an environment spends a step on
    resetting, which is `ignored`. After `max_episode_steps` an episode is truncated at the latest; None where there is
    no time limit, or none that is known.
    """

    num_envs: int
    observations: Observations
    actions: Actions
    masked: bool = False
    resets_in_a_step: bool = False
    max_episode_steps: int | None = None


class Step(NamedTuple):
    """One step of all N environments.

    `obs` [N, ...] is what to act on next. One that is `terminated` or `truncated` has its episode's last observation
    in `final_obs` [N, ...] (None when no episode ended). `ignored` [N] marks those that used the step to reset: their
    action had no effect, and the transition says nothing about the task (None when there are none). `success` [N] is 1
    or 0 where an episode ended that was a success or none, and NaN elsewhere (None when that is known of none).
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
        """[N], whether `obs` begins an episode. Where a step is spent on resetting, it does so after that step too."""
        ended = self.terminated | self.truncated
        return ended if self.ignored is None else ended | self.ignored


class VectorEnv(Protocol):
    """N environments stepped together on the host, in NumPy arrays; episodes restart by themselves.

    This is the seam between environments and the learner: any object with these methods can be learned from.
    """

    @property
    def spec(self) -> EnvSpec: ...

    @property
    def action_masks(self) -> BoolArray | None:
        """[N, M], true for what is allowed next, of M values of a choice or of all choices in turn; none unless masked.

        In every choice something is. They belong to the observations of the last `reset` or `step`.
        """
        ...

    def reset(self, seed: int) -> ObsArray:
        """Start every environment afresh from `seed`; returns observations [N, ...]."""
        ...

    def step(self, actions: NDArray[np.generic]) -> Step:
        """Actions are int64 [N] or [N, K], or float32 [N, A]. The returned arrays may be overwritten by the next call.

        Raises:
            EnvError: when an environment raises, or its mask cannot be used.
        """
        ...

    def state_dict(self) -> StateTree | None:
        """Where every environment stands, for `load_state_dict` to go on exactly from there; None if unknown."""
        ...

    def load_state_dict(self, state: StateTree) -> None:
        """Go on from `state`; call `reset` first.

        Raises:
            ValueError: when `state` is not of such an environment.
        """
        ...

    def close(self) -> None: ...


class Copies(NamedTuple):
    """Where all copies of a `DeviceEnv` stand: states [N, S], and steps of their episodes so far [N], int32."""

    state: Tensor
    steps: Tensor


class DeviceStep(NamedTuple):
    """One step of all copies of a `DeviceEnv`, each [N] but for the last.

    `copies` have begun a new episode where one ended; `final_obs` [N, D] is what the step led to before that.
    """

    copies: Copies
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    final_obs: Tensor


@runtime_checkable
class DeviceEnv(VectorEnv, Protocol):
    """A `VectorEnv` whose steps are a function of tensors, for a learner that stays on the device.

    `copies` are where it stands; who calls `advance` puts the outcome's there, and `state_dict` gives that. Episodes
    are cut after `max_episode_steps`.
    """

    copies: Copies
    name: str

    @property
    def max_episode_steps(self) -> int: ...

    def to(self, device: torch.device) -> None:
        """Keep `copies` on `device`, and draw there; call `reset` or `load_state_dict` next."""
        ...

    def draw(self, num_steps: int) -> Tensor:
        """[num_steps, N, S] uniform in [0, 1): where episodes that end in the next steps begin anew."""
        ...

    def observe(self, copies: Copies) -> Tensor:
        """float32 [N, D]."""
        ...

    def advance(self, copies: Copies, actions: Tensor, uniform: Tensor) -> DeviceStep:
        """Step all copies; `uniform` [N, S]. Pure, without branches on values: it can be compiled and unrolled."""
        ...
