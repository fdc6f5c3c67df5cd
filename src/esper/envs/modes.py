"""Which way of stepping Gymnasium environments the settings select."""

from __future__ import annotations

from typing import Literal

from gymnasium.envs.registration import EnvSpec

from esper.envs.config import EnvConfig
from esper.envs.limits import takes_time_limit
from esper.settings.options import ConfigError


def vector_mode(config: EnvConfig, spec: EnvSpec) -> Literal["native", "sync", "async"]:
    """How environments of the registered `spec` are stepped.

    Raises:
        ConfigError: for a way that it does not have, or that cannot have the time limit.
    """
    if config.vector == "async":
        return "async"
    if config.vector == "native":
        if spec.vector_entry_point is None:
            allowed = f"{config.env} has no vector version; use auto, sync or async"
            raise ConfigError("vector", "native", allowed)
        if _cannot_be_limited(config, spec):
            allowed = f"the vector version of {config.env} takes none; use vector auto, sync or async"
            raise ConfigError("max_episode_steps", config.max_episode_steps, allowed)
        return "native"
    is_native = config.vector == "auto" and spec.vector_entry_point is not None
    return "native" if is_native and not _cannot_be_limited(config, spec) else "sync"


def sync_instead(config: EnvConfig, spec: EnvSpec) -> bool:
    """Whether sync is used only because the environment's vector version takes no time limit."""
    return config.vector == "auto" and spec.vector_entry_point is not None and _cannot_be_limited(config, spec)


def _cannot_be_limited(config: EnvConfig, spec: EnvSpec) -> bool:
    return config.max_episode_steps is not None and not takes_time_limit(spec)
