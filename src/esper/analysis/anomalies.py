"""Updates at which something went wrong, found in the record of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from esper.analysis.runs import Columns

# A ratio beyond this, or below its inverse, has left what clipping at 0.2 is made for.
RATIO_LIMIT = 10.0
# Entropy below this share of what the run began with: the policy has stopped exploring.
ENTROPY_SHARE = 0.01
# Worse than predicting the mean by this much: the value function knows nothing any more.
EXPLAINED_VARIANCE_LIMIT = -1.0
# A loss so many times the median of the updates before it.
VALUE_LOSS_FACTOR = 100.0
_WINDOW = 50


class Anomaly(NamedTuple):
    """What went wrong, first at `update`, and in how many updates altogether."""

    kind: str
    update: int
    updates: int
    says: str


def find_anomalies(updates: Columns, skipped: Sequence[Mapping[str, Any]] = ()) -> list[Anomaly]:
    """The kinds of anomaly in a run, by when they began; `skipped` are its `update_skipped` records."""
    index = updates.get("update", np.array([], dtype=int))
    found = []
    for kind, (mask, says) in _masks(updates).items():
        where = np.flatnonzero(mask)
        if len(where):
            found.append(Anomaly(kind, int(index[where[0]]), len(where), says))
    if skipped:
        found.append(Anomaly("skipped", int(skipped[0]["update"]), len(skipped), str(skipped[0]["cause"])))
    return sorted(found, key=lambda anomaly: anomaly.update)


def _masks(updates: Columns) -> dict[str, tuple[Any, str]]:
    masks = {}
    if "ratio_max" in updates:
        far = (updates["ratio_max"] > RATIO_LIMIT) | (updates["ratio_min"] < 1 / RATIO_LIMIT)
        masks["ratio explosion"] = (far, f"a ratio beyond {RATIO_LIMIT:g} or below {1 / RATIO_LIMIT:g}")
    entropy = updates.get("entropy", np.array([]))
    # That of a continuous policy can be negative, and has no share.
    if len(entropy) and entropy[0] > 0 and (entropy >= 0).all():
        low = entropy < ENTROPY_SHARE * entropy[0]
        masks["entropy collapse"] = (low, f"entropy below {ENTROPY_SHARE:.0%} of the first update's")
    if "explained_variance" in updates:
        bad = updates["explained_variance"] < EXPLAINED_VARIANCE_LIMIT
        # A value function begins knowing nothing.
        bad[: len(bad) // 10] = False
        masks["value collapse"] = (bad, f"explained_variance below {EXPLAINED_VARIANCE_LIMIT:g} after the first tenth")
    if "value_loss" in updates:
        high = _far_above_before(updates["value_loss"])
        masks["value loss spike"] = (high, f"value_loss over {VALUE_LOSS_FACTOR:g} times the median before it")
    return masks


def _far_above_before(values: Any) -> Any:
    """Which of `values` are far above the median of the ones just before."""
    found = np.zeros(len(values), dtype=np.bool_)
    if len(values) > _WINDOW:
        before = np.lib.stride_tricks.sliding_window_view(values, _WINDOW)[:-1]
        found[_WINDOW:] = values[_WINDOW:] > VALUE_LOSS_FACTOR * np.median(before, axis=1)
    return found
