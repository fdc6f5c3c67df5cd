"""Settings declared once, as fields of frozen dataclasses.

`option` declares a setting with its help text and bounds; `check_options` enforces the bounds; `flatten` and
`unflatten` turn a composed config into the flat names that flags, config files and `config.json` share. Standard
library only, so `--help` answers at once.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar, cast

from esper.settings.values import Bounds as Bounds
from esper.settings.values import ConfigError as ConfigError
from esper.settings.values import coerce, parse
from esper.settings.values import nearest as nearest

T = TypeVar("T")
# Whether a run that goes on may have another value: schedules may where they get a new horizon.
MayChange: TypeAlias = Literal["never", "with a new horizon", "always"]


def option(
    default: Any,
    help: str,
    *,
    bounds: Bounds | None = None,
    group: str | None = None,
    recorded: bool = True,
    derived_from: str | None = None,
    may_change: MayChange | None = None,
    before: Any = None,
) -> Any:
    """A dataclass field that is a user's setting.

    `recorded=False` keeps it out of `config.json`: it says how this one run is shown or stored, not what is trained.
    Where the field `derived_from` is given and this one is not, it is None, and its class derives it. `may_change` is
    that of its section, or "never", where it is not given. `before` is what a record without it means, where that is
    not the default: what runs did before there was the setting.
    """
    metadata = {
        "help": help,
        "bounds": bounds,
        "group": group,
        "recorded": recorded,
        "derived_from": derived_from,
        "may_change": may_change,
        "before": before,
    }
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def section(
    default: Any,
    *,
    help: str | None = None,
    group: str | None = None,
    may_change: MayChange | None = None,
    common: str | None = None,
) -> Any:
    """A dataclass field that holds a nested config; `help` is for the setting that takes the field's bare name.

    Sections with the same name `common` can be set together, by it and its endings: `lr` for `policy_lr`, `value_lr`.
    """
    metadata = {"help_of_bare_name": help, "group": group, "may_change": may_change, "common": common}
    return dataclasses.field(default=default, metadata=metadata)


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
    """One flat setting of a composed config: its name, where it lives (in a `section`), what it takes."""

    name: str
    path: tuple[str, ...]
    section: type
    type: Any
    default: Any
    help: str
    group: str
    recorded: bool
    may_change: MayChange
    before: Any
    common: str | None
    derived_from: str | None
    flag: bool

    @property
    def prefix(self) -> str:
        """The field that holds its section, whose name the names in that section begin with."""
        return self.path[-2] if len(self.path) > 1 else ""

    @property
    def decides_nothing(self) -> bool:
        """Whether it changes neither what is learned nor for how long: the length of a run may change, and decides."""
        return self.may_change == "always" and self.name != "total_timesteps"


@dataclass(frozen=True)
class Alias:
    """Another name, as an older one, for the setting `of`, which is not alone: `beside` are others, where there is one.

    A section declares them, by name, as its class attribute `aliases`.
    """

    of: str
    beside: Mapping[str, Any]
    help: str

    def values(self, value: Any) -> dict[str, Any]:
        """The settings that `value` stands for."""
        return {**(dict.fromkeys(self.beside) if value in (None, "none") else self.beside), self.of: value}


def aliases_of(settings: Mapping[str, Setting]) -> dict[str, Alias]:
    """The other names for `settings`."""
    sections = dict.fromkeys(setting.section for setting in settings.values())
    return {name: alias for section in sections for name, alias in getattr(section, "aliases", {}).items()}


class Merging:
    """What the class of a section says of its fields where layers of settings are merged.

    `apart` are the fields that common names do not set. `needs_others` is the field whose value decides which others
    are needed; `superfluous` says why a common value is an error where no section is left that uses it.
    """

    apart: ClassVar[tuple[str, ...]] = ()
    needs_others: ClassVar[str]
    superfluous: ClassVar[str]

    @classmethod
    def superseded(cls, weaker: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
        """Fields of `weaker` settings that the stronger ones `given` replace by another way of saying the same."""
        raise NotImplementedError

    @classmethod
    def without_default(cls, given: Mapping[str, Any]) -> tuple[str, ...]:
        """Fields whose default does not hold beside the fields that are `given`: they are None."""
        return ()

    @classmethod
    def derived(cls, source: Any) -> Any:
        """The value of the field that is `derived_from` another one, from that one's value; None where it has none."""
        raise NotImplementedError


def settings_of(config_type: type) -> Mapping[str, Setting]:
    """Every flat setting below dataclass `config_type`, by name.

    A nested dataclass adds its fields under their own names; if it has the class attribute `prefixed_by` (the field
    that takes the bare name), they are prefixed with the name of the field that holds it: the field `policy_lr`
    gives `policy_lr` and `policy_lr_decay`.
    """
    return _settings(config_type)


def _walk(config: Any, path: tuple[str, ...], given: Mapping[str, Any]) -> Iterator[Setting]:
    """The settings of `config`; its section was `given` a group and the like."""
    hints = _type_hints(type(config))
    group = getattr(config, "group", given["group"])
    bare_name, apart = getattr(config, "prefixed_by", None), getattr(config, "apart", ())
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            inner = {**field.metadata, "group": field.metadata["group"] or group}
            yield from _walk(value, (*path, field.name), inner)
        elif "help" in field.metadata:
            source = field.metadata["derived_from"]
            ending = _flat_name(config, path, field.name).removeprefix(path[-1]) if path else ""
            yield Setting(
                name=_flat_name(config, path, field.name),
                path=(*path, field.name),
                section=type(config),
                type=hints[field.name],
                default=value,
                help=(given["help_of_bare_name"] if field.name == bare_name else None) or field.metadata["help"],
                group=field.metadata["group"] or group,
                recorded=field.metadata["recorded"],
                may_change=field.metadata["may_change"] or given["may_change"] or "never",
                before=field.metadata["before"],
                flag=getattr(config, "flags", True),
                common=given["common"] + ending if given["common"] and field.name not in apart else None,
                derived_from=None if source is None else _flat_name(config, path, source),
            )


def _flat_name(config: Any, path: tuple[str, ...], field: str) -> str:
    bare = getattr(config, "prefixed_by", None)
    if bare is None:
        return field
    return path[-1] if field == bare else f"{path[-1]}_{field}"


def complete(values: Mapping[str, Any], settings: Mapping[str, Setting]) -> dict[str, Any]:
    """Recorded `values`, which may be of an older version, with what those of `settings` meant that came later."""
    later = {name: setting.before for name, setting in settings.items() if setting.before is not None}
    aliases = aliases_of(settings)
    older = [aliases[name].values(value) for name, value in values.items() if name in aliases]
    return functools.reduce(dict.__or__, older, later) | {n: v for n, v in values.items() if n not in aliases}


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
    given = {field.name: values.get(_flat_name(default, path, field.name)) for field in dataclasses.fields(default)}
    without = default.without_default(given) if isinstance(default, Merging) else ()
    for field in dataclasses.fields(default):
        value = getattr(default, field.name)
        if dataclasses.is_dataclass(value):
            arguments[field.name] = _build(value, (*path, field.name), values)
        elif "help" in field.metadata:
            value = None if field.name in without else value
            arguments[field.name] = values.get(_flat_name(default, path, field.name), value)
    try:
        return type(default)(**arguments)
    except ConfigError as error:
        is_field = error.name in arguments
        name = _flat_name(default, path, error.name) if is_field else error.name
        raise ConfigError(name, error.value, error.allowed) from None


_ROOT: Mapping[str, Any] = {"group": "", "help_of_bare_name": None, "may_change": None, "common": None}


def _collect_settings(config_type: type) -> Mapping[str, Setting]:
    return {setting.name: setting for setting in _walk(config_type(), (), _ROOT)}


_type_hints: Callable[[type], dict[str, Any]] = functools.cache(typing.get_type_hints)
_settings: Callable[[type], Mapping[str, Setting]] = functools.cache(_collect_settings)
