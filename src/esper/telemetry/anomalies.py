"""Detects updates at which something went wrong, during the run or later from the record."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# A ratio beyond this, or below its inverse, is far outside of clipping at 0.2.
RATIO_LIMIT = 10.0
# Entropy below this share of the initial one: the policy has stopped exploring.
ENTROPY_SHARE = 0.01
# This much worse than predicting the mean: the value function has collapsed.
EXPLAINED_VARIANCE_LIMIT = -1.0
# A new value function predicts nothing: it is not judged in this first share of the updates.
LEARNING_SHARE = 0.1
# The factor by which a loss exceeds the median of the updates before it.
VALUE_LOSS_FACTOR = 100.0
_WINDOW = 50
_JUDGED = ("ratio_max", "ratio_min", "entropy", "explained_variance", "value_loss")

# What each kind is. An update that is not finite says itself what was wrong with it.
KINDS = {
    "ratio_explosion": f"a ratio beyond {RATIO_LIMIT:g} or below {1 / RATIO_LIMIT:g}",
    "entropy_collapse": f"entropy below {ENTROPY_SHARE:.0%} of the first update's",
    "value_collapse": f"explained_variance below {EXPLAINED_VARIANCE_LIMIT:g} after the first {LEARNING_SHARE:.0%}",
    "value_loss_spike": f"value_loss over {VALUE_LOSS_FACTOR:g} times the median of the {_WINDOW} updates before",
    "non_finite": "an update was undone because something was not a finite number",
}


class Anomaly(NamedTuple):
    """What is wrong at an update: its kind, the value, and a description."""

    kind: str
    value: float | None
    says: str


class AnomalyDetector:
    """Reads the records of a run in order."""

    def __init__(self) -> None:
        self._total_updates = 0
        self._first_entropy: float | None = None
        self._value_losses: deque[float] = deque(maxlen=_WINDOW)

    def see(self, record: Mapping[str, Any]) -> list[Anomaly]:
        """The anomalies of the update in `record`; other records only set the reference."""
        match record["event"]:
            case "run_started" | "run_resumed":
                self._total_updates = record["total_updates"]
            case "update_skipped" if record.get("non_finite"):
                return [Anomaly("non_finite", None, str(record["cause"]))]
            case "update_completed":
                return list(self._judge(record))
        return []

    def skim(self, columns: Mapping[str, NDArray[np.float64]]) -> bool:
        """Take several completed updates in a row, as `columns`, if none of them can have an anomaly.

        Returns whether it took them; if not they are to be seen one by one.
        """
        if self._first_entropy is None:
            return False
        known = {name: column[np.isfinite(column)] for name, column in columns.items() if name in _JUDGED}
        none = np.empty(0)
        entropy, losses = known.get("entropy", none), known.get("value_loss", none)
        if (
            known.get("ratio_max", none).max(initial=1.0) > RATIO_LIMIT
            or known.get("ratio_min", none).min(initial=1.0) < 1 / RATIO_LIMIT
            or known.get("explained_variance", none).min(initial=1.0) < EXPLAINED_VARIANCE_LIMIT
            or ((entropy >= 0) & (entropy < ENTROPY_SHARE * self._first_entropy)).any()
        ):
            return False
        lowest = min([*self._value_losses, losses.min(initial=np.inf)])
        if losses.max(initial=-np.inf) > VALUE_LOSS_FACTOR * lowest:
            return False
        self._value_losses.extend(losses[-_WINDOW:].tolist())
        return True

    def _judge(self, update: Mapping[str, Any]) -> Iterator[Anomaly]:
        low, high = update.get("ratio_min", 1.0), update.get("ratio_max", 1.0)
        if high > RATIO_LIMIT or low < 1 / RATIO_LIMIT:
            yield _anomaly("ratio_explosion", high if high > RATIO_LIMIT else low)
        entropy = update.get("entropy")
        if self._first_entropy is None:
            self._first_entropy = entropy
        # Entropy of a continuous policy can be negative, so a share has no meaning.
        if entropy is not None and self._first_entropy and 0 <= entropy < ENTROPY_SHARE * self._first_entropy:
            yield _anomaly("entropy_collapse", entropy)
        explained = update.get("explained_variance", 1.0)
        if explained < EXPLAINED_VARIANCE_LIMIT and update["update"] >= LEARNING_SHARE * self._total_updates:
            yield _anomaly("value_collapse", explained)
        loss, before = update.get("value_loss"), self._value_losses
        if loss is None:
            return
        # The lowest is quickly found, and not above the median.
        judged = len(before) == _WINDOW and loss > VALUE_LOSS_FACTOR * min(before)
        if judged and loss > VALUE_LOSS_FACTOR * statistics.median(before):
            yield _anomaly("value_loss_spike", loss)
        before.append(loss)


def _anomaly(kind: str, value: float) -> Anomaly:
    return Anomaly(kind, value, KINDS[kind])
