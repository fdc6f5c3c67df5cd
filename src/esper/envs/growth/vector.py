"""`esper/Growth-v0` as a `VectorEnv`: the hosts of all environments are trained together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from esper.envs.base import BoolArray, EnvSpec, ObsArray, StateTree, Step
from esper.envs.growth.config import GrowthConfig
from esper.envs.growth.reward import Reward
from esper.envs.growth.stages import Action, Host


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One step of one environment: the host `before` it, what was `chosen` and `done`, the host `after` it.

    `done` is `chosen`, or waiting where that could not be done. `after` is the host at the end of the step, also where
    the episode `ended` with it and the environment began another one.
    """

    before: Host
    chosen: Action
    done: Action
    after: Host
    reward: Reward
    ended: bool


class GrowthVectorEnv:
    """N hosts, each in an episode of its own.

    An action [4] is slot, blueprint, blend, operation; `Action.numbers` makes one. An episode terminates after
    `config.epochs` epochs, or when its host diverges.
    """

    spec: EnvSpec
    config: GrowthConfig
    action_masks: BoolArray | None
    # The host of each environment, as the next action meets it.
    hosts: tuple[Host, ...]
    # The latest step of each environment; empty before the first.
    epochs: tuple[Epoch, ...]

    def __init__(
        self, config: GrowthConfig, num_envs: int, *, device: str = "cpu", max_episode_steps: int | None = None
    ) -> None:
        raise NotImplementedError

    def reset(self, seed: int) -> ObsArray:
        raise NotImplementedError

    def step(self, actions: NDArray[np.generic]) -> Step:
        raise NotImplementedError

    def state_dict(self) -> StateTree:
        raise NotImplementedError

    def load_state_dict(self, state: StateTree) -> None:
        raise NotImplementedError

    def close(self) -> None: ...
