"""Train a policy with PPO."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from esper.config import RunConfig
from esper.options import ConfigError, flatten
from esper.scripts.flags import INTERRUPTED, add_settings, explain, fail, flag, settings_from
from esper.settings import Settings, SettingsError

if TYPE_CHECKING:
    from rich.console import Console

    from esper.run import RunResult

USAGE = "esper ppo [--env ID] [--lr X] [--lr-warmup-steps N] [--lr-decay NAME] [flags]"


def add_arguments(parser: argparse.ArgumentParser, *, help_all: bool) -> None:
    add_settings(parser, help_all=help_all)
    parser.add_argument(
        "--print-config", action="store_true", help="print all settings, and where each is from, as TOML"
    )
    parser.add_argument("--help-all", action="help", help="show every flag, those of each component too")


def run(args: argparse.Namespace) -> int:
    settings = settings_from(args)
    if args.print_config:
        print(render_config(settings))
        return 0
    return train(settings)


def train(settings: Settings) -> int:
    from rich.console import Console

    from esper.run import run as run_training
    from esper.telemetry.console import ConsoleSink

    config = settings.config
    console = Console(quiet=config.quiet)
    try:
        result = run_training(config, sinks=[ConsoleSink(console)])
    except ConfigError as error:
        fail(explain(SettingsError(error, settings.origins.get(error.name))), "esper ppo")
    _summarize(console, config, result)
    return INTERRUPTED if result.train.stopped else 0


def render_config(settings: Settings) -> str:
    """All settings as TOML, which can be fed back; a comment names where each value is from."""
    lines = []
    for name, value in flatten(settings.config).items():
        origin = settings.origins.get(name)
        if value is None and origin is None:
            continue
        place = "default" if origin is None else origin.source
        if origin is not None and origin.source == "flag":
            place = f"flag {flag(origin.name)}"
        lines.append(f"{name} = {_toml(value)}  # {place}")
    return "\n".join(lines)


def _toml(value: Any) -> str:
    if value is None:
        return '"none"'
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + " }"
    return repr(value) if isinstance(value, float) else json.dumps(value)


def _summarize(console: Console, config: RunConfig, result: RunResult) -> None:
    minutes, seconds = divmod(round(result.seconds), 60)
    state = "stopped after" if result.train.stopped else "finished"
    console.print(
        f"\n{state} {result.train.updates:,} updates, {result.train.env_steps:,} env steps, "
        f"{result.train.episodes:,} episodes in {minutes}:{seconds:02}",
        highlight=False,
    )
    folder = result.run_dir
    for label, text in (
        ("picture", f"{folder / 'training.png'}"),
        ("record", f"{folder / 'events.jsonl'}, {folder / 'config.json'}"),
        ("policy", f"{folder / 'policy.safetensors'}, {folder / 'policy.json'}"),
        ("next", f"esper evaluate {folder}"),
        ("", f"esper ppo --config {folder / 'config.json'} --seed {config.seed + 1}"),
    ):
        console.print(f"{label:8} {text}", highlight=False, soft_wrap=True, markup=False)
