"""What an environment in tensors is: functions of states and uniform numbers, for N environments at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

from torch import Tensor

from esper.envs.base import Actions, Observations


class Outcome(NamedTuple):
    """One step: the next states [N, S], rewards [N], and which episodes terminated [N]."""

    state: Tensor
    reward: Tensor
    terminated: Tensor


class Dynamics(ABC):
    """A stateless environment: the state is an argument.

    States are [N, S], floating. Actions are int64 [N] or float32 [N, A], already within plus and minus `action_bound`.
    `uniform` has as many numbers in [0, 1) as a step or a begin draws: the same at all times, used or not.
    """

    observations: ClassVar[Observations]
    state_size: ClassVar[int]
    actions: ClassVar[Actions]
    action_bound: ClassVar[float] = 1.0
    max_episode_steps: ClassVar[int]
    step_draws: ClassVar[int] = 0
    begin_draws: ClassVar[int]

    @abstractmethod
    def begin(self, state: Tensor, uniform: Tensor) -> Tensor:
        """Initial states [N, S] from `uniform` [N, begin_draws].

        `state` [N, S] are those at the end of the last episodes; zeros before the first.
        """

    @abstractmethod
    def step(self, state: Tensor, action: Tensor, uniform: Tensor) -> Outcome:
        """`uniform` is [N, step_draws]."""

    @abstractmethod
    def observe(self, state: Tensor) -> Tensor:
        """[N, *shape]: of the states' dtype, or uint8 for images."""

    def is_possible(self, state: Tensor) -> bool:
        """Whether `state` [N, S], read from a file, can be stepped."""
        return True
