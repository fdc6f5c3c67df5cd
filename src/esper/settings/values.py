"""Values of settings: what each type takes, as text and as itself, and what is said of one that cannot be used."""

from __future__ import annotations

import contextlib
import difflib
import functools
import json
import math
import numbers
import operator
import sys
import types
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal


class ConfigError(ValueError):
    """A setting that cannot be used: its name, what was given, what is allowed."""

    def __init__(self, name: str, value: object, allowed: str) -> None:
        super().__init__(name, value, allowed)
        self.name, self.value, self.allowed = name, value, allowed

    def __str__(self) -> str:
        return f"{self.name} = {format_value(self.value)}: {self.allowed}"


class Convertible:
    """A kind of value that a setting can have beside those of the language; `expects` says what is written for it."""

    expects: ClassVar[str]

    @classmethod
    def convert(cls, value: Any) -> Any:
        """What a setting holds for `value`; None where it is nothing of this kind."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Numeric limits of a setting; `above` and `below` are exclusive."""

    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None

    def __str__(self) -> str:
        limits = (
            ("at least", self.minimum),
            ("greater than", self.above),
            ("at most", self.maximum),
            ("less than", self.below),
        )
        given = [f"{word} {limit:g}" for word, limit in limits if limit is not None]
        return "must be " + (" and ".join(given) or "finite")

    def contain(self, value: float) -> bool:
        return (
            -math.inf < value < math.inf  # not math.isfinite, which overflows on a huge int
            and (self.minimum is None or value >= self.minimum)
            and (self.above is None or value > self.above)
            and (self.maximum is None or value <= self.maximum)
            and (self.below is None or value < self.below)
        )


def spelled(value: object) -> Any:
    """`value`, or for a callable its name: `module:name` where that finds it, else in angle brackets."""
    if not callable(value):
        return value
    if isinstance(value, functools.partial):
        return _spelled_partial(value)
    named = value if hasattr(value, "__qualname__") else type(value)
    module, name = named.__module__, named.__qualname__
    there = module != "__main__" and getattr(sys.modules.get(module), name, None) is value
    return f"{module}:{name}" if there else f"<{module}.{name}>"


def _spelled_partial(value: functools.partial[Any]) -> str:
    """A partial has no name; without its function and arguments all would be called the same."""

    def shown(argument: Any) -> str:
        if callable(argument):
            return str(spelled(argument)).strip("<>")
        # Another object may show its address, which changes.
        return repr(argument) if isinstance(argument, str | int | float | tuple | None) else type(argument).__name__

    named = (f"{name}={shown(argument)}" for name, argument in value.keywords.items())
    inner = ", ".join([shown(value.func), *map(shown, value.args), *named])
    # A colon would be read as that of module:name.
    return f"<partial({inner})>".replace(":", ".")


def names_in(value: object) -> Any:
    """`value` as JSON, with the names of callables in place of these."""
    if isinstance(value, dict):
        return {name: names_in(each) for name, each in value.items()}
    return [names_in(each) for each in value] if isinstance(value, list | tuple) else spelled(value)


def nearest(name: str, candidates: Iterable[str]) -> str:
    """`"; did you mean 'x'?"`, or nothing when no candidate is close."""
    matches = difflib.get_close_matches(name, list(candidates), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(repr(match) for match in matches)}?" if matches else ""


def counted(count: int, noun: str) -> str:
    """`1 update`, `2,000 updates`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def format_value(value: object) -> str:
    """`value` as a user would type it."""
    if isinstance(value, tuple):
        return ",".join(
            ":".join(format_value(part) for part in item) if isinstance(item, tuple) else format_value(item)
            for item in value
        )
    if isinstance(value, dict):
        return json.dumps(value, default=str)
    if isinstance(value, float):
        return f"{value:.10g}"
    value = spelled(value)
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def parse(name: str, text: Any, expected: Any) -> Any:
    """As `coerce`, for what may be `text` in the form that it has on a command line."""
    if not isinstance(text, str):
        return coerce(name, text, expected)
    kind, optional = _strip_optional(expected)
    if optional and text.lower() == "none":
        return None
    if typing.get_origin(kind) is tuple:
        item = typing.get_args(kind)[0]
        parts = [part.strip() for part in text.split(",")] if text.strip() else []
        pairs = typing.get_origin(item) is tuple
        return coerce(name, [tuple(part.split(":")) for part in parts] if pairs else parts, expected)
    if kind is dict or typing.get_origin(kind) is dict:
        try:
            given = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(name, text, f"must be a JSON object ({error})") from None
        return coerce(name, given, expected)
    return coerce(name, text, expected)


def coerce(name: str, value: Any, expected: Any) -> Any:
    """`value` as type `expected`, if it means exactly that (`"1e6"` is an int, `0.5` is not).

    Raises:
        ConfigError: naming the value and what is allowed.
    """
    kind, optional = _strip_optional(expected)
    if value is None or (optional and value == "none"):
        if optional:
            return None
        raise ConfigError(name, value, f"must be {_describe(kind)}")
    converted = _convert(name, value, kind)
    if converted is None:
        raise ConfigError(name, value, f"must be {_describe(kind)}" + _nearest_choice(value, kind))
    return converted


def checked(name: str, value: Any, expected: Any, bounds: Bounds | None = None) -> Any:
    """The same for argument `name` of a call, which must be within `bounds`."""
    found = coerce(name, value, expected)
    if bounds is not None and not bounds.contain(found):
        raise ConfigError(name, found, str(bounds))
    return found


def as_path(name: str, value: Any) -> Path:
    """Argument `name` of a call, text or a path, as a path.

    Raises:
        ConfigError: for anything else.
    """
    return Path(checked(name, value, str | Path))


def _convert(name: str, value: Any, kind: Any) -> Any:
    """`value` as `kind`, or None when it is nothing of that kind."""
    origin = typing.get_origin(kind)
    if _is_union(kind):
        converted = (_convert(name, value, each) for each in typing.get_args(kind))
        return next((each for each in converted if each is not None), None)
    if origin is Literal:
        return value if value in typing.get_args(kind) else None
    if origin is tuple:
        return _convert_tuple(name, value, typing.get_args(kind))
    if kind is dict or origin is dict:
        return value if isinstance(value, dict) else None
    if isinstance(kind, type) and issubclass(kind, Convertible):
        return kind.convert(value)
    if origin is Callable:
        return value if callable(value) else None
    if kind is bool:
        return value if isinstance(value, bool) else {"true": True, "false": False}.get(str(value).lower())
    if kind is str:
        return value if isinstance(value, str) else None
    if kind is Path:  # kept as text, which a file of settings can have
        return str(value) if isinstance(value, Path) else None
    return _convert_number(value, kind)


def _convert_tuple(name: str, value: Any, items: tuple[Any, ...]) -> Any:
    if not isinstance(value, list | tuple):
        return None
    if len(items) == 2 and items[1] is Ellipsis:
        return tuple(coerce(name, item, items[0]) for item in value)
    if len(value) != len(items):
        return None
    return tuple(coerce(name, part, item) for part, item in zip(value, items, strict=True))


def _convert_number(value: Any, kind: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, numbers.Real | str):
        return None
    if kind is int and isinstance(value, numbers.Integral):
        return int(value)
    if kind is int and isinstance(value, str):
        # By way of float a long number would lose its last digits.
        with contextlib.suppress(ValueError):
            return int(value)
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    if kind is float:
        return number
    return int(number) if math.isfinite(number) and number == int(number) else None


def _strip_optional(expected: Any) -> tuple[Any, bool]:
    """`expected` without None, and whether None was in it."""
    if not _is_union(expected):
        return expected, False
    kinds = [kind for kind in typing.get_args(expected) if kind is not types.NoneType]
    return functools.reduce(operator.or_, kinds), types.NoneType in typing.get_args(expected)


def _is_union(kind: Any) -> bool:
    return typing.get_origin(kind) in (types.UnionType, typing.Union)


def _describe(kind: Any) -> str:
    origin = typing.get_origin(kind)
    if _is_union(kind):
        return " or ".join(map(_describe, typing.get_args(kind)))
    if origin is Literal:
        return "one of " + ", ".join(str(choice) for choice in typing.get_args(kind))
    if origin is tuple:
        item, *others = typing.get_args(kind)
        if others != [Ellipsis]:
            return "an update:rate pair, as 0:3e-4, or in a list [0, 3e-4]"
        return "update:rate pairs, as 0:3e-4,100:1e-4" if typing.get_origin(item) is tuple else "numbers, as 64,64"
    if kind is dict or origin is dict:
        return "a JSON object"
    if isinstance(kind, type) and issubclass(kind, Convertible):
        return kind.expects
    if origin is Callable:
        return "a callable"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}[kind]


def _nearest_choice(value: Any, kind: Any) -> str:
    kinds = typing.get_args(kind) if _is_union(kind) else (kind,)
    choices = [choice for each in kinds if typing.get_origin(each) is Literal for choice in typing.get_args(each)]
    return nearest(str(value), map(str, choices))
