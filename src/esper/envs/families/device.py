"""Environments in pure torch, `torch/ID`: all of them in one tensor, on the learner's device."""

from __future__ import annotations

import dataclasses

from esper.envs.adapter import Adapter
from esper.envs.base import VectorEnv
from esper.envs.config import EnvConfig
from esper.envs.device.registry import DYNAMICS, PREFIX, full_name
from esper.envs.device.vector import DeviceVectorEnv
from esper.envs.families import family_of
from esper.envs.family import Family
from esper.envs.rendering import RenderedVectorEnv
from esper.settings.options import ConfigError, nearest


class Device(Family):
    """Rendered, and met outside of tensors, by Gymnasium's environment of the same name."""

    prefixes = (PREFIX,)
    # All values, so that its own error refuses those other than auto.
    vectors = (*Family.vectors, "envpool")

    def make_for_training(self, config: EnvConfig, num_envs: int, seed: int | None) -> DeviceVectorEnv:
        name = full_name(config.env)
        if name not in DYNAMICS:
            allowed = ", ".join(PREFIX + known for known in DYNAMICS)
            raise ConfigError("env", config.env, f"must be one of {allowed}{nearest(name, DYNAMICS)}")
        if config.vector != "auto":
            raise ConfigError("vector", config.vector, f"{config.env} steps all environments in one tensor; use auto")
        if config.env_kwargs:
            raise ConfigError("env_kwargs", config.env_kwargs, f"{config.env} takes none")
        return DeviceVectorEnv(name, num_envs, config.max_episode_steps, config.scale_actions)

    make_for_scores = make_for_training

    def make_adapter(self, config: EnvConfig) -> Adapter:
        config = _on_host(config)
        return family_of(config).make_adapter(config)

    def make_rendered(self, config: EnvConfig) -> RenderedVectorEnv:
        config = _on_host(config)
        return family_of(config).make_rendered(config)

    def make_shown(self, config: EnvConfig, fps: float | None) -> VectorEnv:
        config = _on_host(config)
        return family_of(config).make_shown(config, fps)


def _on_host(config: EnvConfig) -> EnvConfig:
    return dataclasses.replace(config, env=full_name(config.env))


FAMILY = Device()
