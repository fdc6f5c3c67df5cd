"""What is put around every copy of a Gymnasium environment: its number in errors, its state, its signals."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

import gymnasium

from esper.envs.actions import actions_of, check_mask
from esper.envs.base import EnvError, StateTree
from esper.envs.snapshot import capture, restore

_PR_SET_PDEATHSIG = 1


class Copy(gymnasium.Wrapper[Any, Any, Any, Any]):
    """One of several copies. `copy_index`, `pending_state` and `masked` are set from outside, by `VectorEnv.set_attr`.

    Where they are `masked`, "action_mask" in every info, but for that of an episode's end, is what is allowed next, as
    booleans.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self.copy_index = 0
        self.pending_state: StateTree = {}
        self.masked: bool | None = None  # not yet asked, or of actions that have no masks

    def step(self, action: Any) -> Any:
        try:
            outcome = self.env.step(action)
            if not self.masked and "action_mask" not in outcome[4]:
                return outcome
            obs, reward, terminated, truncated, info = outcome
            return obs, reward, terminated, truncated, self._with_mask(info, ended=terminated or truncated)
        except EnvError:
            raise
        except Exception as error:
            raise EnvError(f"environment {self.copy_index} raised in a step: {_describe(error)}") from error

    def reset(self, **arguments: Any) -> Any:
        try:
            obs, info = self.env.reset(**arguments)
            return obs, self._with_mask(info, ended=False)
        except EnvError:
            raise
        except Exception as error:
            raise EnvError(f"environment {self.copy_index} raised on reset: {_describe(error)}") from error

    def publishes_masks(self) -> bool:
        """Whether a reset comes with an action mask. The first copy answers for all; the others are not reset."""
        return self.copy_index == 0 and self._published(self.reset(seed=0)[1]) is not None

    def _published(self, info: dict[str, Any]) -> Any:
        """The mask by Gymnasium's convention, or by that of sb3-contrib; None if there is none."""
        mask = info.get("action_mask")
        if mask is None and self.env.has_wrapper_attr("action_masks"):
            mask = self.env.get_wrapper_attr("action_masks")()
        return mask

    def _with_mask(self, info: dict[str, Any], *, ended: bool) -> dict[str, Any]:
        if not self.masked:
            if self.masked is False and info.get("action_mask") is not None:
                raise EnvError(f"environment {self.copy_index} gave an action mask; the first reset came without one")
            return info
        if ended:
            # Nobody acts on it, and often nothing is allowed there.
            return {name: value for name, value in info.items() if name != "action_mask"}
        mask = self._published(info)
        if mask is None:
            raise EnvError(f"environment {self.copy_index} gave no action mask; the first reset came with one")
        try:
            return {**info, "action_mask": check_mask(mask, actions_of(self.action_space))}
        except ValueError as error:
            raise EnvError(f"the action mask of environment {self.copy_index} {error}") from None

    def capture_state(self) -> StateTree | None:
        try:
            return capture(self.env)
        except Exception as error:
            raise EnvError(f"environment {self.copy_index} raised in state_dict: {_describe(error)}") from error

    def restore_pending_state(self) -> None:
        try:
            restore(self.env, self.pending_state)
        except Exception as error:
            why = _describe(error)
            raise ValueError(
                f"environment {self.copy_index} does not go on from its state: {why}; --fresh-episodes begins new ones"
            ) from error


def _describe(error: Exception) -> str:
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({place.filename}, line {place.lineno})"


def in_worker(run_process: int) -> Callable[[gymnasium.Env[Any, Any]], Copy]:
    """`Copy` for an environment that gets a process of its own, whose parent is `run_process`.

    Ctrl-C reaches every process of a terminal. The run then wants to finish its update, so the workers must live on;
    but not longer than the run, should that be killed.
    """

    def wrap(env: gymnasium.Env[Any, Any]) -> Copy:
        if os.getpid() != run_process:  # The run makes one copy for itself, to see its spaces.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            _die_with_parent()
        return Copy(env)

    return wrap


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
