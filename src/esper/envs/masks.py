"""Where environments report which actions are allowed: in infos, by methods, in observations."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
from gymnasium.spaces import Dict

from esper.envs.actions import actions_of, check_mask
from esper.envs.base import Actions, ContinuousActions

NAME = "action_mask"
# The first is Gymnasium's name, the method sb3-contrib's: an unusable value there is an error. The other names have
# other meanings, too, and are used as masks only if the value fits.
INFOS = (NAME, "avail_actions")
_METHODS = ("action_masks", "action_mask", "valid_action_mask")
_CERTAIN = (f"info['{NAME}']", "action_masks()")
LOOKS_LIKE_ONE = re.compile(r"mask|(avail|legal|valid|allowed).*action", re.IGNORECASE)


class MaskTaken(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Moves "action_mask" from a dictionary of observations into the info, unless that has one.

    If one observation is left in the dictionary, it replaces the dictionary.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        assert isinstance(env.observation_space, Dict)
        left = {name: space for name, space in env.observation_space.spaces.items() if name != NAME}
        self._only = next(iter(left)) if len(left) == 1 else None
        self.observation_space = Dict(left) if self._only is None else left[self._only]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        obs, info = self.env.reset(seed=seed, options=options)
        return self._rest(obs), {NAME: obs[NAME], **info}

    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = self.env.step(action)
        return self._rest(obs), reward, terminated, truncated, {NAME: obs[NAME], **info}

    def _rest(self, obs: Mapping[str, Any]) -> Any:
        if self._only is not None:
            return obs[self._only]
        return {name: value for name, value in obs.items() if name != NAME}


def without_mask(env: gymnasium.Env[Any, Any]) -> Any:
    """`env` in `MaskTaken`, if its observations have a mask for its actions beside other entries."""
    space, actions = env.observation_space, actions_of(env.action_space)
    if not isinstance(space, Dict) or NAME not in space.spaces or len(space.spaces) == 1:
        return env
    fits = not isinstance(actions, ContinuousActions) and space[NAME].shape == (actions.outputs,)
    return MaskTaken(env) if fits else env


def sources_of(env: gymnasium.Env[Any, Any], info: dict[str, Any]) -> tuple[str, ...]:
    """Where `env` reports masks, given `info` of a first reset; the first source is used."""
    actions = actions_of(env.action_space)
    places = (*(f"info['{name}']" for name in INFOS), *(f"{name}()" for name in _METHODS if _can_ask(env, name)))
    return tuple(place for place in places if _is_mask(place, reader(env, (place,))(info), actions))


def _is_mask(place: str, mask: Any, actions: Actions) -> bool:
    if mask is None or place in _CERTAIN:
        return mask is not None
    try:
        check_mask(mask, actions)
    except (ValueError, TypeError):
        return False
    return True


def reader(env: gymnasium.Env[Any, Any], sources: tuple[str, ...]) -> Callable[[Mapping[str, Any]], Any]:
    """The function of an info that gives the mask from the first of `sources` that has one, or None.

    The wrappers of `env` are searched once: at each step that took longer than many an environment.
    """
    reads = [_reader(env, source) for source in sources]

    def read(info: Mapping[str, Any]) -> Any:
        for each in reads:
            if (mask := each(info)) is not None:
                return mask
        return None

    return read


def _reader(env: gymnasium.Env[Any, Any], source: str) -> Callable[[Mapping[str, Any]], Any]:
    name = source.removesuffix("()")
    if name == source:
        key = source[len("info['") : -len("']")]
        return lambda info: info.get(key)
    owner = _owner(env, name)
    # Looked up at each call: an environment may replace its method.
    return lambda _: owner.get_wrapper_attr(name)()


def _owner(env: Any, name: str) -> Any:
    """The outermost of `env` and what it wraps that has an attribute `name` of its own."""
    while isinstance(env, gymnasium.Wrapper) and not hasattr(env, name):
        env = env.env
    return env


def _can_ask(env: gymnasium.Env[Any, Any], name: str) -> bool:
    """Whether there is such a method, and it takes no arguments."""
    method = env.get_wrapper_attr(name) if env.has_wrapper_attr(name) else None
    if not callable(method):
        return False
    try:
        inspect.signature(method).bind()
    except (TypeError, ValueError):
        return False
    return True


def unused(env: gymnasium.Env[Any, Any], info: dict[str, Any], sources: tuple[str, ...]) -> list[str]:
    """Names in `info` and the observations of `env` that look like masks and are not in `sources`."""
    infos = (f"info['{name}']" for name in info if isinstance(name, str) and LOOKS_LIKE_ONE.search(name))
    space = env.unwrapped.observation_space
    parts = space.spaces if isinstance(space, Dict) else ()
    observed = (f"observation[{name!r}]" for name in parts if LOOKS_LIKE_ONE.search(str(name)))
    taken = ("observation['action_mask']",) if _takes(env) else ()
    return [name for name in (*infos, *observed) if name not in (*sources, *taken)]


def _takes(env: Any) -> bool:
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, MaskTaken):
            return True
        env = env.env
    return False
