"""Write a page about a run: curves, rates, anomalies and settings in one HTML file; or its updates as a table."""

from __future__ import annotations

import argparse
from pathlib import Path

from esper.scripts.flags import fail, say
from esper.settings.options import ConfigError
from esper.storage import files

USAGE = "esper report RUN [--output FOLDER] [--csv FILE] [--parquet FILE]"


def add_arguments(parser: argparse.ArgumentParser, *, help_all: bool) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run, which may still be training")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="folder of the page (default: RUN/report)")
    parser.add_argument(
        "--csv", type=Path, metavar="FILE", help="write the updates as a table, and no page unless --output is given"
    )
    parser.add_argument("--parquet", type=Path, metavar="FILE", help="the same as Parquet (extra parquet)")


def run(args: argparse.Namespace) -> int:
    from esper.analysis.report import ReportError

    try:
        if args.csv or args.parquet:
            _write_tables(args)
        if args.output or not (args.csv or args.parquet):
            _write_page(args)
    except ReportError as error:
        fail(str(error), "esper report")
    return 0


def _write_page(args: argparse.Namespace) -> None:
    from esper.analysis.report import write_report
    from esper.runs.layers import changed_and_default

    try:
        page, *pictures = write_report(args.run, args.output, changed_and_default)
    except OSError as error:
        fail(f"--output {args.output or args.run / 'report'}: cannot be written: {files.why(error)}", "esper report")
    say(f"page     {page}\npictures {', '.join(picture.name for picture in pictures)}")


def _write_tables(args: argparse.Namespace) -> None:
    from esper.analysis.tables import table_of, write_csv, write_parquet

    updates = table_of(args.run)
    for name, path, write in (("csv", args.csv, write_csv), ("parquet", args.parquet, write_parquet)):
        if path is None:
            continue
        try:
            write(updates, path)
        except ConfigError as error:
            fail(f"--{name} {path}: {error.allowed}", "esper report")
        except OSError as error:
            fail(f"--{name} {path}: cannot be written: {files.why(error)}", "esper report")
        say(f"{name:8} {path}: {len(updates['update']):,} updates, {len(updates)} columns")
