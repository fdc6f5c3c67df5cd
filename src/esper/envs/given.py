"""Environments passed from Python: a callable, a `gymnasium.Env`, a vector environment, or a `VectorEnv`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import gymnasium
from gymnasium.vector import SyncVectorEnv

from esper.envs.adapter import Adapter
from esper.envs.base import EnvSpec, VectorEnv
from esper.envs.config import EnvConfig
from esper.envs.family import Family
from esper.envs.gym import GymnasiumVectorEnv
from esper.envs.making import adapted, adapter_of, make_from, stepped_one_by_one
from esper.envs.native import resets_in_a_step
from esper.envs.rendering import RenderedVectorEnv
from esper.envs.rules import shown, takes
from esper.envs.window import check_display, paced
from esper.settings.options import ConfigError

Given: TypeAlias = (
    Callable[..., gymnasium.Env[Any, Any]]
    | gymnasium.Env[Any, Any]
    | gymnasium.vector.VectorEnv[Any, Any, Any]
    | VectorEnv
)


def name_of(env: str | Given) -> str:
    """The name of `env` in messages: its id if it has one, else its name in Python.

    Raises:
        ConfigError: if it is neither an environment nor a callable.
    """
    if isinstance(env, str):
        return env
    spec = getattr(env, "spec", None)
    if isinstance(env, gymnasium.Env | gymnasium.vector.VectorEnv):
        return spec.id if spec else type(env.unwrapped).__qualname__
    if isinstance(spec, EnvSpec) or callable(env):
        return str(getattr(env, "__qualname__", type(env).__qualname__)).rpartition("<locals>.")[2]
    allowed = "must be an id, a callable that makes a gymnasium.Env, or an environment or vector environment"
    raise ConfigError("env", shown(env), allowed)


def recorded_name(env: Given) -> str:
    """The value of the setting `env` for `env`, as `EnvConfig.was_given` knows it."""
    return f"<{name_of(env).strip('<>')}>"


def exists(env: Given) -> bool:
    """Whether `env` is an environment, not a callable that makes them."""
    made = isinstance(env, gymnasium.Env | gymnasium.vector.VectorEnv)
    return made or isinstance(getattr(env, "spec", None), EnvSpec)


def own_num_envs(env: Given) -> int | None:
    """How many environments `env` is; None for a callable."""
    if not exists(env):
        return None
    spec = getattr(env, "spec", None)
    return spec.num_envs if isinstance(spec, EnvSpec) else int(getattr(env, "num_envs", 1))


class GivenFamily(Family):
    """An environment that was passed from Python."""

    def __init__(self, given: Given) -> None:
        self._given = given

    def make_for_training(self, config: EnvConfig, num_envs: int, seed: int | None) -> VectorEnv:
        return make_given(self._given, config, num_envs)

    def make_for_scores(self, config: EnvConfig, num_envs: int, seed: int | None) -> VectorEnv:
        """As many as `num_envs`, or the environments that exist."""
        return make_given(self._given, config, None if exists(self._given) else num_envs)

    def make_rendered(self, config: EnvConfig) -> RenderedVectorEnv:
        return make_drawn(self._given, config, "rgb_array")

    def make_shown(self, config: EnvConfig, fps: float | None) -> VectorEnv:
        check_display(config.env)
        return make_drawn(self._given, config, "human", paced(fps))


def make_given(env: Given, config: EnvConfig, num_envs: int | None) -> VectorEnv:
    """`env` as a `VectorEnv` of `num_envs` environments; the default is its own number, or 1 for a callable.

    Raises:
        ConfigError: when it cannot be made, or exists already and does not fit `config` and `num_envs`.
    """
    if isinstance(getattr(env, "spec", None), EnvSpec):
        _check_made(config, num_envs, env.spec.num_envs)  # type: ignore[union-attr]
        if config.scale_actions != "auto":
            allowed = f"must be auto: {config.env} takes the actions of the policy unchanged"
            raise ConfigError("scale_actions", config.scale_actions, allowed)
        return env  # type: ignore[return-value]
    if isinstance(env, gymnasium.Env):
        _check_made(config, num_envs, 1, own_limit=False)
        return make_from(config, [lambda: env])
    if isinstance(env, gymnasium.vector.VectorEnv):
        _check_made(config, num_envs, env.num_envs)
        return _together(env, config)
    if config.vector not in ("auto", "sync", "async"):
        raise ConfigError("vector", config.vector, f"must be auto, sync or async, as {config.env} makes one at a time")
    maker = _Maker(env, config)  # type: ignore[arg-type]
    return make_from(config, [maker] * (1 if num_envs is None else num_envs))


def make_drawn(env: Given, config: EnvConfig, mode: str, *wrappers: Any) -> RenderedVectorEnv:
    """`env`, or one that it makes, which must have the render mode `mode`; a callable that takes `render_mode` gets it.

    Raises:
        ConfigError: as `make_given`, and for a vector environment or another render mode.
    """
    own = exists(env)
    if own and not isinstance(env, gymnasium.Env):
        allowed = "is a vector environment, which is not drawn; pass a callable that makes one environment"
        raise ConfigError("env", config.env, allowed)
    if own:
        _check_made(config, 1, 1, own_limit=False)
    kwargs = {**config.env_kwargs, "render_mode": mode}
    taken = not own and takes(env, kwargs)
    make = _Maker(env, dataclasses.replace(config, env_kwargs=kwargs) if taken else config)  # type: ignore[arg-type]

    def one() -> Any:
        made = env if own else make()
        if not taken and made.render_mode != mode:  # type: ignore[union-attr]
            how = "pass one" if own else "pass a callable that takes render_mode, or makes one"
            found = f"has render_mode {made.render_mode!r}, and cannot be drawn"  # type: ignore[union-attr]
            raise ConfigError("env", config.env, f"{found}; {how} with render_mode={mode!r}")
        return made

    def make_one() -> Any:
        return stepped_one_by_one(config, [one], "sync", wrappers=wrappers)

    return adapted(RenderedVectorEnv, config, make_one)


def adapter_of_given(env: Given, config: EnvConfig) -> Adapter:
    """The adapter of `env`, of which only the spaces are read; what a callable makes is closed.

    Raises:
        ConfigError: when it cannot be made, or has spaces that are not supported.
    """
    if isinstance(spec := getattr(env, "spec", None), EnvSpec):
        return Adapter.of_spec(spec)
    if not isinstance(env, gymnasium.Env | gymnasium.vector.VectorEnv):
        config = dataclasses.replace(config, env_kwargs={})
        return adapter_of(config, _Maker(env, config))  # type: ignore[arg-type]
    try:
        return Adapter.of(env, config.scale_actions)
    except ConfigError as error:
        raise ConfigError("env", config.env, error.allowed) if error.name == "space" else error from None


def _check_made(config: EnvConfig, num_envs: int | None, own: int, *, own_limit: bool = True) -> None:
    """Refuse settings that cannot apply to an environment that exists already; with `own_limit` also a time limit."""
    why = f"as {config.env} exists already; to choose, pass a callable that makes one environment"
    if num_envs not in (None, own):
        raise ConfigError("num_envs", num_envs, f"must be {own}, {why}")
    if config.env_kwargs:
        raise ConfigError("env_kwargs", config.env_kwargs, f"must be empty, {why}")
    if config.vector != "auto":
        raise ConfigError("vector", config.vector, f"must be auto, {why}")
    if config.max_episode_steps is not None and own_limit:
        raise ConfigError("max_episode_steps", config.max_episode_steps, f"must not be given, {why}")


def _together(env: gymnasium.vector.VectorEnv[Any, Any, Any], config: EnvConfig) -> GymnasiumVectorEnv:
    resets_in_a_step(env)  # raises if it is not supported
    base = env.unwrapped
    if isinstance(base, SyncVectorEnv) and len({id(each.unwrapped) for each in base.envs}) < env.num_envs:
        raise ConfigError("env", config.env, "must have an environment of its own in each place, not one twice")
    if type(env) is SyncVectorEnv and env.observation_mode == "same":
        # Wrapped one by one, its environments can also be saved, and their masks found.
        return make_from(config, [functools.partial(_itself, each) for each in env.envs])
    try:
        return GymnasiumVectorEnv(env, config.scale_actions)
    except ConfigError as error:
        raise ConfigError("env", config.env, error.allowed) if error.name == "space" else error from None


def _itself(env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    return env


class _Maker:
    """Calls `make` with the arguments of `config`."""

    def __init__(self, make: Callable[..., gymnasium.Env[Any, Any]], config: EnvConfig) -> None:
        self._make, self._config = make, config
        self._made: dict[int, Any] = {}

    def __call__(self) -> gymnasium.Env[Any, Any]:
        """A new environment.

        Raises:
            ConfigError: when `make` returns something else, or the same environment again.
        """
        env = self._make(**self._config.env_kwargs)
        if not isinstance(env, gymnasium.Env):
            together = isinstance(env, gymnasium.vector.VectorEnv)
            what = "a vector environment; pass that itself" if together else shown(env)
            raise ConfigError("env", self._config.env, f"must make a gymnasium.Env, and made {what}")
        if id(env.unwrapped) in self._made:
            raise ConfigError("env", self._config.env, "must make a new environment at each call, not one twice")
        self._made[id(env.unwrapped)] = env.unwrapped
        return env
