"""The settings of an environment, free of gymnasium so that the command line answers at once."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

from esper.settings.options import Bounds, ConfigError, check_options, option

# Where an environment has no time limit, and none is given, an evaluation cuts its episodes after so many steps.
MAX_EPISODE_STEPS = 10_000
TIME_LIMIT = Bounds(minimum=1, maximum=10**8)

# Arguments of environments that say the same as `max_episode_steps`.
_LIMITS = ("max_episode_steps", "max_num_frames_per_episode")

ScaleActions: TypeAlias = Literal["auto", "on", "off"]


@dataclass(frozen=True, kw_only=True)
class EnvConfig:
    """Which environment, and how copies of it are stepped together."""

    group: ClassVar[str] = "environment"

    env: str = option(
        "CartPole-v1",
        "Gymnasium environment id, module:ID for one that a module registers, or torch/ID (CartPole-v1, Acrobot-v1, "
        "Pendulum-v1, MountainCar-v0, MountainCarContinuous-v0)",
    )
    env_kwargs: dict[str, Any] = option({}, 'arguments of the environment as JSON, as {"continuous": true}')
    vector: Literal["auto", "native", "sync", "async", "envpool"] = option(
        "auto",
        "how copies are stepped: the environment's own vector version, one after the other, one process each, or "
        "EnvPool's version of it by threads; auto: native where there is one, else sync",
    )
    scale_actions: ScaleActions = option(
        "auto",
        "scale Box actions from [-1, 1] to their bounds, where these are finite; auto: where one is farther from 0 "
        "than 4 or nearer than 0.25, or 0 is not between them",
        before="off",
    )

    max_episode_steps: int | None = option(
        None,
        "time limit: steps after which an episode is cut (truncated), in place of the environment's own limit",
        bounds=TIME_LIMIT,
    )

    def __post_init__(self) -> None:
        check_options(self)
        if self.max_episode_steps is not None and (given := self.env_kwargs.keys() & set(_LIMITS)):
            allowed = f"env_kwargs has {given.pop()}, which says the same; give one of them"
            raise ConfigError("max_episode_steps", self.max_episode_steps, allowed)

    def limited(self, max_episode_steps: int | None) -> EnvConfig:
        """The same with this time limit, whatever it had; None leaves it as it is."""
        if max_episode_steps is None:
            return self
        others = {name: value for name, value in self.env_kwargs.items() if name not in _LIMITS}
        # Of native, auto takes sync where a vector version cannot have one.
        vector = "auto" if self.vector == "native" else self.vector
        return dataclasses.replace(self, env_kwargs=others, vector=vector, max_episode_steps=max_episode_steps)
