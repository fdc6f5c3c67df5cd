"""Flags made from the declaration of the settings, and the settings made from the flags."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO

from esper.envs.config import MAX_EPISODE_STEPS, TIME_LIMIT, EnvConfig
from esper.policies.movies import check_movie
from esper.runs.config import RunConfig
from esper.runs.layers import Layer, Origin, Settings, SettingsError, file_layer, resolve
from esper.runs.presets import with_preset
from esper.schedules import SWITCH, Function, ScheduleConfig, schedules_enabled
from esper.schedules.shape import in_updates
from esper.settings.counterparts import suggestion
from esper.settings.layers import common_names, origin_of
from esper.settings.options import Bounds, ConfigError, Setting, aliases_of, settings_of
from esper.settings.values import coerce, format_value, nearest, parse
from esper.simic.config import SCHEDULES, PPOConfig
from esper.storage import files

# Learning rates come early: they are this trainer's main feature.
_FIRST_GROUPS = ("environment", "learning rates")
_NOTES = {
    "learning rates": "--lr and --lr-* set both components; --policy-lr-* and --value-lr-* set one of them, with the "
    "same endings, as --value-lr-decay. An update is one rollout and its optimisation. Without flags: constant.",
    "loss coefficients": "--clip-coef-* and --entropy-coef-* take the same endings as --lr-*, as --entropy-coef-decay.",
}


# The exit status that a shell reports for a program ended by a signal.
STOPPED_BY = {"SIGHUP": 129, "SIGINT": 130, "SIGPIPE": 141, "SIGTERM": 143}


class Parser(argparse.ArgumentParser):
    """Errors in one line, with the nearest flag, and exit status 2."""

    def error(self, message: str) -> NoReturn:
        fail(message, self.prog)

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        # By itself argparse says of `--lr-points -1:3` no more than that a value is missing.
        return super().parse_known_args(self._joined(sys.argv[1:] if args is None else args), namespace)

    def _joined(self, given: Sequence[str]) -> list[str]:
        """`given`, with a value that begins with a dash, and is no flag, joined to its flag by "="."""
        joined: list[str] = []
        for text in given:
            before = self._option_string_actions.get(joined[-1]) if joined else None
            is_value = text.startswith("-") and not text.startswith("--") and text not in self._option_string_actions
            if is_value and before is not None and before.nargs is None and text != "-":
                joined[-1] += f"={text}"
            else:
                joined.append(text)
        return joined


class _Printable(logging.Formatter):
    """Formats messages as `say` does."""

    def format(self, record: logging.LogRecord) -> str:
        return files.printable(record.getMessage())


def log_to_stderr(*, quiet: bool) -> None:
    """Show log messages; `quiet`, only warnings and errors."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Printable())
    logging.basicConfig(handlers=[handler])
    logging.getLogger("esper").setLevel(logging.WARNING if quiet else logging.INFO)


def say(text: str, file: TextIO | None = None) -> None:
    """Print `text` without control characters: it may have names from files of someone else."""
    print(files.printable(text), file=file)


def fail(message: str, prog: str, *, status: int = 2) -> NoReturn:
    """Print an error, and end the program with `status`."""
    say(f"{prog}: error: {message}", file=sys.stderr)
    raise SystemExit(status)


def number(name: str, text: str, kind: type, bounds: Bounds, prog: str) -> Any:
    """The value of flag `name`, an `int` or a `float` within `bounds`; otherwise a message and exit status 2."""
    try:
        value = coerce(name, text, kind)
    except ConfigError as error:
        fail(f"{name} {text}: {error.allowed}", prog)
    if not bounds.contain(value):
        fail(f"{name} {text}: {bounds}", prog)
    return value


def add_sources(parser: argparse.ArgumentParser) -> None:
    """Add the flags that choose a preset or a file of settings."""
    sources = parser.add_argument_group("where settings come from", "A flag beats the file, the file the preset.")
    sources.add_argument("--config", type=Path, metavar="FILE", help="TOML or JSON file of settings, as a config.json")
    sources.add_argument(
        "--preset", default="auto", metavar="NAME", help="auto (by environment or kind of task), none, or a name"
    )


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add the flags that permit to import modules that a policy's files name."""
    trust = parser.add_argument_group(
        "modules", "A policy may come from someone else: name again here what it would import."
    )
    trust.add_argument("--env", metavar="module:ID", help="its environment, if a module registers it")
    trust.add_argument("--encoder", metavar="module:callable", help="its encoder, if it is from a module")
    trust.add_argument("--trust", action="store_true", help="import every module that its files name")


def add_time_limit(parser: argparse.ArgumentParser) -> None:
    """Add the flag that sets a time limit."""
    text = f"steps after which an episode is truncated (default: as in training, or else {MAX_EPISODE_STEPS:,})"
    parser.add_argument("--max-episode-steps", metavar="N", help=text)


def time_limit(args: argparse.Namespace, prog: str) -> int | None:
    """The value of the flag."""
    given = args.max_episode_steps
    return None if given is None else int(number("--max-episode-steps", given, int, TIME_LIMIT, prog))


def check_made_by_id(environment: EnvConfig, call: str, args: argparse.Namespace, prog: str) -> None:
    """Refuse an environment that was passed from Python; `call` begins what takes it there."""
    if environment.was_given:
        there = f"policy = esper.load_policy({str(args.run)!r}); {call}, seed={args.seed}, env=...)"
        fail(f"env = {environment.env}: was passed from Python, and only Python can make it:  {there}", prog)


def trusted(args: argparse.Namespace) -> dict[str, Any]:
    """The values of these flags, as arguments of `load_policy`."""
    return {"env": args.env, "encoder": args.encoder, "trust": args.trust}


def add_settings(parser: argparse.ArgumentParser, *, help_all: bool, config: type = RunConfig) -> None:
    """Add a flag for every setting of `config`."""
    given = [setting.group for _, setting, _ in _flags(config)]
    titles = dict.fromkeys([*(title for title in _FIRST_GROUPS if title in given), *given])
    groups = {title: parser.add_argument_group(title, _NOTES.get(title)) for title in titles}
    for name, setting, hidden in _flags(config):
        _add_flag(groups[setting.group], name, setting, hidden=hidden and not help_all)


def names_taken(config: type) -> dict[str, tuple[str, ...]]:
    """For each setting of `config` that takes names, which, by the name of the setting."""
    taken = {name: _literals(setting.type) for name, setting, _ in _flags(config)}
    return {name: names for name, names in taken.items() if names}


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def settings_from(args: argparse.Namespace) -> Settings:
    """The settings from flags, file and preset; ends the program when they cannot be used."""
    try:
        return resolve(with_preset(args.preset, given_layers(args)))
    except SettingsError as error:
        fail(explain(error), f"esper {args.command}")


def given_layers(args: argparse.Namespace) -> list[Layer]:
    """The settings in the file and in the flags, the strongest last.

    Raises:
        SettingsError: for a file that cannot be read.
    """
    return [file_layer(args.config), flag_layer(args)] if args.config else [flag_layer(args)]


def flag_layer(args: argparse.Namespace, config: type = RunConfig) -> Layer:
    """The settings of `config` in the flags; ends the program when one cannot be read."""
    return Layer(source="flag", values=_flag_values(args, config))


def explain(error: SettingsError) -> str:
    """The error under the name that the user gave: the flag, or the name in the file or preset."""
    cause, origin = error.error, error.origin
    if cause.name == SWITCH:
        return f"{cause.name}={cause.value}: {cause.allowed}"
    value = "" if cause.value is None else format_value(cause.value)
    if origin is None or origin.source == "flag":
        return f"{flag(cause.name if origin is None else origin.name)} {value}".rstrip() + f": {cause.allowed}"
    return f"{origin.source}: {origin.name}" + (f" = {value}" if value else "") + f": {cause.allowed}"


def in_force(ppo: PPOConfig) -> PPOConfig:
    """`ppo`, with constant rates if the environment variable switches schedules off.

    Raises:
        ConfigError: for a value of the variable other than `on` and `off`.
    """
    return ppo if schedules_enabled() else ppo.without_lr_schedules()


def beyond_end(ppo: PPOConfig, origins: Mapping[str, Origin]) -> list[str]:
    """A line for each part of a schedule that the run ends too early to reach, by flag or name in a file."""
    lines = [
        _notice(f"{prefix}_{beyond.name}", beyond.value, beyond.says, origins)
        for prefix, schedule in ppo.make_schedules(ppo.total_updates).items()
        for beyond in schedule.beyond_end()
    ]
    if ppo.freeze_encoder >= ppo.total_updates:
        says = f"nothing that it freezes learns: the run ends with update {ppo.total_updates - 1}"
        lines.append(_notice("freeze_encoder", ppo.freeze_encoder, says, origins))
    # A common flag is named once for both components.
    return list(dict.fromkeys(lines))


def resolved_lengths(ppo: PPOConfig, origins: Mapping[str, Origin]) -> list[str]:
    """A line for each length that is given in environment steps, with what it is in updates."""
    lines = [
        _notice(f"{prefix}_{name}", getattr(getattr(ppo, prefix), name), f"{updates} updates", origins)
        for prefix in SCHEDULES
        for name, updates in lengths_in_updates(getattr(ppo, prefix), ppo.batch_size).items()
    ]
    return list(dict.fromkeys(lines))


def lengths_in_updates(schedule: ScheduleConfig, batch_size: int) -> dict[str, int]:
    """The lengths of `schedule` that are given in environment steps, in updates of `batch_size`."""
    given = {name: getattr(schedule, name) for name in ("warmup_timesteps", "decay_timesteps")}
    return {name: in_updates(name, steps, batch_size) for name, steps in given.items() if steps is not None}


def _notice(name: str, value: object, says: str, origins: Mapping[str, Origin]) -> str:
    """What is said of a setting, by the flag or the name in a file."""
    notice = ConfigError(name, value, says)
    return explain(SettingsError(notice, origin_of(notice, origins, settings_of(RunConfig))))


def _flags(config: type = RunConfig) -> Iterator[tuple[str, Setting, bool]]:
    """Name, setting and whether the short help omits it, in the order of the help."""
    settings = settings_of(config)
    for name, stands_for in common_names(settings).items():
        yield name, settings[stands_for[0]], False
    for name, setting in settings.items():
        # The delay of the policy stands for all delays, which have no common name.
        shown = name in (setting.prefix, "policy_lr_delay")
        detail = (issubclass(setting.section, ScheduleConfig) or setting.common is not None) and not shown
        if setting.flag:
            yield name, setting, detail
    for name, alias in aliases_of(settings).items():
        yield name, dataclasses.replace(settings[alias.of], help=alias.help), True


def _add_flag(group: Any, name: str, setting: Setting, *, hidden: bool) -> None:
    help_text = argparse.SUPPRESS if hidden else _help(name, setting)
    common: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS, "help": help_text}
    if setting.type is bool:
        group.add_argument(flag(name), action=argparse.BooleanOptionalAction, **common)
    else:
        group.add_argument(flag(name), metavar=_metavar(setting.type), **common)


def _help(name: str, setting: Setting) -> str:
    if setting.common is not None and name == setting.prefix:
        component = name.removesuffix("_lr")
        return f"{setting.help.split(':')[0]} of the {component} parameters (default: {flag(setting.common)})"
    text = setting.help.replace("%", "%%")
    if setting.default in (None, {}) or "default" in text:
        return text
    return f"{text} (default: {format_value(setting.default)})"


def _literals(kind: Any) -> tuple[str, ...]:
    """The names in `kind`, a Literal or a union with one."""
    parts = typing.get_args(kind)
    if typing.get_origin(kind) is typing.Literal:
        return tuple(map(str, parts))
    return tuple(name for part in parts for name in _literals(part))


def _metavar(kind: Any) -> str:
    choices = typing.get_args(kind)
    if typing.get_origin(kind) is typing.Literal:
        return "|".join(map(str, choices)) if len(choices) < 6 else "NAME"
    if any(typing.get_origin(each) is typing.Literal for each in choices) and Function in choices:
        return f"NAME|{Function.expects}"
    text = str(kind)
    if "tuple" in text:
        return "LIST"
    if "dict" in text:
        return "JSON"
    return "N" if "int" in text else "X" if "float" in text else "TEXT" if "Literal" not in text else "NAME"


def _flag_values(args: argparse.Namespace, config: type) -> dict[str, Any]:
    values = {}
    for name, setting, _ in _flags(config):
        if (given := getattr(args, name, None)) is not None:
            try:
                values[name] = parse(name, given, setting.type) if isinstance(given, str) else given
            except ConfigError as error:
                fail(f"{flag(name)} {given}: {error.allowed}", f"esper {args.command}")
    return values


def unknown_flags(unknown: list[str], parser: argparse.ArgumentParser) -> NoReturn:
    """End the program because of unknown arguments."""
    first = unknown[0].split("=")[0]
    known = [name for action in parser._actions for name in action.option_strings]
    hint = suggestion(first[2:].replace("-", "_"), known, flag) if first.startswith("--") else nearest(first, known)
    parser.error(f"unknown argument {first}{hint}")


def check_record(path: Path | None, prog: str, *others: str) -> None:
    """End the command where `--record` names what `check_movie` refuses, or a place that cannot be written."""
    try:
        if path is not None:
            check_movie("record", path, *others)
            files.check_named(path)
    except ConfigError as error:
        fail(f"--record {path}: {error.allowed}", prog)
    except OSError as error:
        fail(f"--record {path}: cannot be written: {files.why(error)}", prog)
