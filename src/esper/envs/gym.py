"""Gymnasium environments as `VectorEnv`."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import multiprocessing
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from gymnasium.vector import AsyncVectorEnv, AutoresetMode
from gymnasium.wrappers import FlattenObservation
from numpy.typing import NDArray

from esper.envs import velocity
from esper.envs.actions import actions_of, to_space
from esper.envs.atari import Drawn, check_vector, is_atari, native_arguments
from esper.envs.base import (
    BoolArray,
    ContinuousActions,
    EnvError,
    EnvSpec,
    ObsArray,
    StateTree,
    Step,
)
from esper.envs.config import EnvConfig
from esper.envs.copies import Copy, check_same_spaces, close, is_of_copies, not_made, raise_one, what_is_wrong, worker
from esper.envs.families import missing_package, register_family, register_module, wrapped
from esper.envs.masks import without_mask
from esper.envs.native import Native
from esper.envs.observations import is_image, observations_of, to_learner
from esper.envs.rules import BrokenRule, as_frame, checked
from esper.envs.snapshot import capture, restore
from esper.envs.window import check_can_be_shown, paced
from esper.errors import describe, describe_with_place, exits_raise, is_ctrl_c, is_out_of_memory
from esper.options import ConfigError, nearest

velocity.register()
_log = logging.getLogger(__name__)


class GymnasiumVectorEnv:
    """Any Gymnasium vector environment, whatever its autoreset mode, as `VectorEnv`.

    A same-step environment reports final observations beside the reset ones. A next-step environment returns the
    final observation itself and spends the next step on resetting: that step is marked `ignored`.
    """

    def __init__(self, env: gymnasium.vector.VectorEnv[Any, Any, Any]) -> None:
        self._env = env
        # Copies stepped one by one, each in a `Copy`; None where the environment steps all as arrays by itself.
        self._copies = env if is_of_copies(env) else None
        self._next_step = env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
        space = env.single_observation_space
        observations = observations_of(space)
        self._native = None if self._copies else Native(space, env.num_envs, next_step=self._next_step)
        self._resetting = np.zeros(env.num_envs, dtype=np.bool_)
        self.action_masks: BoolArray | None = None
        self._to_learner = to_learner(space)
        actions = actions_of(env.single_action_space)
        self.spec = EnvSpec(
            num_envs=env.num_envs,
            observations=observations,
            actions=actions,
            masked=not isinstance(actions, ContinuousActions) and self._find_masks(),
            resets_in_a_step=self._next_step,
        )

    def reset(self, seed: int) -> ObsArray:
        self._resetting[:] = False
        with self._errors("on reset"):
            outcome = self._env.reset(seed=seed)
            obs, info = self._native.reset(outcome) if self._native else outcome
        if self._copies is None and "action_mask" in info:
            raise EnvError(
                "an environment that steps all its copies at once gave action masks; use vector sync for them"
            )
        self._take_masks(info)
        return self._to_learner(obs)

    def step(self, actions: NDArray[np.generic]) -> Step:
        with self._errors("in a step"):
            outcome = self._env.step(to_space(self._env.single_action_space, actions))
            obs, reward, terminated, truncated, info = self._native.step(outcome) if self._native else outcome
        self._take_masks(info)
        obs, done = self._to_learner(obs), terminated | truncated
        final_obs = None
        if done.any():
            final_obs = obs.copy() if self._next_step else self._final_observations(obs, done, info)
        ignored = self._resetting if self._next_step and self._resetting.any() else None
        self._resetting = done if self._next_step else self._resetting
        return Step(obs, reward, terminated, truncated, final_obs, ignored)

    def _final_observations(self, obs: ObsArray, done: BoolArray, info: dict[str, Any]) -> ObsArray:
        final_obs = obs.copy()
        final_obs[done] = self._to_learner(np.stack(info["final_obs"][done]))
        return final_obs

    def _find_masks(self) -> bool:
        """Whether the copies come with action masks; from here on they must do what they did now."""
        if self._copies is None:
            return False
        with self._errors("on reset"):
            (sources, unused), *_ = self._copies.call("find_masks")
            # A list is one value for each copy.
            self._copies.set_attr("masked", [sources] * self._copies.num_envs)
        if unused:
            _log.warning("looks like action masks, and is not used as such: %s", ", ".join(unused))
        return bool(sources)

    def _take_masks(self, info: dict[str, Any]) -> None:
        if self.spec.masked:
            # Of a copy that has just been reset these are the new episode's: the old one's are in "final_info".
            self.action_masks = info["action_mask"]

    def state_dict(self) -> StateTree | None:
        with self._errors("in state_dict"):
            if self._copies is None:
                state = capture(self._env)
            else:
                states = self._copies.call("capture_state")
                state = None if None in states else {str(index): state for index, state in enumerate(states)}
        return None if state is None else {"copies": state, "resetting": self._resetting.copy()}

    def load_state_dict(self, state: StateTree) -> None:
        resetting = np.array(state["resetting"])
        if resetting.shape != self._resetting.shape or resetting.dtype != np.bool_:
            raise ValueError(f"resetting is {resetting.dtype} {resetting.shape}, not bool {self._resetting.shape}")
        if self._copies is None:
            try:
                with self._errors("in load_state_dict"):
                    restore(self._env, state["copies"])
            except EnvError as error:
                raise ValueError(f"{error}; --fresh-episodes begins new ones") from error
        else:
            names = [str(index) for index in range(self.spec.num_envs)]
            if set(state["copies"]) != set(names):
                raise ValueError(f"states of {len(state['copies'])} copies do not fit {len(names)}")
            self._copies.set_attr("pending_state", [state["copies"][name] for name in names])
            self._copies.call("restore_pending_state")
        self._resetting = resetting

    @contextlib.contextmanager
    def _errors(self, call: str) -> Iterator[None]:
        """Whatever the environment raises within, which is `call`, becomes an `EnvError`."""
        try:
            yield
        except EnvError:
            raise
        except BrokenRule as error:
            raise EnvError(f"{self._env.num_envs} environments together break Gymnasium's rules: {error}") from error
        except BaseException as error:
            if is_ctrl_c(error):
                raise
            what = f"an environment (of {self._env.num_envs} together) raised {call}: {describe_with_place(error)}"
            if isinstance(self._env, AsyncVectorEnv):
                what = what_is_wrong(self._env, error) or what
            # To a context manager, a RuntimeError from a StopIteration is that StopIteration.
            raise EnvError(what) from (None if isinstance(error, StopIteration) else error)

    @property
    def render_fps(self) -> int:
        return int(self._env.metadata.get("render_fps", 30))

    def render(self) -> NDArray[np.uint8]:
        """The first copy as an image [height, width, 3].

        Raises:
            ConfigError: when it cannot be drawn on this machine.
        """
        try:
            frames: Any = self._env.render()
            return as_frame(frames[0])
        except BaseException as error:  # Renderers raise types of their own: mujoco.FatalError, pygame.error, ...
            if is_ctrl_c(error):
                raise
            name = self._env.spec.id if self._env.spec else str(self._env)
            why = str(error) if isinstance(error, EnvError | BrokenRule) else describe(error)
            raise ConfigError("env", name, f"cannot be drawn here: {why}") from error

    def close(self) -> None:
        close(self._env)


def make_gymnasium(config: EnvConfig, num_envs: int) -> GymnasiumVectorEnv:
    """The environment `config` asks for.

    Raises:
        ConfigError: for an unknown id, a missing package, arguments the environment refuses, unsupported spaces.
    """
    spec = find_spec(config.env)
    native = spec.vector_entry_point is not None
    if is_atari(config.env):
        check_vector(config)
    if config.vector == "native" and not native:
        raise ConfigError("vector", "native", f"{config.env} has no vector version of its own; use auto, sync or async")
    if config.vector == "native" or (config.vector == "auto" and native):
        return _make(config, lambda: _make_native(config, num_envs))
    mode = "async" if config.vector == "async" else "sync"
    return _make(config, lambda: _make_copies(config, num_envs, mode))


def make_gymnasium_rendered(config: EnvConfig) -> GymnasiumVectorEnv:
    """One copy that `render` can draw.

    Raises:
        ConfigError: as `make_gymnasium`, and for an environment that cannot be drawn.
    """
    find_spec(config.env)
    if is_atari(config.env):
        return _make(config, lambda: Drawn(_make_native(config, 1)))
    drawn = dataclasses.replace(config, env_kwargs={**config.env_kwargs, "render_mode": "rgb_array"})
    return _make(drawn, lambda: _make_copies(drawn, 1, "sync"))


def make_gymnasium_shown(config: EnvConfig, fps: float | None) -> GymnasiumVectorEnv:
    """One copy in a window, `fps` steps a second.

    Raises:
        ConfigError: as `make_gymnasium`, and where there can be no window.
    """
    spec = find_spec(config.env)
    if is_atari(config.env):
        allowed = "cannot be shown in a window; esper evaluate --record draws an episode without one"
        raise ConfigError("env", config.env, allowed)
    shown = dataclasses.replace(config, env_kwargs={**config.env_kwargs, "render_mode": "human"})

    def make() -> Any:
        check_can_be_shown(spec)
        return _make_copies(shown, 1, "sync", paced(fps))

    return _make(shown, make)


def find_spec(env: str) -> gymnasium.envs.registration.EnvSpec:
    """The registered environment called `env`; `module:id` is one that importing `module` registers.

    Raises:
        ConfigError: with the nearest ids.
    """
    module, _, name = env.rpartition(":")
    if module:
        register_module(module, env)
    else:
        register_family(env)
    try:
        return gymnasium.spec(name)
    except (gymnasium.error.Error, ValueError, ImportError) as error:
        hint = nearest(env, gymnasium.registry) or f" ({error})"
        raise ConfigError("env", env, f"is no Gymnasium environment here{hint}") from None


def flatten_observations(env: gymnasium.Env[Any, Any]) -> Any:
    """Make observations vectors, unless they are images: dictionaries and tuples are joined, discrete ones one-hot.

    Raises:
        ConfigError: named "space", for spaces that are not supported, while there are no processes yet.
    """
    space = env.observation_space
    observations_of(space)
    actions_of(env.action_space)
    flat = isinstance(space, Box) and len(space.shape) == 1
    return env if flat or is_image(space) else FlattenObservation(env)


def _make_copies(
    config: EnvConfig, num_envs: int, mode: str, *wrappers: Callable[[gymnasium.Env[Any, Any]], Any]
) -> gymnasium.vector.VectorEnv[Any, Any, Any]:
    made: list[Copy] = []

    def counted(env: gymnasium.Env[Any, Any]) -> Copy:
        if made:
            check_same_spaces(env, made[0].observation_space, made[0].action_space)
        made.append(Copy(env))
        return made[-1]

    async_ = mode == "async"
    others = set(multiprocessing.active_children())
    try:
        with warnings.catch_warnings():
            # It prints as warnings what it then raises.
            warnings.filterwarnings("ignore", message=r"\x1b\[31mERROR", category=UserWarning)
            env: Any = gymnasium.make_vec(
                config.env,
                num_envs=num_envs,
                vectorization_mode=mode,
                vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP, **({"worker": worker} if async_ else {})},
                wrappers=[checked, *wrappers, wrapped, without_mask, flatten_observations, Copy if async_ else counted],
                disable_env_checker=True,
                **config.env_kwargs,
            )
    except BaseException as error:
        if failure := not_made(error, len(made), num_envs, others):
            raise failure from error
        raise
    if async_:
        env._raise_if_errors = functools.partial(raise_one, env)
    env.set_attr("copy_index", list(range(num_envs)))
    return env  # type: ignore[no-any-return]


def _make_native(config: EnvConfig, num_envs: int) -> gymnasium.vector.VectorEnv[Any, Any, Any]:
    arguments = native_arguments(config) if is_atari(config.env) else config.env_kwargs
    with warnings.catch_warnings():
        # What it says of them is an error here.
        warnings.filterwarnings("ignore", message=r".*AutoresetMode", category=UserWarning)
        env = gymnasium.make_vec(config.env, num_envs=num_envs, vectorization_mode="vector_entry_point", **arguments)
    mode = env.metadata.get("autoreset_mode")
    if mode not in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP):
        raise ConfigError("vector", config.vector, f"{config.env} resets by '{mode}' natively; use sync")
    return env


def _make(config: EnvConfig, make: Callable[[], Any]) -> GymnasiumVectorEnv:
    try:
        with exits_raise():
            env = make()
            try:
                return GymnasiumVectorEnv(env)
            except BaseException:
                with contextlib.suppress(BaseException):
                    close(env)
                raise
    except ConfigError as error:
        raise ConfigError("env", config.env, error.allowed) if error.name == "space" else error from None
    except (gymnasium.error.DependencyNotInstalled, ModuleNotFoundError) as error:
        raise ConfigError("env", config.env, missing_package(find_spec(config.env), error)) from None
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
