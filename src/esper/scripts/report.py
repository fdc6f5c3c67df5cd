"""Write a page about a run: curves, rates, anomalies and settings in one HTML file."""

from __future__ import annotations

import argparse
from pathlib import Path

from esper.scripts.flags import fail
from esper.storage import files

USAGE = "esper report RUN [--output FOLDER]"


def add_arguments(parser: argparse.ArgumentParser, *, help_all: bool) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run, which may still be training")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="folder of the page (default: RUN/report)")


def run(args: argparse.Namespace) -> int:
    from esper.analysis.report import ReportError, write_report

    try:
        page, *pictures = write_report(args.run, args.output)
    except ReportError as error:
        fail(str(error), "esper report")
    except OSError as error:
        fail(f"--output {args.output or args.run / 'report'}: cannot be written: {files.why(error)}", "esper report")
    print(f"page     {page}\npictures {', '.join(picture.name for picture in pictures)}")
    return 0
