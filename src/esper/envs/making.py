"""Makes vector environments of Gymnasium environments; errors say why one cannot be made."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import gymnasium
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import FlattenObservation

from esper.envs.actions import actions_of
from esper.envs.adapter import Adapter
from esper.envs.base import EnvError
from esper.envs.config import EnvConfig, ScaleActions
from esper.envs.families import wrapped
from esper.envs.gym import GymnasiumVectorEnv
from esper.envs.limits import limited
from esper.envs.masks import without_mask
from esper.envs.modes import vector_mode
from esper.envs.observations import is_image, observations_of
from esper.envs.processes import close
from esper.envs.registration import find_spec, missing_package
from esper.envs.rules import checked
from esper.envs.subenvs import SubEnv, check_same_spaces, in_constructor
from esper.envs.workers import WorkerVectorEnv
from esper.settings.options import ConfigError
from esper.system.errors import describe, describe_with_place, exits_raise, is_ctrl_c, is_out_of_memory
from esper.system.machine import usable_cores
from esper.system.seeding import GlobalGenerators

_T = TypeVar("_T")


def make_gymnasium(config: EnvConfig, num_envs: int, seed: int | None = None) -> GymnasiumVectorEnv:
    """The environment of `config`; constructors in worker processes draw from `seed`.

    Raises:
        ConfigError: for an unknown id, a missing package, arguments that the environment refuses, unsupported spaces.
    """
    mode = vector_mode(config, find_spec(config.env))
    if mode == "native":
        limit = {} if config.max_episode_steps is None else {"max_episode_steps": config.max_episode_steps}
        return adapted(
            GymnasiumVectorEnv, config, lambda: native_vector(config, num_envs, {**config.env_kwargs, **limit}), seed
        )
    makers = makers_of(config, num_envs)
    return adapted(GymnasiumVectorEnv, config, lambda: stepped_one_by_one(config, makers, mode, seed), seed)


def flatten_observations(env: gymnasium.Env[Any, Any], scale_actions: ScaleActions = "auto") -> Any:
    """Flatten observations to vectors, unless they are images: dictionaries and tuples are joined, discrete is one-hot.

    Raises:
        ConfigError: as `actions_of`, for spaces that are not supported; before any process starts.
    """
    space = env.observation_space
    observations_of(space)
    actions_of(env.action_space, scale_actions)
    flat = isinstance(space, Box) and len(space.shape) == 1
    return env if flat or is_image(space) else FlattenObservation(env)


def adapter_of(config: EnvConfig, make: Callable[[], Any]) -> Adapter:
    """The adapter of the environment that `make` makes, which is closed.

    Raises:
        ConfigError: as `make_gymnasium`.
    """

    def read(env: Any, scale_actions: ScaleActions) -> Adapter:
        adapter = Adapter.of(env, scale_actions)
        close(env)
        return adapter

    return adapted(read, config, make)


def make_adapter(config: EnvConfig) -> Adapter:
    """The adapter of an environment of `config`, which is made, and closed without a reset.

    Raises:
        ConfigError: as `make_gymnasium`.
    """
    if vector_mode(config, find_spec(config.env)) == "native":
        return adapter_of(config, lambda: native_vector(config, 1, config.env_kwargs))
    return adapter_of(config, lambda: gymnasium.make(config.env, disable_env_checker=True, **config.env_kwargs))


def make_from(config: EnvConfig, makers: Sequence[Callable[[], Any]], seed: int | None = None) -> GymnasiumVectorEnv:
    """The environment of `config`, of what `makers` make.

    Raises:
        ConfigError: as `make_gymnasium`.
    """
    mode = "async" if config.vector == "async" else "sync"
    return adapted(GymnasiumVectorEnv, config, lambda: stepped_one_by_one(config, makers, mode, seed), seed)


def makers_of(config: EnvConfig, num_envs: int) -> list[Callable[[], Any]]:
    """What makes `num_envs` environments of `config`, by its id."""
    return [functools.partial(gymnasium.make, config.env, disable_env_checker=True, **config.env_kwargs)] * num_envs


def stepped_one_by_one(
    config: EnvConfig,
    makers: Sequence[Callable[[], gymnasium.Env[Any, Any]]],
    mode: str,
    seed: int | None = None,
    *,
    wrappers: Sequence[Callable[[gymnasium.Env[Any, Any]], Any]] = (),
) -> SyncVectorEnv | WorkerVectorEnv:
    """The environments of `makers`, each in `wrappers` and the adapters of this package, stepped one by one.

    `mode` is "sync" or "async"; with "async", constructors in worker processes draw from `seed`.

    Raises:
        ConfigError: when the settings do not fit the environment.
        EnvError: when one of several environments cannot be made; an error of a single one is not caught here.
    """
    limit = () if config.max_episode_steps is None else (limited(config.max_episode_steps),)
    flattened = functools.partial(flatten_observations, scale_actions=config.scale_actions)
    around = [checked, *limit, *wrappers, wrapped, without_mask, flattened]
    own = [functools.partial(_one, make, around) for make in makers]
    if mode == "async":
        workers = config.env_workers or usable_cores()
        env: SyncVectorEnv | WorkerVectorEnv = WorkerVectorEnv(own, workers=workers, seed=seed)
    else:
        env = _in_this_process(own)
    env.set_attr("env_index", list(range(len(makers))))
    return env


def _one(make: Callable[[], Any], wrappers: Sequence[Callable[[Any], Any]]) -> SubEnv:
    return SubEnv(functools.reduce(lambda env, wrapper: wrapper(env), wrappers, make()))


def _in_this_process(makers: Sequence[Callable[[], SubEnv]]) -> SyncVectorEnv:
    made: list[SubEnv] = []

    def counted(make: Callable[[], SubEnv]) -> SubEnv:
        env = make()
        if made:
            check_same_spaces(env, made[0].observation_space, made[0].action_space)
        made.append(env)
        return env

    try:
        # `GymnasiumVectorEnv` makes its own copies, faster than `deepcopy`.
        counting = [functools.partial(counted, make) for make in makers]
        return SyncVectorEnv(counting, copy=False, autoreset_mode=AutoresetMode.SAME_STEP)
    except BaseException as error:
        settings = isinstance(error, ConfigError) and error.name != "space"
        if 0 < len(made) < len(makers) and not (settings or is_ctrl_c(error)):
            # The settings are not at fault: other environments were made with them.
            raise EnvError(in_constructor(len(made), error)) from error
        raise


def native_vector(
    config: EnvConfig, num_envs: int, arguments: dict[str, Any]
) -> gymnasium.vector.VectorEnv[Any, Any, Any]:
    """The environment's vector version, made with `arguments`.

    Raises:
        ConfigError: when its autoreset mode is not supported.
    """
    with warnings.catch_warnings():
        # Its warnings are errors here.
        warnings.filterwarnings("ignore", message=r".*AutoresetMode", category=UserWarning)
        env = gymnasium.make_vec(config.env, num_envs=num_envs, vectorization_mode="vector_entry_point", **arguments)
    mode = env.metadata.get("autoreset_mode")
    if mode not in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP):
        raise ConfigError("vector", config.vector, f"{config.env} resets by '{mode}', not supported; use sync")
    return env


def adapted(
    adapter: Callable[[Any, ScaleActions], _T], config: EnvConfig, make: Callable[[], Any], seed: int | None = None
) -> _T:
    """The environment from `make`, in an `adapter`; with a `seed`, constructors that draw from global generators use
    it.

    Raises:
        ConfigError, EnvError: in place of whatever the constructor raises, except Ctrl-C.
    """
    seeded = contextlib.nullcontext() if seed is None else GlobalGenerators(seed).in_place()
    try:
        with seeded, exits_raise():
            env = make()
            try:
                return adapter(env, config.scale_actions)
            except BaseException:
                with contextlib.suppress(BaseException):
                    close(env)
                raise
    except ConfigError as error:
        raise ConfigError("env", config.env, error.allowed) if error.name == "space" else error from None
    except (gymnasium.error.DependencyNotInstalled, ModuleNotFoundError) as error:
        raise ConfigError("env", config.env, missing_package(config.env, error)) from None
    except gymnasium.error.Error as error:
        raise ConfigError("env", config.env, f"cannot be made: {describe(error, first_line=True)}") from error
    except EnvError:
        raise
    except BaseException as error:
        if is_ctrl_c(error) or is_out_of_memory(error):
            raise
        if config.env_kwargs and isinstance(error, TypeError | ValueError | LookupError | AssertionError):
            reason = f"{config.env} refuses them: {describe(error)}"
            raise ConfigError("env_kwargs", config.env_kwargs, reason) from error
        why = f"raised in its constructor: {describe_with_place(error, first_line=True)}"
        raise ConfigError("env", config.env, why) from error
