"""Checks what `reset` and `step` return against Gymnasium's rules."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tuple
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit
from numpy.typing import NDArray

RESET = "observation, info"
STEP = "observation, reward, terminated, truncated, info"
_NUMBERS = frozenset({float, np.float64, np.float32, np.int64})
_FLAGS = frozenset({bool, np.bool_})


class BrokenRule(ValueError):
    """The message says what an environment returned, and what Gymnasium requires."""


class Checked(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Checks an environment against Gymnasium's rules. What is unambiguous is converted instead of refused.

    That is: an array of one number as reward, of one boolean (or 0 or 1) as terminated or truncated, and observations
    of another dtype that convert without loss. Bounds of a Box, NaN and infinities are not checked.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        # Read once: properties may make new spaces at each access, and wrappers outside must see the same ones.
        self._space = self.observation_space = env.observation_space
        self.action_space = env.action_space
        # The fast path: dtypes and shapes that need no conversion.
        plain = type(self._space) is Box
        self._shape: Any = self._space.shape if plain else None
        self._dtype: Any = self._space.dtype if plain else None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        try:
            outcome = self.env.reset(seed=seed, options=options)
        except TypeError as error:
            if takes(self.env.reset, {"seed": seed, "options": options}):
                raise
            raise BrokenRule("reset takes no seed and options; Gymnasium requires both, by name") from error
        obs, info = parts(outcome, "reset", RESET)
        info = _information(info, "reset")
        return self._observation(obs, "reset"), info

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        outcome = self.env.step(action)
        if type(outcome) is not tuple or len(outcome) != 5:
            outcome = parts(outcome, "step", STEP)
        obs, reward, terminated, truncated, info = outcome
        # Each dtype exists once, and `is` is faster than `==`.
        if type(obs) is not np.ndarray or obs.dtype is not self._dtype or obs.shape != self._shape:
            obs = self._observation(obs, "step")
        if type(reward) not in _NUMBERS:
            reward = _number(reward)
        if type(terminated) not in _FLAGS:
            terminated = _flag(terminated, "terminated")
        if type(truncated) not in _FLAGS:
            truncated = _flag(truncated, "truncated")
        if type(info) is not dict:
            info = _information(info, "step")
        return obs, reward, terminated, truncated, info

    def _observation(self, obs: Any, call: str) -> Any:
        return conformed(self._space, obs, f"{call} returned an observation that")


def checked(env: gymnasium.Env[Any, Any]) -> Any:
    """`env` with `Checked` inside Gymnasium's own wrappers, which would fail first, with a less clear error."""
    outer = None
    inner: Any = env
    while isinstance(inner, OrderEnforcing | TimeLimit | PassiveEnvChecker):
        outer, inner = inner, inner.env
    if isinstance(inner, Checked):
        return env
    if outer is None:
        return Checked(env)
    outer.env = Checked(inner)
    return env


def parts(outcome: Any, call: str, names: str) -> Any:
    """The values that `call` returned, one for each of `names`.

    Raises:
        BrokenRule: for another number of values.
    """
    if isinstance(outcome, tuple | list) and len(outcome) == names.count(",") + 1:
        return outcome
    raise BrokenRule(f"{call} returned {shown(outcome)}; Gymnasium requires a tuple of {names}")


def shown(value: Any) -> str:
    """A short description of `value`."""
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} {list(value.shape)}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)} value{'' if len(value) == 1 else 's'}"
    if isinstance(value, int) and value.bit_length() > 128:
        return f"an integer of {value.bit_length()} bits"
    if value is None or isinstance(value, bool | int | float | str):
        text = repr(value)
        return text if len(text) <= 40 else f"{text[:40]}..."
    return f"a value of type {type(value).__name__}"


def conformed(space: Space[Any], obs: Any, name: str) -> Any:
    """`obs` as an element of `space`: arrays, integers, and dictionaries and tuples of these.

    `name` is the subject of the error message.

    Raises:
        BrokenRule: when it is not an element of `space`, and does not convert without loss.
    """
    if isinstance(space, Dict):
        if not isinstance(obs, Mapping):
            raise BrokenRule(f"{name} is {shown(obs)}; its space is a Dict")
        missing = [key for key in space.spaces if key not in obs]
        if missing:
            raise BrokenRule(f"{name} has the keys {list(obs)}; its space has {list(space.spaces)}")
        return {key: conformed(part, obs[key], f"{name} at {key!r}") for key, part in space.spaces.items()}
    if isinstance(space, Tuple):
        if not isinstance(obs, tuple | list) or len(obs) != len(space.spaces):
            raise BrokenRule(f"{name} is {shown(obs)}; its space is a Tuple of {len(space.spaces)}")
        return tuple(conformed(part, obs[i], f"{name} at {i}") for i, part in enumerate(space.spaces))
    if isinstance(space, Discrete):
        return _choice(space, obs, name)
    if not isinstance(space, Box | MultiBinary | MultiDiscrete):
        # A wrapper outside may drop it, as the text of a mission; what reaches the learner is checked separately.
        return obs
    array = as_numbers(obs)
    if array is None or array.shape != space.shape:
        raise BrokenRule(f"{name} is {shown(obs)}; its space has the shape {list(space.shape or ())}")
    array = lossless(array, space.dtype, name)
    if isinstance(space, MultiDiscrete) and not ((array >= space.start) & (array < space.start + space.nvec)).all():
        raise BrokenRule(f"{name} is {array.tolist()}; that is not in its space, {space}")
    return array


def lossless(array: NDArray[Any], dtype: Any, name: str) -> NDArray[Any]:
    """`array` as `dtype`; only rounding to floats, or overflow to infinity, may change values.

    Raises:
        BrokenRule: when integers or booleans would change.
    """
    if array.dtype == dtype:
        return array
    # Infinities are found by the learner.
    with np.errstate(invalid="ignore", over="ignore"):
        converted = array.astype(dtype)
    if not np.issubdtype(dtype, np.floating) and not (converted == array).all():
        raise BrokenRule(f"{name} has {array.dtype} numbers that its space, of {np.dtype(dtype)}, cannot hold")
    return converted


def _choice(space: Discrete, obs: Any, name: str) -> int:
    array = as_numbers(obs)
    if array is None or array.size != 1 or not (number := array.item()) == number // 1:
        raise BrokenRule(f"{name} is {shown(obs)}; its space, {space}, has whole numbers")
    if not space.start <= number < space.start + space.n:
        raise BrokenRule(f"{name} is {number}; that is not in its space, {space}")
    return int(number)


def as_numbers(value: Any) -> NDArray[Any] | None:
    """`value` as an array of numbers or booleans, or None if it is not one."""
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError):
        return None
    return array if array.dtype.kind in "biuf" else None


def _number(reward: Any) -> float:
    if type(reward) is int and reward.bit_length() < 64:
        return float(reward)
    array = as_numbers(reward)
    if array is None or array.size != 1:
        raise BrokenRule(f"step returned {shown(reward)} as reward; Gymnasium requires a number")
    return float(array.item())


def _flag(value: Any, name: str) -> bool:
    array = as_numbers(value)
    if array is None or array.size != 1 or array.item() not in (0, 1):
        raise BrokenRule(f"step returned {shown(value)} as {name}; Gymnasium requires True or False")
    return bool(array.item())


def as_frame(frame: Any) -> NDArray[np.uint8]:
    """The frame that `render` returned, in colour or grey, as an image [height, width, 3].

    Raises:
        BrokenRule: when it is not an image.
    """
    array = as_numbers(frame)
    if array is not None and array.ndim == 2:  # grey
        array = np.stack([array] * 3, axis=-1)
    if array is None or array.ndim != 3 or array.shape[2] not in (3, 4) or not array.size:
        raise BrokenRule(f"render returned {shown(frame)}; Gymnasium requires an image [height, width, 3] of uint8")
    try:
        return lossless(array[..., :3], np.dtype(np.uint8), "an image")
    except BrokenRule:
        raise BrokenRule(f"render returned an image of {array.dtype}; Gymnasium requires uint8") from None


def _information(info: Any, call: str) -> dict[str, Any]:
    if not isinstance(info, dict):
        raise BrokenRule(f"{call} returned {shown(info)} as info; Gymnasium requires a dictionary")
    return info


def takes(function: Any, arguments: dict[str, Any]) -> bool:
    """Whether `function` can be called with these `arguments`, by name."""
    try:
        inspect.signature(function).bind(**arguments)
    except TypeError:
        return False
    except ValueError:  # a function without a signature
        return True
    return True
