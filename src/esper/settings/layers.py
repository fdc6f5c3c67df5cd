"""Settings from several places: defaults, a preset, a config file, flags. The later one wins, name by name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from esper.settings.counterparts import suggestion
from esper.settings.options import ConfigError, Merging, Setting, aliases_of, settings_of, unflatten
from esper.settings.values import parse

T = TypeVar("T")
_NONE = (None, "none")


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Settings from one place, by flat name, or by a common name: `lr` stands for `policy_lr` and `value_lr`."""

    source: str
    values: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a value came from: the layer, and the name it had there."""

    source: str
    name: str


@dataclass(frozen=True, kw_only=True)
class Settings(Generic[T]):
    """What all layers give together, and the origin of every value that is no default."""

    config: T
    origins: Mapping[str, Origin]


class SettingsError(Exception):
    """A `ConfigError` with the place the value came from."""

    def __init__(self, error: ConfigError, origin: Origin | None) -> None:
        super().__init__(str(error))
        self.error, self.origin = error, origin


def common_names(settings: Mapping[str, Setting]) -> dict[str, list[str]]:
    """The names that set several sections, each with those that it stands for: `lr_decay`, `policy_lr_decay`, ..."""
    found: dict[str, list[str]] = {}
    for name, setting in settings.items():
        if setting.common is not None:
            found.setdefault(setting.common, []).append(name)
    return found


def with_common_names(values: Mapping[str, Any], settings: Mapping[str, Setting]) -> dict[str, Any]:
    """`values`, with one name for what all its sections have the same of; bare names stay."""
    merged = dict(values)
    for common, (first, *others) in common_names(settings).items():
        if first != settings[first].prefix and all(merged[first] == merged[name] for name in others):
            merged[common] = merged.pop(first)
            for name in others:
                del merged[name]
    return merged


def resolve(config_type: type[T], layers: Sequence[Layer]) -> Settings[T]:
    """Merge `layers`, the strongest last.

    Raises:
        SettingsError: for an unknown name or a value that cannot be used.
    """
    settings = settings_of(config_type)
    values, origins = merge(settings, layers)
    with placed(origins, settings):
        return Settings(config=unflatten(config_type, values), origins=origins)


@contextlib.contextmanager
def placed(origins: Mapping[str, Origin], settings: Mapping[str, Setting]) -> Iterator[None]:
    """A `ConfigError` within becomes a `SettingsError`, with the place in `origins`."""
    try:
        yield
    except ConfigError as error:
        raise SettingsError(error, origin_of(error, origins, settings)) from None


def merge(settings: Mapping[str, Setting], layers: Sequence[Layer]) -> tuple[dict[str, Any], dict[str, Origin]]:
    """The values that `layers` give together, the strongest last, and where each is from.

    Raises:
        SettingsError: for an unknown name; for a common value that the same layer leaves no use for.
    """
    values: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    derived = {name: setting.derived_from for name, setting in settings.items() if setting.derived_from is not None}
    for layer in layers:
        # A section's own settings are stronger than those given for several, wherever they stand in the layer.
        for given in _common_and_own(layer, settings):
            before = {source: (values[source], origins[source]) for source in derived.values() if source in values}
            for name in _superseded(values, given, settings):
                values.pop(name, None)
                origins.pop(name, None)
            for name, (given_as, value) in given.items():
                values[name] = value
                origins[name] = Origin(source=layer.source, name=given_as)
            _keep_derived(before, values, origins, settings)
        _check_used(layer, origins, settings)
    for name, source in derived.items():
        if name not in values and values.get(source) is not None:
            origins[name] = origins[source]
    return values, origins


def _check_used(layer: Layer, origins: Mapping[str, Origin], settings: Mapping[str, Setting]) -> None:
    """Refuse a common value that can be derived in every section, and is used by none."""
    for common, names in common_names(settings).items():
        section = settings[names[0]].section
        if common in layer.values and settings[names[0]].derived_from is not None and issubclass(section, Merging):
            origin, left = Origin(source=layer.source, name=common), [origins.get(name) for name in names]
            if origin not in left and None in left:
                raise SettingsError(ConfigError(common, layer.values[common], section.superfluous), origin)


def _keep_derived(
    sources: Mapping[str, tuple[Any, Origin]],
    values: dict[str, Any],
    origins: dict[str, Origin],
    settings: Mapping[str, Setting],
) -> None:
    """Where one of `sources` is no longer in `values`, what is derived from it stays, unless it is given itself.

    Raises:
        SettingsError: for a source that cannot be read.
    """
    for name, setting in settings.items():
        source = setting.derived_from
        if source is not None and source in sources and values.get(source) in _NONE and name not in values:
            value, origin = sources[source]
            with placed({source: origin}, settings):
                read = parse(source, value, settings[source].type)
            derived = setting.section.derived(read) if issubclass(setting.section, Merging) else None
            if derived is not None:
                values[name], origins[name] = derived, origin


def origin_of(error: ConfigError, origins: Mapping[str, Origin], settings: Mapping[str, Setting]) -> Origin | None:
    """Where the setting that `error` names was given; for one that is missing, where it would be given.

    It is missing because of another one in its section: what came by `lr_decay` misses an `lr_step_size`.
    """
    origin, setting = origins.get(error.name), settings.get(error.name)
    if origin is not None or setting is None or not issubclass(setting.section, Merging):
        return origin
    ending = f"_{setting.section.needs_others}"
    cause = origins.get(setting.prefix + ending)
    if cause is None or error.name == setting.prefix:
        return None
    return Origin(source=cause.source, name=cause.name.removesuffix(ending) + error.name.removeprefix(setting.prefix))


_Given: TypeAlias = dict[str, tuple[str, Any]]


def _common_and_own(layer: Layer, settings: Mapping[str, Setting]) -> tuple[_Given, _Given]:
    """The layer's values by final name, each with the name it was given by: those for several sections, then the rest.

    Raises:
        SettingsError: for an unknown name; for an alias beside what it stands for.
    """
    common, aliases = common_names(settings), aliases_of(settings)
    shared: _Given = {}
    own: _Given = {}
    for name, value in layer.values.items():
        if name in common:
            shared.update(dict.fromkeys(common[name], (name, value)))
        elif name in settings:
            own[name] = (name, value)
        elif name in aliases:
            meant = aliases[name].values(value)
            if twice := [each for each in meant if each in layer.values]:
                error = ConfigError(name, value, f"is given beside {twice[0]}, which it sets; leave one of them out")
                raise SettingsError(error, Origin(source=layer.source, name=name))
            own.update({each: (name, of_each) for each, of_each in meant.items()})
        else:
            error = ConfigError(name, value, f"is no setting{suggestion(name, {*settings, *common, *aliases})}")
            raise SettingsError(error, Origin(source=layer.source, name=name))
    return shared, own


def _superseded(values: Mapping[str, Any], stronger: _Given, settings: Mapping[str, Setting]) -> list[str]:
    """Names in `values` that `stronger` replaces by another way of saying the same."""
    sections: dict[str, dict[str, str]] = {}
    for name, setting in settings.items():
        if issubclass(setting.section, Merging):
            sections.setdefault(setting.prefix, {})[setting.path[-1]] = name
    replaced = []
    for names in sections.values():
        weaker = {field: values[name] for field, name in names.items() if name in values}
        given = {field: stronger[name][1] for field, name in names.items() if name in stronger}
        given = {field: value for field, value in given.items() if value not in _NONE}
        section = settings[next(iter(names.values()))].section
        replaced += [names[field] for field in section.superseded(weaker, given)]  # type: ignore[attr-defined]
    return replaced
