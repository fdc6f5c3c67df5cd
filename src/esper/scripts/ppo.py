"""Train a policy with PPO."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esper.runs.config import RunConfig
from esper.runs.folder import BEST, begin_again, named_again, resume_command
from esper.runs.layers import Settings, SettingsError, file_layer, placed
from esper.runs.presets import general_source
from esper.runs.resume.rules import MODES
from esper.scripts.flags import (
    STOPPED_BY,
    add_settings,
    add_sources,
    beyond_end,
    explain,
    fail,
    flag,
    flag_layer,
    given_layers,
    in_force,
    lengths_in_updates,
    log_to_stderr,
    say,
    settings_from,
)
from esper.scripts.output import lost_output
from esper.settings.options import flatten
from esper.settings.values import counted
from esper.simic.config import SCHEDULES
from esper.storage.trust import unnamed_import
from esper.system.shell import quoted

if TYPE_CHECKING:
    from esper.runs.run import RunResult
    from esper.telemetry.events import Sink

USAGE = "esper ppo [--env ID] [--lr X] [--lr-warmup-steps N] [--lr-decay NAME] [flags]"


def add_arguments(parser: argparse.ArgumentParser, *, help_all: bool) -> None:
    add_sources(parser)
    add_settings(parser, help_all=help_all)
    resume = parser.add_argument_group(
        "resume",
        "The settings are those of the checkpoint; those that affect learning cannot change. docs/resume.md lists "
        "what can change.",
    )
    resume.add_argument("--resume", type=Path, metavar="PATH", help="resume a run (its folder) or from one checkpoint")
    resume.add_argument(
        "--resume-schedule",
        default="continue",
        metavar="|".join(MODES),
        help="schedules: keep their horizon (default), extend it to the new --total-timesteps, or restart",
    )
    resume.add_argument("--fresh-episodes", action="store_true", help="begin new episodes on resume")
    resume.add_argument(
        "--trust", action="store_true", help="import all modules that a run's files name; without it, name them again"
    )
    parser.add_argument("--seeds", help=argparse.SUPPRESS)
    parser.add_argument("--print-config", action="store_true", help="print all settings, with their origins, as TOML")
    parser.add_argument("--help-all", action="help", help="show every flag, those of each component too")


def run(args: argparse.Namespace) -> int:
    if args.resume_schedule not in MODES:
        fail(f"--resume-schedule {args.resume_schedule}: must be one of {', '.join(MODES)}", "esper ppo")
    if args.resume is None and (args.resume_schedule != "continue" or args.fresh_episodes):
        given = "--fresh-episodes" if args.fresh_episodes else f"--resume-schedule {args.resume_schedule}"
        fail(f"{given}: needs --resume", "esper ppo")
    if args.seeds is not None:
        many = f"esper sweep --seeds {quoted(args.seeds)} --output FOLDER"
        fail(f"--seeds {args.seeds}: esper ppo trains one run; many:  {many}  with the other flags", "esper ppo")
    _check_named(args)
    if args.resume is not None:
        return resume(args)
    settings = settings_from(args)
    if args.print_config:
        print(render_config(settings))
        return 0
    return train(settings)


def _check_named(args: argparse.Namespace) -> None:
    """Refuse modules that only a run's config.json names: it may come from someone else, unlike other files."""
    if args.config is None or args.config.name != "config.json" or args.trust:
        return
    try:
        found = file_layer(args.config).values
    except SettingsError as error:
        fail(explain(error), "esper ppo")
    if reason := unnamed_import(found, flag_layer(args).values):
        fail(f"--config {args.config}: {reason}", "esper ppo")


def train(settings: Settings) -> int:
    from esper.runs.run import run as run_training

    config = settings.config
    with _failures(), placed(settings.origins):
        notices = list(beyond_end(in_force(config.ppo), settings.origins))
        if (source := general_source(settings.origins)) is not None:
            notices.append(f"settings of {source}; --print-config shows them, --preset none takes the defaults")
        result = run_training(config, sinks=_sinks(config, notices))
    return _conclude(config, result)


def resume(args: argparse.Namespace) -> int:
    """Resume a run; only flags and the file may change its settings."""
    from esper.runs.run import resume_run

    if args.preset != "auto" or args.print_config:
        given = "--print-config" if args.print_config else f"--preset {args.preset}"
        fail(f"{given}: does not go with --resume, which takes the settings of its run", "esper ppo")
    with _failures():
        config, result = resume_run(
            args.resume,
            given_layers(args),
            mode=args.resume_schedule,
            fresh_episodes=args.fresh_episodes,
            trust=args.trust,
            sinks=_sinks,
        )
    return _conclude(config, result)


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    """Turn errors of a run into messages and exit status: 2 for bad input, 1 for failures during the run."""
    from esper.runs.resume.point import ResumeError
    from esper.runs.run import RunError
    from esper.storage.store import StoreError

    try:
        yield
    except SettingsError as error:
        fail(explain(error), "esper ppo")
    except (StoreError, ResumeError) as error:
        fail(str(error), "esper ppo")
    except RunError as error:
        say(f"esper ppo: error: {error}", file=sys.stderr)
        raise SystemExit(1) from None


def _sinks(config: RunConfig, notices: Sequence[str] = ()) -> list[Sink]:
    """The sinks that show the run, with the notices from before its start."""
    log_to_stderr(quiet=config.quiet)
    from rich.console import Console

    from esper.telemetry.console import ConsoleSink

    return [ConsoleSink(Console(quiet=config.quiet), notices=notices, lost=lost_output)]


def _conclude(config: RunConfig, result: RunResult) -> int:
    """Print how the run ended; returns the exit status."""
    if not config.quiet:
        _summarize(config, result)
    if result.train.status == "diverged":
        say(
            f"esper ppo: error: {config.ppo.max_skipped_updates} updates in a row were undone, the last one for: "
            f"{result.cause}\ncheck the environment's observations and rewards, --lr, --max-grad-norm and "
            "--normalize-rewards; parameters are those before these updates",
            file=sys.stderr,
        )
        return 1
    return STOPPED_BY.get(result.cause or "", 0)


def render_config(settings: Settings) -> str:
    """All settings as TOML for --config; a comment names the origin of each value."""
    ppo, lines = settings.config.ppo, []
    lengths = {
        f"{prefix}_{name}": updates
        for prefix in SCHEDULES
        for name, updates in lengths_in_updates(getattr(ppo, prefix), ppo.batch_size).items()
    }
    for name, value in flatten(settings.config).items():
        origin = settings.origins.get(name)
        if value is None and origin is None:
            continue
        place = "default" if origin is None else origin.source
        if origin is not None and origin.source == "flag":
            place = f"flag {flag(origin.name)}"
        length = f", {lengths[name]} updates" if name in lengths else ""
        lines.append(f"{name} = {as_toml(value)}  # {place}{length}")
    return "\n".join(lines)


def as_toml(value: Any) -> str:
    """`value` as in a settings file."""
    if value is None:
        return '"none"'
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {as_toml(item)}" for key, item in value.items()) + " }"
    return repr(value) if isinstance(value, float) else json.dumps(value)


def _summarize(config: RunConfig, result: RunResult) -> None:
    minutes, seconds = divmod(round(result.seconds), 60)
    train, folder = result.train, result.run_dir
    done = train.status == "completed"
    how = ("finished" if done else "stopped") + (f" ({result.cause})" if result.cause else "")
    named = named_again(config)
    go_on = resume_command(folder, config) + (" --stop-at-return none" if done else "")

    undone = f" ({train.undone:,} of them undone)" if train.undone else ""
    print(
        f"\n{how} after {counted(train.updates, 'update')}{undone}, "
        f"{train.env_steps:,} env steps, {counted(train.episodes, 'episode')} in {minutes}:{seconds:02}"
    )
    for label, text in (
        ("picture", f"{folder / 'training.png'}" if (folder / "training.png").exists() else ""),
        ("record", f"{folder / 'events.jsonl'}, {folder / 'config.json'}"),
        ("policy", f"{folder / 'policy.safetensors'}, {folder / 'policy.json'}"),
        ("best", f"{folder / BEST}" if (folder / BEST).exists() else ""),
        ("go on", go_on if result.cause else ""),
        ("next", f"esper evaluate {quoted(folder)}{named}"),
        ("", begin_again(folder, config)),
        ("", f"tensorboard --logdir {quoted(folder)}" if (folder / "tensorboard").exists() else ""),
    ):
        if text:
            say(f"{label:8} {text}")
