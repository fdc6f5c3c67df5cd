"""The updates of a long record as columns, read in batches: of each number eight bytes are kept, and nothing else."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esper.analysis.runs import Columns
from esper.telemetry.declared import always_numbers, wrong_field
from esper.telemetry.events import UpdateCompleted

_PHASE = "lr_phase/"
_NUMBERS = {int, float}


class ColumnsOfUpdates:
    """Gathers the columns `wanted`; a number that was not computed is NaN, a phase that is not there is empty."""

    def __init__(self, wanted: Callable[[str], bool]) -> None:
        self._wanted = wanted
        self._numbers: dict[str, array[float]] = {}
        self._phases: dict[str, list[str]] = {}
        self._interned: dict[str, str] = {}
        self._learning = False
        self.count = 0

    def add(self, updates: Sequence[Mapping[str, Any]]) -> dict[str, NDArray[np.float64]]:
        """Add events of one kind, completed updates or rounds; returns their numbers, also those that are not wanted.

        Raises:
            ValueError: naming a value that is no number.
        """
        self._learning |= updates[0]["event"] == "update_completed"
        found = {}
        for name, values in _by_name(updates).items():
            if name.startswith(_PHASE):
                _check(name, values, {str, type(None)}, updates)
                if self._wanted(name):
                    self._add_phases(name, values)
            elif name not in ("event", "time"):
                _check(name, values, _NUMBERS, updates)
                found[name] = np.array(values, dtype=float)
                if self._wanted(name):
                    column = self._numbers.setdefault(name, array("d", [np.nan]) * self.count)
                    column.frombytes(found[name].tobytes())
        self.count += len(updates)
        for column in self._numbers.values():
            column.extend([np.nan] * (self.count - len(column)))
        for phases in self._phases.values():
            phases += [""] * (self.count - len(phases))
        return found

    def columns(self) -> Columns:
        """The columns, which share their memory with this object."""
        found: dict[str, Any] = {name: np.frombuffer(column) for name, column in self._numbers.items()}
        # A number that was finite in no update is missing from all.
        for name in always_numbers(UpdateCompleted):
            if self._learning and name not in found and self._wanted(name):
                found[name] = np.full(self.count, np.nan)
        return found | {name: np.array(phases, dtype=object) for name, phases in self._phases.items()}

    def _add_phases(self, name: str, values: Sequence[str | None]) -> None:
        phases = self._phases.setdefault(name, [""] * self.count)
        # Each string is there once: JSON gives a new one for each update.
        phases += [self._interned.setdefault(value or "", value or "") for value in values]


def _by_name(updates: Sequence[Mapping[str, Any]]) -> dict[str, Sequence[Any]]:
    """The values of each field; of one that an update lacks NaN, or None for a phase."""
    names = set(map(tuple, updates))
    if len(names) == 1:
        # Several times as fast, and most records are of this kind.
        return dict(zip(names.pop(), zip(*(event.values() for event in updates), strict=True), strict=True))
    return {
        name: [event.get(name, None if name.startswith(_PHASE) else np.nan) for event in updates]
        for name in dict.fromkeys(name for each in names for name in each)
    }


def _check(name: str, values: Sequence[Any], kinds: set[type], updates: Sequence[Mapping[str, Any]]) -> None:
    if not kinds.issuperset(map(type, values)):
        wrong = next(index for index, value in enumerate(values) if type(value) not in kinds)
        kind = "text" if str in kinds else "a number"
        raise ValueError(wrong_field(updates[wrong]) or f"its {name:.60} is {values[wrong]!r:.40}, not {kind}")
