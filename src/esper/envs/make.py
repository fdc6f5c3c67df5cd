"""The one place where an environment's name, or what Python code gives for one, becomes an environment."""

from __future__ import annotations

import contextlib
import logging
from typing import Any, Literal

from esper.envs.atari import for_scores, for_training
from esper.envs.base import VectorEnv, scaled_to
from esper.envs.config import EnvConfig, ScaleActions
from esper.envs.device.vector import PREFIX, make_device, on_host
from esper.envs.families import find_spec
from esper.envs.given import Given, make_given, name_of
from esper.envs.gym import GymnasiumVectorEnv
from esper.envs.making import make_gymnasium, make_gymnasium_rendered, make_gymnasium_shown
from esper.envs.modes import sync_instead
from esper.envs.pool import make_envpool
from esper.settings.options import ConfigError
from esper.system.seeding import GlobalGenerators

_log = logging.getLogger(__name__)


def make_env(
    env: str | Given,
    *,
    num_envs: int | None = None,
    env_kwargs: dict[str, Any] | None = None,
    vector: Literal["auto", "native", "sync", "async", "envpool"] = "auto",
    max_episode_steps: int | None = None,
    scale_actions: ScaleActions = "auto",
) -> VectorEnv:
    """`num_envs` copies of an environment to learn from, each made with `env_kwargs`.

    `env` is an id, or a callable, as a class, that makes a `gymnasium.Env`; by default it is made once. Or it is made
    already, and has its own number of copies: a `gymnasium.Env` has one; a `gymnasium.vector.VectorEnv`, or an object
    with the methods of `esper.envs.base.VectorEnv`, several. Who closes what is returned closes these too.

    `max_episode_steps` is a time limit in place of the environment's own.

    Raises:
        ConfigError: when it cannot be made; the message says what would help.
    """
    if num_envs is not None and num_envs < 1:
        raise ConfigError("num_envs", num_envs, "must be at least 1")
    config = EnvConfig(
        env=name_of(env),
        env_kwargs=env_kwargs or {},
        vector=vector,
        max_episode_steps=max_episode_steps,
        scale_actions=scale_actions,
    )
    if not isinstance(env, str):
        return make_given(env, config, num_envs)
    return make_for_training(config, 1 if num_envs is None else num_envs)


def make_for_training(config: EnvConfig, num_envs: int, seed: int | None = None) -> VectorEnv:
    """The same from an `EnvConfig`; with a `seed`, constructors that draw from global generators draw from that.

    Lines of the log say what is not as one might expect: actions that are scaled, another vector mode.
    """
    env = _make(for_training(config), num_envs, seed)
    if isinstance(env, GymnasiumVectorEnv) and sync_instead(config, find_spec(config.env)):
        _log.info("%s is stepped by --vector sync: its own vector version takes no max_episode_steps", config.env)
    if bounds := scaled_to(env.spec.actions):
        _log.info("actions are scaled from [-1, 1] to the environment's bounds, %s", bounds)
    return env


def make_from_config(config: EnvConfig, num_envs: int, seed: int | None = None) -> VectorEnv:
    """The same for scores: whole episodes with the environment's own rewards, where training has others."""
    return _make(for_scores(config), num_envs, seed)


def _make(config: EnvConfig, num_envs: int, seed: int | None) -> VectorEnv:
    if config.env.startswith(PREFIX):
        return make_device(config, num_envs)
    if config.vector == "envpool":
        return make_envpool(config, num_envs)
    with contextlib.nullcontext() if seed is None else GlobalGenerators(seed).in_place():
        return make_gymnasium(config, num_envs, seed)


def make_rendered(config: EnvConfig) -> GymnasiumVectorEnv:
    """One copy that `render` can draw.

    Raises:
        ConfigError: as `make_env`, and for an environment that cannot be drawn.
    """
    return make_gymnasium_rendered(for_scores(on_host(config)))


def make_shown(config: EnvConfig, fps: float | None) -> VectorEnv:
    """One copy in a window, at most `fps` steps a second, by default as the environment says.

    Raises:
        ConfigError: as `make_env`, and where there can be no window.
    """
    return make_gymnasium_shown(on_host(config), fps)
