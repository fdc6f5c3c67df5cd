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

from esper.envs.base import EnvError, StateTree
from esper.envs.snapshot import capture, restore

_PR_SET_PDEATHSIG = 1


class Copy(gymnasium.Wrapper[Any, Any, Any, Any]):
    """One of several copies. `copy_index` and `pending_state` are set from outside, by `VectorEnv.set_attr`."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self.copy_index = 0
        self.pending_state: StateTree = {}

    def step(self, action: Any) -> Any:
        try:
            return self.env.step(action)
        except Exception as error:
            raise EnvError(f"environment {self.copy_index} raised in a step: {_describe(error)}") from error

    def reset(self, **arguments: Any) -> Any:
        try:
            return self.env.reset(**arguments)
        except Exception as error:
            raise EnvError(f"environment {self.copy_index} raised on reset: {_describe(error)}") from error

    def capture_state(self) -> StateTree | None:
        return capture(self.env)

    def restore_pending_state(self) -> None:
        restore(self.env, self.pending_state)


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
