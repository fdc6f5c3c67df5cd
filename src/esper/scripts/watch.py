"""Watch runs in a browser while they train: a table of all, and curves of each, on a local page that only reads."""

from __future__ import annotations

import argparse
from pathlib import Path

from esper.scripts.flags import fail, number, say
from esper.settings.options import Bounds
from esper.storage import files

_PROG = "esper watch"
USAGE = "esper watch [RUNS ...] [--host ADDRESS] [--port N] [--once FILE]"


def add_arguments(parser: argparse.ArgumentParser, *, help_all: bool) -> None:
    parser.add_argument(
        "runs", type=Path, nargs="*", metavar="RUNS", help="folders of runs, or folders of such (default: runs)"
    )
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="where it listens (default: 127.0.0.1)")
    parser.add_argument("--port", default="8008", metavar="N", help="0 for any that is free (default: 8008)")
    parser.add_argument("--once", type=Path, metavar="FILE", help="write the page as it stands as one file, and end")


def run(args: argparse.Namespace) -> int:
    port = number("--port", args.port, int, Bounds(minimum=0, maximum=65535), _PROG)
    roots = args.runs or [Path("runs")]
    for root in roots:
        try:
            files.names_in(root)
        except OSError as error:
            fail(f"{root}: {error.strerror}; give folders of runs", _PROG)
    from esper.analysis import charts
    from esper.watch.followed import FollowedRuns
    from esper.watch.server import WatchServer, page_of

    if not charts.available():
        fail("needs plotly; pip install 'esper-simic[pages]'", _PROG)
    runs = FollowedRuns(roots)
    if args.once is not None:
        try:
            files.write_named(args.once, page_of(runs).encode(errors="replace"))
        except OSError as error:
            fail(f"--once {args.once}: cannot be written: {files.why(error)}", _PROG)
        say(f"page     {args.once}")
        return 0
    try:
        server = WatchServer(args.host, port, runs)
    except (OSError, UnicodeError) as error:
        fail(f"--host {args.host} --port {port}: {files.why(error)}; --port 0 takes any that is free", _PROG)
    with server:
        if not server.is_local:
            say("everyone who reaches this machine can read these runs")
        print(f"{server.url}  Ctrl-C ends it", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("\nended; the runs go on")
    return 0
