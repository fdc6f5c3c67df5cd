"""Print a script with which a shell completes commands, flags and the names that flags take."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from esper.runs.config import RunConfig
from esper.runs.control_config import ControlConfig
from esper.runs.presets import load_presets
from esper.scripts.flags import fail, names_taken

USAGE = "esper completion bash|zsh|fish"
SHELLS = ("bash", "zsh", "fish")


def add_arguments(parser: argparse.ArgumentParser, *, help_all: bool) -> None:
    parser.add_argument("shell", metavar="|".join(SHELLS), help="the shell that is to read the script")


def run(args: argparse.Namespace) -> int:
    if args.shell not in SHELLS:
        fail(f"{args.shell}: must be one of {', '.join(SHELLS)}", "esper completion")
    import shtab

    from esper.scripts.train import make_parsers

    parser, commands = make_parsers(help_all=True)
    known = {
        **names_taken(ControlConfig),
        **names_taken(RunConfig),
        # A shell would take a pattern for one of files.
        "preset": ("auto", "none", *(name for name in load_presets() if not set(name) & set("*?["))),
    }
    for command in commands.values():
        for action in command._actions:
            _tell(action, known, shtab.FILE)
    print(shtab.complete(parser, args.shell))
    return 0


def _tell(action: argparse.Action, known: Mapping[str, Sequence[str]], file: object) -> None:
    """Give `action` what shtab reads: the names that it takes, or that it takes a file."""
    listed = str(action.metavar).split("|") if action.metavar else []
    if action.dest in known and action.nargs != 0:
        action.choices = known[action.dest]
    elif len(listed) > 1:
        action.choices = listed
    elif action.type is Path:
        action.complete = file  # type: ignore[attr-defined]
