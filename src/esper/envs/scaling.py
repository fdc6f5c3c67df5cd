"""Whether actions are scaled from [-1, 1] to an environment's bounds."""

from __future__ import annotations

from typing import Any

import numpy as np

from esper.envs.base import LARGEST_BOUND, ActionBounds, ContinuousActions
from esper.envs.config import ScaleActions
from esper.settings.options import ConfigError

# A new policy acts near 0, with a standard deviation near 1: bounds in this range need no scaling.
_NEAR, _FAR = 0.25, 4.0


def bounds_to_scale_to(scale_actions: ScaleActions, low: Any, high: Any) -> ActionBounds | None:
    """The bounds `low` and `high` of A numbers, of any shape, if actions are scaled to them; else None.

    `auto` scales if all bounds are finite, and one is farther from 0 than 4, or nearer than 0.25 (0 itself is), or both
    are on the same side of 0.

    Raises:
        ConfigError: for `on` if a bound is not finite.
    """
    low, high = (np.asarray(bounds, dtype=np.float64).ravel() for bounds in (low, high))
    distances = np.abs(np.stack([low, high]))
    finite = bool((distances < LARGEST_BOUND).all())
    if scale_actions == "on" and not finite:
        raise cannot_scale(f"from {low.min():g} to {high.max():g}")
    fit = bool((distances >= _NEAR).all() and (distances <= _FAR).all() and (low < 0).all() and (high > 0).all())
    if scale_actions == "off" or not finite or (scale_actions == "auto" and fit):
        return None
    return ActionBounds(low=tuple(low.tolist()), high=tuple(high.tolist()))


def clipping_bounds(actions: ContinuousActions, low: Any, high: Any) -> ActionBounds | None:
    """The bounds of `actions` in the learner's units, in a space from `low` to `high`; None if one is not finite."""
    if actions.scaled_to is not None:
        return ActionBounds(low=(-1.0,) * actions.size, high=(1.0,) * actions.size)
    low, high = (np.asarray(bounds, dtype=np.float64).ravel() for bounds in (low, high))
    if not (np.abs(np.stack([low, high])) < LARGEST_BOUND).all():
        return None
    return ActionBounds(low=tuple(low.tolist()), high=tuple(high.tolist()))


def cannot_scale(what: str) -> ConfigError:
    """The error when `what` was found in place of actions with finite bounds."""
    return ConfigError("scale_actions", "on", f"needs actions with finite bounds, not {what}; use auto")
