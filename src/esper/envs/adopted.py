"""Vector environments made elsewhere: errors name the environment by index, final observations are copied."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable
from typing import Any

import gymnasium
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

from esper.envs.base import EnvError
from esper.envs.processes import close_processes, first_failure, what_is_wrong
from esper.envs.rules import BrokenRule, checked
from esper.envs.subenvs import SubEnv
from esper.envs.workers import WorkerVectorEnv
from esper.system.errors import describe, describe_with_place


class Kept(SubEnv):
    """An environment in a `SyncVectorEnv` made elsewhere; its observations and infos are not changed.

    Gymnasium resets it before it returns the final observation, and the reset may write into the same array.
    """

    def step(self, action: Any) -> Any:
        try:
            obs, reward, terminated, truncated, info = self.env.step(action)
            return copy.deepcopy(obs) if terminated or truncated else obs, reward, terminated, truncated, info
        except EnvError:
            raise
        except BaseException as error:
            raise self._failed("in a step", error) from error

    def reset(self, **arguments: Any) -> Any:
        try:
            return self.env.reset(**arguments)
        except EnvError:
            raise
        except BaseException as error:
            raise self._failed("on reset", error) from error


def adopt(env: gymnasium.vector.VectorEnv[Any, Any, Any]) -> None:
    """Make errors name the environments in `env` by index, and make sure that its processes end."""
    base: Any = env.unwrapped
    if isinstance(base, SyncVectorEnv):
        subenvs = [each if isinstance(each, SubEnv) else Kept(checked(each)) for each in base.envs]
        for index, each in enumerate(subenvs):
            each.env_index = index
        base.envs = subenvs  # type: ignore[assignment]
    if isinstance(base, AsyncVectorEnv):
        base._raise_if_errors = functools.partial(_raise_named, base)  # type: ignore[method-assign]
        base.close = lambda **_: close_processes(base)  # type: ignore[method-assign]


def _raise_named(env: AsyncVectorEnv, successes: Iterable[bool]) -> None:
    if failure := first_failure(env, successes):
        index, error = failure
        raise error if isinstance(error, EnvError) else EnvError(f"environment {index} raised {describe(error)}")


def why_it_failed(env: gymnasium.vector.VectorEnv[Any, Any, Any], error: BaseException, call: str) -> str:
    """The message of an `EnvError` when `env` itself, and not one environment in it, raised `error` in a `call`."""
    if isinstance(error, BrokenRule):
        return f"{env.num_envs} environments together break Gymnasium's rules: {error}"
    base = env.unwrapped
    process = what_is_wrong(base, error) if isinstance(base, AsyncVectorEnv | WorkerVectorEnv) else ""
    return process or f"an environment (of {env.num_envs} together) raised {call}: {describe_with_place(error)}"
