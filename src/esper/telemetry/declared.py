"""Checks records against the declaration of the events."""

from __future__ import annotations

import dataclasses
import functools
import operator
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from esper.telemetry import events
from esper.telemetry.events import Event
from esper.telemetry.metrics import GROUPS
from esper.telemetry.records import event_name, is_flat

_Check: TypeAlias = Callable[[Any], bool]
_LARGEST_INTEGER = 2**63
# A seed has no bound; it is not computed with.
_UNBOUNDED = ("seed", "env_seed")
# In schema 2 an update that was undone had the same index as the one after it.
_READABLE_SCHEMAS = (2, 3)
# Fields that records of schema 2, which are still readable, lack.
_ADDED = ("updates_undone",)


class _Declared(NamedTuple):
    """The checks of an event: by field, for mappings by prefix, and the required fields.

    `simple` are the types that are right whatever the value: a fast path, as a record has millions of values.
    """

    names: Mapping[str, tuple[_Check, str]]
    beginnings: Mapping[str, tuple[_Check, str]]
    required: Sequence[str]
    simple: Mapping[str, type]


def wrong_field(record: Mapping[str, Any]) -> str | None:
    """The first field of `record` whose type is not the declared one, as a message; None if all fit.

    Unknown events and fields pass: a newer version may have them.
    """
    kinds = _declarations()
    if record["event"] not in kinds:
        return None
    names, beginnings, _, simple = kinds[record["event"]]
    for name, value in record.items():
        if type(value) is simple.get(name):
            continue
        declared = names.get(name) or beginnings.get(name.partition("/")[0])
        if declared is not None and not declared[0](value):
            return f"its {name:.60} is {value!r:.40}, not {declared[1]}"
    return None


def missing_field(record: Mapping[str, Any]) -> str | None:
    """A required field that `record` lacks; None if it lacks none."""
    declared = _declarations().get(record["event"])
    return next((name for name in declared.required if name not in record), None) if declared else None


def unreadable_schema(record: Mapping[str, Any]) -> str | None:
    """Why a record that begins or goes on is of no schema that can be read; None for every other record."""
    # Records of version 1 do not say so.
    if record["event"] not in ("run_started", "run_resumed") or record.get("schema", 1) in _READABLE_SCHEMAS:
        return None
    readable = " and ".join(map(str, _READABLE_SCHEMAS))
    return f"its {record['event']} has schema {record.get('schema', 1)}; schemas {readable} are read"


def always_numbers(event: type) -> list[str]:
    """The numeric fields of `event`, which are left out only if they are not finite."""
    hints = typing.get_type_hints(event, vars(events))
    return [field.name for field in dataclasses.fields(event) if hints[field.name] in (int, float)]


def whole_numbers(event: type) -> list[str]:
    """The fields of `event` that are whole numbers, where they are there."""
    hints = typing.get_type_hints(event, vars(events))
    return [field.name for field in dataclasses.fields(event) if without_none(hints[field.name]) is int]


def _declared(event: type) -> _Declared:
    hints = typing.get_type_hints(event, vars(events))
    names, beginnings, required = {"event": _check_of(str), "time": _check_of(float)}, {}, []
    simple: dict[str, type] = {"event": str, "time": float}
    for field in dataclasses.fields(event):
        # None is left out.
        kind = without_none(hints[field.name])
        if is_flat(event) and typing.get_origin(kind) is Mapping:
            value = typing.get_args(kind)[1]
            beginnings[field.name] = _check_of(value)
            simple |= {f"{field.name}/{group}": value for group in GROUPS if value in (float, str)}
            continue
        if kind in (float, str, bool):
            simple[field.name] = kind
        names[field.name] = (_is_seed, "a whole number") if field.name in _UNBOUNDED else _check_of(kind)
        # As in the schema: numbers that are not finite are left out.
        kind = hints[field.name]
        always = kind in (int, str, bool) or typing.get_origin(kind) in (Literal, Mapping, Sequence)
        if always and field.name not in (*_ADDED, "schema"):
            required.append(field.name)
    return _Declared(names, beginnings, required, simple)


def _check_of(kind: Any) -> tuple[_Check, str]:
    """A check that a value is of type `kind`, and the name of the type."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is int:
        return _is_integer, "a whole number"
    if kind is float:
        return lambda value: type(value) is float or _is_integer(value), "a number"
    if kind in (str, bool):
        return lambda value: type(value) is kind, {str: "text", bool: "true or false"}[kind]
    if kind is types.NoneType:
        return lambda value: value is None, "null"
    if origin is Literal:
        return lambda value: type(value) is str and value in arguments, f"one of {', '.join(arguments)}"
    if origin is Mapping:
        check, words = _check_of(arguments[1])
        return lambda value: type(value) is dict and all(map(check, value.values())), f"a mapping, each {words}"
    if origin is Sequence:
        check, words = _check_of(arguments[0])
        return lambda value: type(value) is list and all(map(check, value)), f"a list, each {words}"
    if kind is Any:
        return lambda value: True, "anything"
    checks, alternatives = zip(*map(_check_of, arguments), strict=True)
    return lambda value: any(check(value) for check in checks), " or ".join(alternatives)


def without_none(kind: Any) -> Any:
    """Type `kind` without None among its alternatives."""
    if typing.get_origin(kind) not in (types.UnionType, typing.Union):
        return kind
    return functools.reduce(operator.or_, (each for each in typing.get_args(kind) if each is not types.NoneType))


def _is_seed(value: Any) -> bool:
    return type(value) is int


def _is_integer(value: Any) -> bool:
    return type(value) is int and -_LARGEST_INTEGER <= value < _LARGEST_INTEGER


@functools.cache
def _declarations() -> Mapping[str, _Declared]:
    return {event_name(event): _declared(event) for event in typing.get_args(Event)}
