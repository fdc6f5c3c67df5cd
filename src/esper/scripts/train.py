"""`esper`, the command, and its parts: `esper ppo` trains, the others look before and after."""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Collection, Sequence

from esper import __version__
from esper.scripts import (
    checkpoint,
    compare,
    completion,
    enjoy,
    evaluate,
    export,
    heuristic,
    ppo,
    presets,
    pull,
    push,
    report,
    schedule,
    sweep,
    tune,
    watch,
)
from esper.scripts.flags import STOPPED_BY, Parser, fail, unknown_flags
from esper.scripts.output import OutputError, lasting_output

_COMMANDS = {
    "ppo": ppo,
    "heuristic": heuristic,
    "presets": presets,
    "sweep": sweep,
    "tune": tune,
    "schedule": schedule,
    "evaluate": evaluate,
    "enjoy": enjoy,
    "export": export,
    "report": report,
    "compare": compare,
    "push": push,
    "pull": pull,
    "watch": watch,
    "checkpoint": checkpoint,
    "completion": completion,
}
# These go on without a reader of their output; the others have no other purpose.
_TRAIN = ("ppo", "heuristic", "sweep", "tune")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = "esper"
    try:
        with lasting_output(ends=True):
            args = _parse(arguments)
        name = f"esper {args.command}"
        trains = args.command in _TRAIN and not any(getattr(args, flag, False) for flag in ("print_config", "dry_run"))
        with lasting_output(ends=not trains):
            status: int = _COMMANDS[args.command].run(args)
            return status
    except KeyboardInterrupt:
        print(f"{name}: stopped at once; everything written before is complete", file=sys.stderr)
        return STOPPED_BY["SIGINT"]
    except OutputError as error:
        if error.cause.errno == errno.EPIPE:
            # The reader of the output has closed it.
            return STOPPED_BY["SIGPIPE"]
        fail(f"standard output: {error}", name, status=1)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser, commands = make_parsers(arguments, help_all="--help-all" in arguments)
    args, unknown = parser.parse_known_args(arguments)
    if unknown:
        unknown_flags(unknown, commands[args.command])
    return args


def make_parsers(
    named: Collection[str] = _COMMANDS.keys(), *, help_all: bool = False
) -> tuple[Parser, dict[str, Parser]]:
    """The parser of the command line, and that of each command; only `named` commands have arguments."""
    parser = Parser(prog="esper", description="PPO under learning-rate schedules.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"esper {__version__}")
    group = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    commands = {}
    for name, module in _COMMANDS.items():
        summary = (module.__doc__ or "").split("\n")[0]
        commands[name] = group.add_parser(
            name,
            help=summary,
            description=summary,
            usage=module.USAGE,
            allow_abbrev=False,
            formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32, width=110),
        )
        if name in named:
            module.add_arguments(commands[name], help_all=help_all)
    return parser, commands


if __name__ == "__main__":
    raise SystemExit(main())
