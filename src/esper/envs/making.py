"""Makes vector environments of Gymnasium environments; errors say why one cannot be made."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import gymnasium
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode
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
from esper.envs.processes import close, not_made, raise_one, worker
from esper.envs.registration import find_spec, missing_package
from esper.envs.rules import checked
from esper.envs.subenvs import SubEnv, check_same_spaces
from esper.settings.options import ConfigError
from esper.system.errors import describe, describe_with_place, exits_raise, is_ctrl_c, is_out_of_memory
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
    return adapted(GymnasiumVectorEnv, config, lambda: stepped_one_by_one(config, num_envs, mode, seed), seed)


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


def make_from(
    config: EnvConfig, num_envs: int, make_vec: Callable[..., gymnasium.vector.VectorEnv[Any, Any, Any]]
) -> GymnasiumVectorEnv:
    """The environment of `config`, made by `make_vec`, which takes the arguments of Gymnasium's except the id.

    Raises:
        ConfigError: as `make_gymnasium`.
    """
    mode = "async" if config.vector == "async" else "sync"
    return adapted(GymnasiumVectorEnv, config, lambda: stepped_one_by_one(config, num_envs, mode, make_vec=make_vec))


def stepped_one_by_one(
    config: EnvConfig,
    num_envs: int,
    mode: str,
    seed: int | None = None,
    *,
    wrappers: Sequence[Callable[[gymnasium.Env[Any, Any]], Any]] = (),
    make_vec: Callable[..., gymnasium.vector.VectorEnv[Any, Any, Any]] | None = None,
) -> gymnasium.vector.VectorEnv[Any, Any, Any]:
    """`num_envs` environments, each in `wrappers` and the adapters of this package, stepped one by one.

    `mode` is "sync" or "async"; with "async", constructors in worker processes draw from `seed`.

    Raises:
        ConfigError: when the settings do not fit the environment.
        EnvError: when one of several environments cannot be made; an error of a single one is not caught here.
    """
    make_vec = make_vec or functools.partial(gymnasium.make_vec, config.env, disable_env_checker=True)
    made: list[SubEnv] = []

    def counted(env: gymnasium.Env[Any, Any]) -> SubEnv:
        if made:
            check_same_spaces(env, made[0].observation_space, made[0].action_space)
        made.append(SubEnv(env))
        return made[-1]

    async_ = mode == "async"
    # `GymnasiumVectorEnv` makes its own copies, faster than `deepcopy`.
    options = {"copy": False, **({"worker": functools.partial(worker, seed=seed)} if async_ else {})}
    limit = () if config.max_episode_steps is None else (limited(config.max_episode_steps),)
    flattened = functools.partial(flatten_observations, scale_actions=config.scale_actions)
    adapters = (wrapped, without_mask, flattened)
    others = set(multiprocessing.active_children())
    try:
        with warnings.catch_warnings():
            # It also prints its errors as warnings.
            warnings.filterwarnings("ignore", message=r"\x1b\[31mERROR", category=UserWarning)
            env: Any = make_vec(
                num_envs=num_envs,
                vectorization_mode=mode,
                vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP, **options},
                wrappers=[checked, *limit, *wrappers, *adapters, SubEnv if async_ else counted],
                **config.env_kwargs,
            )
    except BaseException as error:
        if failure := not_made(error, len(made), num_envs, others):
            raise failure from error
        raise
    if async_:
        env._raise_if_errors = functools.partial(raise_one, env)
    env.set_attr("env_index", list(range(num_envs)))
    return env  # type: ignore[no-any-return]


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
