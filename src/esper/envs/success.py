"""Whether an episode was a success: `is_success` in the info of its end."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esper.envs.base import BoolArray

_log = logging.getLogger(__name__)

NAME = "is_success"


def success_of(info: Mapping[str, Any]) -> dict[str, float]:
    """The part of `info` that is used at an episode's end: `is_success` as 1 or 0, NaN if it is neither."""
    return {} if info.get(NAME) is None else {NAME: _one_or_zero(info[NAME])}


class Successes:
    """Reads `is_success` of all environments. Unusable values are left out, with one warning."""

    def __init__(self) -> None:
        self._warned = False

    def of(self, info: Any, ended: BoolArray) -> NDArray[np.float64] | None:
        """[N], 1 or 0 for each environment whose episode has `ended`, NaN if it is not known; None if it is known for
        none.

        `info` is in Gymnasium's format: an array of values, and one with a "_" before its name that marks the
        environments that have a value, by default all.
        """
        if not isinstance(info, Mapping) or (values := info.get(NAME)) is None:
            return None
        given = np.asarray(info.get(f"_{NAME}", ended))
        which = ended & given if given.shape == ended.shape and given.dtype == np.bool_ else ended
        known = np.where(which, _ones_and_zeros(values, ended.shape), np.nan)
        if np.isnan(known[which]).any() and not self._warned:
            self._warned = True
            _log.warning("info['%s'] is ignored where it is not True, False, 1 or 0", NAME)
        return None if np.isnan(known).all() else known


def _ones_and_zeros(values: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
    # Gymnasium puts values of other types into an array of objects.
    if isinstance(values, np.ndarray | list | tuple) and len(values) == shape[0]:
        return np.array([_one_or_zero(value) for value in values])
    return np.full(shape, np.nan)


def _one_or_zero(value: Any) -> float:
    with contextlib.suppress(Exception):  # also from a custom __array__
        array = np.asarray(value)
        if array.dtype.kind in "biuf" and array.size == 1 and (number := array.item()) in (0, 1):
            return float(number)
    return float("nan")
