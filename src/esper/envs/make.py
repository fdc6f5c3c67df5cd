"""The one place where an environment's name, or what Python code gives for one, becomes an environment."""

from __future__ import annotations

import logging
from typing import Any, Literal

from esper.envs.base import VectorEnv, scaled_to
from esper.envs.config import EnvConfig, ScaleActions
from esper.envs.families import families, family_of
from esper.envs.given import Given, make_given, name_of
from esper.envs.rendering import RenderedVectorEnv
from esper.settings.options import ConfigError

_log = logging.getLogger(__name__)

families()  # from here on Gymnasium knows the ids that need no package, in what Python code gives too


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
    env = family_of(config).make_for_training(config, num_envs, seed)
    if bounds := scaled_to(env.spec.actions):
        _log.info("actions are scaled from [-1, 1] to the environment's bounds, %s", bounds)
    return env


def make_from_config(config: EnvConfig, num_envs: int, seed: int | None = None) -> VectorEnv:
    """The same for scores: whole episodes with the environment's own rewards, where training has others."""
    return family_of(config).make_for_scores(config, num_envs, seed)


def make_rendered(config: EnvConfig) -> RenderedVectorEnv:
    """One environment that `render` can draw.

    Raises:
        ConfigError: as `make_env`, and for an environment that cannot be drawn.
    """
    return family_of(config).make_rendered(config)


def make_shown(config: EnvConfig, fps: float | None) -> VectorEnv:
    """One environment in a window, at most `fps` steps a second, by default as the environment says.

    Raises:
        ConfigError: as `make_env`, and where there can be no window.
    """
    return family_of(config).make_shown(config, fps)
