"""List the tuned settings that come with Esper, or show one preset as a settings file."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from esper.runs.config import RunConfig
from esper.runs.layers import Layer, resolve
from esper.runs.presets import find_preset, load_presets, preset_values
from esper.scripts.flags import fail
from esper.scripts.ppo import as_toml
from esper.settings.options import flatten, nearest

USAGE = "esper presets [NAME]"


def add_arguments(parser: argparse.ArgumentParser, *, help_all: bool) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="show this preset, as TOML for --config")


def run(args: argparse.Namespace) -> int:
    presets = load_presets()
    if args.name is None:
        print("\n".join(_table(presets)))
    elif find_preset(args.name) is not None:
        print("\n".join(f"{name} = {as_toml(value)}" for name, value in preset_values(args.name).items()))
    else:
        fail(f"{args.name}: must be one of {', '.join(presets)}{nearest(args.name, presets)}", "esper presets")
    return 0


def _table(presets: Mapping[str, Mapping[str, Any]]) -> list[str]:
    rows = [("environment", "steps", "rate", "other settings")]
    for env, values in presets.items():
        config = resolve([Layer(source=env, values=values)]).config
        rows.append((env, f"{config.ppo.total_timesteps:,}", as_toml(config.ppo.policy_lr.peak), _special(values)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _special(values: Mapping[str, Any]) -> str:
    defaults = flatten(RunConfig())
    special = {name: value for name, value in values.items() if name in defaults and value != defaults[name]}
    special.pop("total_timesteps", None)
    return ", ".join(name if value is True else f"{name} {as_toml(value)}" for name, value in special.items()) or "-"
