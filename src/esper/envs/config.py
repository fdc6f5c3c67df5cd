"""The settings of an environment. Does not import gymnasium, so the command line starts quickly."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

from esper.settings.options import Bounds, ConfigError, check_options, option

# An evaluation truncates episodes after this many steps if neither the environment nor a setting has a time limit.
MAX_EPISODE_STEPS = 10_000
TIME_LIMIT = Bounds(minimum=1, maximum=10**8)

# Arguments of environments that mean the same as `max_episode_steps`.
_LIMITS = ("max_episode_steps", "max_num_frames_per_episode")

ScaleActions: TypeAlias = Literal["auto", "on", "off"]


@dataclass(frozen=True, kw_only=True)
class EnvConfig:
    """Which environment, and how several of it are stepped together."""

    group: ClassVar[str] = "environment"

    env: str = option(
        "CartPole-v1",
        "Gymnasium environment id, module:ID if a module registers it, or torch/ID (CartPole-v1, Acrobot-v1, "
        "Pendulum-v1, MountainCar-v0, MountainCarContinuous-v0, MinAtar/Breakout, MinAtar/SpaceInvaders, "
        "MinAtar/Asterix, MinAtar/Freeway, MinAtar/Seaquest)",
    )
    env_kwargs: dict[str, Any] = option({}, 'arguments of the environment as JSON, as {"continuous": true}')
    vector: Literal["auto", "native", "sync", "async", "envpool"] = option(
        "auto",
        "how environments are stepped: native: its own vector version; sync: in turn; async: in worker "
        "processes; envpool: EnvPool's threads; auto: native if there is one, else sync",
    )
    env_workers: int | None = option(
        None,
        "with vector async: processes, each with its share of the environments (default: one for each core)",
        bounds=Bounds(minimum=1),
        may_change="always",
    )
    scale_actions: ScaleActions = option(
        "auto",
        "scale Box actions from [-1, 1] to their bounds, if these are finite; auto: if one is farther from 0 "
        "than 4 or nearer than 0.25, or 0 is not between them",
        before="off",
    )

    max_episode_steps: int | None = option(
        None,
        "time limit: steps after which an episode is truncated; replaces the environment's own limit",
        bounds=TIME_LIMIT,
    )

    # What makes it, where it was passed from Python: `env` is its name in angle brackets. Not a setting.
    given: Any = dataclasses.field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_options(self)
        if self.env_workers is not None and self.vector != "async":
            raise ConfigError("env_workers", self.env_workers, f"needs vector = async, not {self.vector}")
        if self.max_episode_steps is not None and (given := self.env_kwargs.keys() & set(_LIMITS)):
            allowed = f"env_kwargs has {given.pop()}, which means the same; give one of them"
            raise ConfigError("max_episode_steps", self.max_episode_steps, allowed)

    @property
    def was_given(self) -> bool:
        """Whether it was passed from Python, be it now or when its run began: no id looks like its name."""
        return self.env.startswith("<")

    @property
    def exists(self) -> bool:
        """Whether it is an environment that was passed from Python, and belongs to the caller: no callable."""
        from esper.envs.given import exists

        return self.given is not None and exists(self.given)

    def check_more_can_be_made(self, name: str, value: object) -> None:
        """Refuse the `value` of setting `name`, which makes environments beside that of training, if none can be.

        Raises:
            ConfigError: when it exists already.
        """
        if self.exists:
            allowed = f"needs environments of its own, and {self.env} exists already: pass a callable that makes it"
            raise ConfigError(name, value, allowed)

    def limited(self, max_episode_steps: int | None) -> EnvConfig:
        """The same config with this time limit; None changes nothing."""
        if max_episode_steps is None:
            return self
        others = {name: value for name, value in self.env_kwargs.items() if name not in _LIMITS}
        # With native as its first choice, auto takes sync if the vector version cannot have a time limit.
        vector = "auto" if self.vector == "native" else self.vector
        return dataclasses.replace(self, env_kwargs=others, vector=vector, max_episode_steps=max_episode_steps)
