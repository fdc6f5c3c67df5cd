"""Time limits of episodes: finding an environment's own, and replacing it."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.wrappers import TimeLimit


def limited(steps: int) -> Callable[[gymnasium.Env[Any, Any]], Any]:
    """A wrapper that truncates episodes after `steps`, in place of the environment's own limits."""

    def limit(env: gymnasium.Env[Any, Any]) -> Any:
        found = _limits(env)
        for each in found:
            each._max_episode_steps = steps
        return env if found else TimeLimit(env, steps)

    return limit


def time_limit(env: gymnasium.Env[Any, Any]) -> int | None:
    """The steps after which an episode of `env` is truncated; None if unknown."""
    return min((each._max_episode_steps for each in _limits(env)), default=None)


def _limits(env: Any) -> list[TimeLimit[Any, Any]]:
    found = []
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, TimeLimit):
            found.append(env)
        env = env.env
    return found


def takes_time_limit(spec: EnvSpec) -> bool:
    """Whether the environment's vector version takes `max_episode_steps`."""
    if spec.max_episode_steps is not None:
        # Gymnasium passes the registered limit to it.
        return True
    creator: Any = spec.vector_entry_point
    with contextlib.suppress(Exception):  # an import error is reported when it is made
        creator = load_env_creator(creator) if isinstance(creator, str) else creator
        return "max_episode_steps" in inspect.signature(creator).parameters
    return True


def vector_time_limit(env: gymnasium.vector.VectorEnv[Any, Any, Any]) -> int | None:
    """The same for a vector version: from its arguments or an attribute."""
    given = env.spec.kwargs if env.spec is not None else {}
    if (frames := given.get("max_num_frames_per_episode")) is not None:
        # ALE counts frames.
        return int(frames) // int(given["frameskip"]) or None
    limit = given.get("max_episode_steps", getattr(env.unwrapped, "max_episode_steps", None))
    return limit if isinstance(limit, int) and limit > 0 else None
