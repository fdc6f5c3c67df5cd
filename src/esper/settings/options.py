"""Settings declared once, as fields of frozen dataclasses.

`option` declares a setting with its help text and bounds; `check_options` enforces the bounds; `flatten` and
`unflatten` turn a composed config into the flat names that flags, config files and `config.json` share. Standard
library only, so `--help` answers at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import json
import math
import numbers
import operator
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

T = TypeVar("T")


class ConfigError(ValueError):
    """A setting that cannot be used: its name, what was given, what is allowed."""

    def __init__(self, name: str, value: object, allowed: str) -> None:
        super().__init__(name, value, allowed)
        self.name, self.value, self.allowed = name, value, allowed

    def __str__(self) -> str:
        return f"{self.name} = {format_value(self.value)}: {self.allowed}"


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


def option(
    default: Any,
    help: str,
    *,
    bounds: Bounds | None = None,
    group: str | None = None,
    recorded: bool = True,
    derived_from: str | None = None,
) -> Any:
    """A dataclass field that is a user's setting.

    `recorded=False` keeps it out of `config.json`: it says how this one run is shown or stored, not what is trained.
    Where the field `derived_from` is given and this one is not, it is None, and its class derives it.
    """
    metadata = {"help": help, "bounds": bounds, "group": group, "recorded": recorded, "derived_from": derived_from}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def section(default: Any, *, help: str | None = None, group: str | None = None) -> Any:
    """A dataclass field that holds a nested config; `help` is for the setting that takes the field's bare name."""
    return dataclasses.field(default=default, metadata={"help_of_bare_name": help, "group": group})


def check_options(config: Any) -> None:
    """Hold frozen dataclass `config` to its declaration, and store lists as tuples and whole floats as ints.

    Raises:
        ConfigError: for the first field with a wrong type, choice or bound.
    """
    hints = _type_hints(type(config))
    for field in dataclasses.fields(config):
        if "help" not in field.metadata:
            continue
        given = getattr(config, field.name)
        value = coerce(field.name, given, hints[field.name])
        if isinstance(given, str) and not isinstance(value, str):
            raise ConfigError(field.name, given, "is text; give it as a value of its own type")
        object.__setattr__(config, field.name, value)
        bounds = field.metadata["bounds"]
        if bounds is not None and value is not None:
            for number in value if isinstance(value, tuple) else (value,):
                if not bounds.contain(number):
                    raise ConfigError(field.name, value, str(bounds))


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One flat setting of a composed config: its name, where it lives, what it takes."""

    name: str
    path: tuple[str, ...]
    type: Any
    default: Any
    help: str
    group: str
    recorded: bool


def settings_of(config_type: type) -> Mapping[str, Setting]:
    """Every flat setting below dataclass `config_type`, by name.

    A nested dataclass adds its fields under their own names; if it has the class attribute `prefixed_by` (the field
    that takes the bare name), they are prefixed with the name of the field that holds it: the field `policy_lr`
    gives `policy_lr` and `policy_lr_decay`.
    """
    return _settings(config_type)


def _walk(config: Any, path: tuple[str, ...], group: str, help_of_bare_name: str | None) -> Iterator[Setting]:
    hints = _type_hints(type(config))
    group = getattr(config, "group", group)
    bare_name = getattr(config, "prefixed_by", None)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            inner_group = field.metadata["group"] or group
            yield from _walk(value, (*path, field.name), inner_group, field.metadata["help_of_bare_name"])
        else:
            yield Setting(
                name=_flat_name(config, path, field.name),
                path=(*path, field.name),
                type=hints[field.name],
                default=value,
                help=(help_of_bare_name if field.name == bare_name else None) or field.metadata["help"],
                group=field.metadata["group"] or group,
                recorded=field.metadata["recorded"],
            )


def _flat_name(config: Any, path: tuple[str, ...], field: str) -> str:
    bare = getattr(config, "prefixed_by", None)
    if bare is None:
        return field
    return path[-1] if field == bare else f"{path[-1]}_{field}"


def flatten(config: Any) -> dict[str, Any]:
    """All settings of `config` by flat name."""
    return {
        name: functools.reduce(getattr, setting.path, config) for name, setting in settings_of(type(config)).items()
    }


def unflatten(config_type: type[T], values: Mapping[str, Any]) -> T:
    """Build `config_type` from flat `values`, each of its own type or as text; absent names take their defaults.

    Raises:
        ConfigError: naming the flat setting, for a wrong type, choice, bound or combination.
    """
    settings = settings_of(config_type)
    typed = {name: parse(name, value, settings[name].type) for name, value in values.items()}
    return cast(T, _build(config_type(), (), typed))


def _build(default: Any, path: tuple[str, ...], values: Mapping[str, Any]) -> Any:
    arguments = {}
    for field in dataclasses.fields(default):
        value = getattr(default, field.name)
        if dataclasses.is_dataclass(value):
            arguments[field.name] = _build(value, (*path, field.name), values)
        else:
            source = field.metadata["derived_from"]
            if source is not None and values.get(_flat_name(default, path, source)) is not None:
                value = None
            arguments[field.name] = values.get(_flat_name(default, path, field.name), value)
    try:
        return type(default)(**arguments)
    except ConfigError as error:
        is_field = error.name in arguments
        name = _flat_name(default, path, error.name) if is_field else error.name
        raise ConfigError(name, error.value, error.allowed) from None


def nearest(name: str, candidates: Iterable[str]) -> str:
    """`"; did you mean 'x'?"`, or nothing when no candidate is close."""
    matches = difflib.get_close_matches(name, list(candidates), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(repr(match) for match in matches)}?" if matches else ""


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
        parts = [part.strip() for part in text.split(",") if part.strip()]
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
    if kind is bool:
        return value if isinstance(value, bool) else {"true": True, "false": False}.get(str(value).lower())
    if kind is str:
        return value if isinstance(value, str) else None
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
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[kind]


def _nearest_choice(value: Any, kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return nearest(str(value), [str(choice) for choice in typing.get_args(kind)])
    return ""


def _collect_settings(config_type: type) -> Mapping[str, Setting]:
    return {setting.name: setting for setting in _walk(config_type(), (), "", None)}


_type_hints: Callable[[type], dict[str, Any]] = functools.cache(typing.get_type_hints)
_settings: Callable[[type], Mapping[str, Setting]] = functools.cache(_collect_settings)
