"""Events as records: the names and values of a line of `events.jsonl`."""

from __future__ import annotations

import dataclasses
import re
from functools import cache
from math import isfinite
from typing import Any

from esper.telemetry.events import Event
from esper.telemetry.rounds import Flat


@cache
def event_name(kind: type) -> str:
    """`update_completed` for `UpdateCompleted`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


@cache
def is_flat(kind: type) -> bool:
    """Whether a record of event `kind` has a name for each item of a mapping, as `lr/policy`."""
    return issubclass(kind, Flat)


def to_record(event: Event) -> dict[str, Any]:
    """`event` as one flat JSON object: mappings by group become `lr/policy`; None and non-finite are left out."""
    kind: type = type(event)
    record: dict[str, Any] = {"event": event_name(kind)}
    flat = is_flat(kind)
    for name in _field_names(kind):
        value = getattr(event, name)
        if flat and isinstance(value, dict):
            for key, item in value.items():
                if item is not None and (type(item) is not float or isfinite(item)):
                    record[f"{name}/{key}"] = item
        elif value is not None and (type(value) is not float or isfinite(value)):
            record[name] = value
    return record


@cache
def _field_names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))
