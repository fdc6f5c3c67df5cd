"""Checks what a `VectorEnv` returns: NumPy would spread one row over all environments, and cut numbers to fit."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from esper.envs.base import BoolArray, EnvError, EnvSpec, Images, ObsArray, Step

_FIELDS = "a Step: obs, reward, terminated, truncated, final_obs, ignored, success"


def checked_obs(spec: EnvSpec, obs: Any, call: str = "reset", name: str = "observations") -> ObsArray:
    """`obs` as an array [N, ...], of uint8 for images.

    Raises:
        EnvError: when it is of another form.
    """
    array = _numbers(obs, (spec.num_envs, *spec.observations.shape), call, name)
    if isinstance(spec.observations, Images) and array.dtype != np.uint8:
        raise _broken(call, name, f"an array of {array.dtype}", "uint8 for images")
    return array


def checked_step(spec: EnvSpec, outcome: Any) -> Step:
    """`outcome` of a step as a `Step` of arrays.

    Raises:
        EnvError: when a field is of another form, or a final observation is missing.
    """
    if not isinstance(outcome, tuple) or len(outcome) not in (6, 7):
        found = f"a tuple of {len(outcome)}" if isinstance(outcome, tuple) else f"a {type(outcome).__name__}"
        raise EnvError(f"the vector environment returned {found} from step; VectorEnv requires {_FIELDS}")
    obs, reward, terminated, truncated, final_obs, ignored, success = Step(*outcome)
    rows = (spec.num_envs,)
    terminated, truncated = _flags(terminated, rows, "terminated"), _flags(truncated, rows, "truncated")
    if final_obs is not None:
        final_obs = checked_obs(spec, final_obs, "step", "final_obs")
    elif np.count_nonzero(truncated > terminated):
        raise _broken("step", "final_obs", "None", "the last observations where an episode was truncated")
    return Step(
        obs=checked_obs(spec, obs, "step"),
        reward=_numbers(reward, rows, "step", "reward"),
        terminated=terminated,
        truncated=truncated,
        final_obs=final_obs,
        ignored=None if ignored is None else _flags(ignored, rows, "ignored"),
        success=None if success is None else _numbers(success, rows, "step", "success"),
    )


def _flags(value: Any, shape: tuple[int, ...], name: str) -> BoolArray:
    array = _numbers(value, shape, "step", name)
    if array.dtype == np.bool_:
        return array
    if not ((array == 0) | (array == 1)).all():
        raise _broken("step", name, "numbers other than 0 and 1", "booleans")
    return array.astype(np.bool_)


def _numbers(value: Any, shape: tuple[int, ...], call: str, name: str) -> NDArray[Any]:
    try:
        array = value if type(value) is np.ndarray else np.asarray(value)
    except (RuntimeError, TypeError, ValueError):
        array = np.asarray(None)
    if array.dtype.kind not in "biuf":
        raise _broken(call, name, f"a {type(value).__name__}", f"numbers {list(shape)}")
    if array.shape != shape:
        raise _broken(call, name, f"an array {list(array.shape)}", f"{list(shape)}")
    return array


def _broken(call: str, name: str, found: str, needed: str) -> EnvError:
    return EnvError(f"the vector environment returned {found} as {name} from {call}; VectorEnv requires {needed}")
