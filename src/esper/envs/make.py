"""The one place that makes environments, from an id or from a Python object."""

from __future__ import annotations

import logging
from typing import Any, Literal

from esper.envs.base import VectorEnv, scaled_to
from esper.envs.config import EnvConfig, ScaleActions
from esper.envs.families import families, family_of
from esper.envs.given import Given, make_given, name_of
from esper.envs.rendering import RenderedVectorEnv
from esper.settings.values import Bounds, checked

_log = logging.getLogger(__name__)

families()  # registers the ids that need no package, also for callables passed from Python


def make_env(
    env: str | Given,
    *,
    num_envs: int | None = None,
    env_kwargs: dict[str, Any] | None = None,
    vector: Literal["auto", "native", "sync", "async", "envpool"] = "auto",
    env_workers: int | None = None,
    max_episode_steps: int | None = None,
    scale_actions: ScaleActions = "auto",
) -> VectorEnv:
    """`num_envs` environments to train on, each made with `env_kwargs`.

    `env` is an id, a callable (as a class) that makes a `gymnasium.Env`, or an existing environment. For a callable
    `num_envs` is 1 by default. An existing environment has its own number: a `gymnasium.Env` is one; a
    `gymnasium.vector.VectorEnv`, or an object with the methods of `esper.envs.base.VectorEnv`, is several. Closing the
    result closes it, too.

    With `vector="async"` they are in `env_workers` processes, by default one for each core.

    `max_episode_steps` replaces the environment's own time limit.

    Raises:
        ConfigError: when it cannot be made; the message says how to fix it.
    """
    if num_envs is not None:
        num_envs = checked("num_envs", num_envs, int, Bounds(minimum=1))
    config = EnvConfig(
        env=name_of(env),
        env_kwargs=env_kwargs or {},
        vector=vector,
        env_workers=env_workers,
        max_episode_steps=max_episode_steps,
        scale_actions=scale_actions,
    )
    if not isinstance(env, str):
        return make_given(env, config, num_envs)
    return make_for_training(config, 1 if num_envs is None else num_envs)


def make_for_training(config: EnvConfig, num_envs: int, seed: int | None = None) -> VectorEnv:
    """The same from an `EnvConfig`; with a `seed`, constructors that draw from global generators use it.

    Logs what may be unexpected: actions that are scaled, another vector mode.
    """
    env = family_of(config).make_for_training(config, num_envs, seed)
    if bounds := scaled_to(env.spec.actions):
        _log.info("actions are scaled from [-1, 1] to the environment's bounds, %s", bounds)
    return env


def make_from_config(config: EnvConfig, num_envs: int, seed: int | None = None) -> VectorEnv:
    """The same for scores: whole episodes with the original rewards, if training changes these."""
    return family_of(config).make_for_scores(config, num_envs, seed)


def make_rendered(config: EnvConfig) -> RenderedVectorEnv:
    """One environment that can be rendered.

    Raises:
        ConfigError: as `make_env`, and if it cannot be rendered.
    """
    return family_of(config).make_rendered(config)


def make_shown(config: EnvConfig, fps: float | None) -> VectorEnv:
    """One environment in a window, at most `fps` steps a second; the default is the environment's own rate.

    Raises:
        ConfigError: as `make_env`, and if no window can be opened.
    """
    return family_of(config).make_shown(config, fps)
