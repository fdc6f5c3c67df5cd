"""The JSON Schema of a record's lines, made from the declaration of the events."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from esper.telemetry import events
from esper.telemetry.declared import without_none
from esper.telemetry.events import SCHEMA_VERSION, Event
from esper.telemetry.records import event_name, is_flat

_SIMPLE = {int: "integer", float: "number", str: "string", bool: "boolean"}


def json_schema() -> dict[str, Any]:
    """One of the events, without further fields."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"A line of events.jsonl, schema version {SCHEMA_VERSION}",
        "oneOf": [_schema_of(event) for event in typing.get_args(Event)],
    }


def _schema_of(event: type) -> dict[str, Any]:
    hints = typing.get_type_hints(event, vars(events))
    properties: dict[str, Any] = {"event": {"const": event_name(event)}, "time": _type(float)}
    patterns, required = {}, ["event", "time"]
    for field in dataclasses.fields(event):
        kind = hints[field.name]
        described = {"description": field.metadata["meaning"]} if field.metadata else {}
        if is_flat(event) and typing.get_origin(without_none(kind)) is Mapping:
            patterns[f"^{field.name}/"] = _type(typing.get_args(without_none(kind))[1]) | described
            continue
        properties[field.name] = _type(kind) | described
        # Numbers that are not finite are left out, too, and JSON has only finite ones.
        if kind in (int, str, bool) or typing.get_origin(kind) in (Literal, Mapping, Sequence):
            required.append(field.name)
    return {
        "title": event_name(event),
        "description": " ".join((event.__doc__ or "").split()),
        "type": "object",
        "properties": properties,
        **({"patternProperties": patterns} if patterns else {}),
        "required": required,
        "additionalProperties": False,
    }


def _type(kind: Any) -> dict[str, Any]:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind in _SIMPLE:
        return {"type": _SIMPLE[kind]}
    if kind is Any:
        return {}
    if kind is types.NoneType:
        return {"type": "null"}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is Mapping:
        return {"type": "object", "additionalProperties": _type(arguments[1])}
    if origin is Sequence:
        return {"type": "array", "items": _type(arguments[0])}
    return {"anyOf": [_type(each) for each in arguments]}
