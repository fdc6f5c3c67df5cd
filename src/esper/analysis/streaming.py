"""The updates of a long record as columns, read in batches: of each number eight bytes are kept, and nothing else."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from struct import Struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esper.analysis.runs import Columns
from esper.telemetry.declared import always_numbers, wrong_field
from esper.telemetry.events import UpdateCompleted

_PHASE = "lr_phase/"
_NUMBERS = {int, float}
# What an update counts. A whole number of more than 64 bits is read as a float.
_WHOLE = ("update", "env_steps")


class ColumnsOfUpdates:
    """Gathers the columns `wanted`; a number that was not computed is NaN, a phase that is not there is empty."""

    def __init__(self, wanted: Callable[[str], bool]) -> None:
        self._wanted = wanted
        # In the order of the record: doubles, and of phases their places in the list of all, which is short.
        self._columns: dict[str, array[Any]] = {}
        self._places = {"": 0}
        self._learning = False
        self.count = 0

    def add(self, updates: Sequence[dict[str, Any]], fields: Sequence[str] | None) -> dict[str, NDArray[np.float64]]:
        """Add events of one kind, completed updates or rounds; returns their numbers, also those that are not wanted.

        `fields` are the `common_fields` of the events.

        Raises:
            ValueError: naming a value that is no number.
        """
        self._learning |= updates[0]["event"] == "update_completed"
        found, packed = {}, Struct(f"{len(updates)}d").pack
        for name, values in _by_name(updates, fields).items():
            if name.startswith(_PHASE):
                _check(name, values, {str, type(None)}, updates)
                if self._wanted(name):
                    places = [self._places.setdefault(value or "", len(self._places)) for value in values]
                    self._column(name, "I").extend(places)
            elif name != "event":
                _check(name, values, _NUMBERS, updates)
                if name in _WHOLE:
                    # One that is missing is NaN, and said elsewhere.
                    _check(name, [0 if value != value else value for value in values], {int}, updates)
                # The fastest way to make doubles of a tuple.
                numbers = packed(*values)
                found[name] = np.frombuffer(numbers)
                if self._wanted(name):
                    self._column(name, "d").frombytes(numbers)
        self.count += len(updates)
        for column in self._columns.values():
            if len(column) < self.count:
                column.extend(_missing(column.typecode, self.count - len(column)))
        return found

    def columns(self) -> Columns:
        """The columns, of which numbers share their memory with this object."""
        phases = np.array(list(self._places), dtype=object)
        found: dict[str, Any] = {
            name: np.frombuffer(column) if column.typecode == "d" else phases[np.frombuffer(column, dtype=np.uintc)]
            for name, column in self._columns.items()
        }
        # A number that was finite in no update is missing from all.
        for name in always_numbers(UpdateCompleted):
            if self._learning and name not in found and self._wanted(name):
                found[name] = np.full(self.count, np.nan)
        return found

    def _column(self, name: str, typecode: str) -> array[Any]:
        if name not in self._columns:
            self._columns[name] = _missing(typecode, self.count)
        return self._columns[name]


def _missing(typecode: str, count: int) -> array[Any]:
    return array(typecode, [np.nan if typecode == "d" else 0]) * count


def common_fields(events: Sequence[Mapping[str, Any]]) -> list[str] | None:
    """The names of the fields of `events`, if all have the same in the same order, as in most records."""
    fields = list(events[0])
    return fields if all(list(event) == fields for event in events) else None


def _by_name(updates: Sequence[dict[str, Any]], fields: Sequence[str] | None) -> dict[str, Sequence[Any]]:
    """The values of each field; of one that an update lacks NaN, or None for a phase."""
    if fields is not None:
        # Several times as fast.
        return dict(zip(fields, zip(*map(dict.values, updates), strict=True), strict=True))
    return {
        name: [event.get(name, None if name.startswith(_PHASE) else np.nan) for event in updates]
        for name in dict.fromkeys(name for event in updates for name in event)
    }


def _check(name: str, values: Sequence[Any], kinds: set[type], updates: Sequence[Mapping[str, Any]]) -> None:
    if not set(map(type, values)) <= kinds:
        wrong = next(index for index, value in enumerate(values) if type(value) not in kinds)
        kind = "text" if str in kinds else "a number"
        raise ValueError(wrong_field(updates[wrong]) or f"its {name:.60} is {values[wrong]!r:.40}, not {kind}")
