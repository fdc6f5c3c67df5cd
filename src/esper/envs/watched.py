"""Keeps environments that hang, or fail to close, from blocking the end of a run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from esper.envs.base import BoolArray, DeviceEnv, EnvError, ObsArray, StateTree, Step, VectorEnv
from esper.system.errors import describe, exits_raise, is_ctrl_c
from esper.system.stopping import SECONDS_AFTER_STOP, Overdue, StopRequest

_log = logging.getLogger(__name__)

SECONDS_TO_CLOSE = 8.0

_P = ParamSpec("_P")
_T = TypeVar("_T")


class GivenUp(Exception):
    """A call of an environment was abandoned after a stop request; the message says which."""


def watched(env: VectorEnv, stop: StopRequest) -> VectorEnv:
    """`env`, whose calls are abandoned if they hang when `stop` is requested, and whose `close` never raises.

    A `DeviceEnv` cannot hang and has nothing to close.
    """
    return env if isinstance(env, DeviceEnv) else _Watched(env, stop)


class _Watched:
    """After an abandoned call the state of the environments is unknown: `state_dict` returns None."""

    def __init__(self, env: VectorEnv, stop: StopRequest) -> None:
        self._env, self._stop, self.spec = env, stop, env.spec
        self._lost = False

    @property
    def action_masks(self) -> BoolArray | None:
        return self._env.action_masks

    def reset(self, seed: int) -> ObsArray:
        return self._call(self._env.reset, seed)

    def step(self, actions: NDArray[np.generic]) -> Step:
        return self._call(self._env.step, actions)

    def state_dict(self) -> StateTree | None:
        return None if self._lost else self._call(self._env.state_dict)

    def load_state_dict(self, state: StateTree) -> None:
        self._call(self._env.load_state_dict, state)

    def close(self) -> None:
        """Wait a few seconds at most; errors are only logged."""
        try:
            with exits_raise():
                self._stop.call(SECONDS_TO_CLOSE, self._env.close)
        except Overdue:
            _log.warning("the environments did not close within %g s, and are left as they are", SECONDS_TO_CLOSE)
        except BaseException as error:
            if self._stop.at_once or is_ctrl_c(error):
                raise
            _log.warning("the environments raised on close: %s", describe(error))

    def _call(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return self._stop.call(None, function, *args, **kwargs)
        except (EnvError, ValueError, Overdue) as error:
            if self._stop.at_once:
                # A second Ctrl-C during a call.
                raise KeyboardInterrupt from None
            if not self._stop.gave_up:
                raise
            self._lost = True
            raise GivenUp(
                f"{error}; it was given up {SECONDS_AFTER_STOP:g} s after the stop request. The environments begin "
                "fresh episodes when the run goes on"
            ) from error
