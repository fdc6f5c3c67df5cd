"""Compare runs, or folders of runs over seeds: returns and stability, with intervals."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esper.runs.config import RunConfig
from esper.scripts.flags import fail, number, say
from esper.settings.options import Bounds, settings_of
from esper.storage import files

if TYPE_CHECKING:
    from esper.analysis.comparison import Summary
    from esper.analysis.measures import Measure

USAGE = "esper compare A B [C ...] [--threshold X] [--html FILE] [--json]"


def add_arguments(parser: argparse.ArgumentParser, *, help_all: bool) -> None:
    parser.add_argument(
        "arms", type=Path, nargs="+", metavar="ARM", help="a run, or a folder of runs that differ only in their seed"
    )
    parser.add_argument("--threshold", metavar="X", help="also compare the environment steps until a mean return of X")
    parser.add_argument("--seed", default="0", metavar="S", help="seed of the resampling (default: 0)")
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write a page with curves and intervals")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def run(args: argparse.Namespace) -> int:
    threshold = None
    if args.threshold is not None:
        threshold = number("--threshold", args.threshold, float, Bounds(), "esper compare")
    seed = number("--seed", args.seed, int, Bounds(minimum=0), "esper compare")
    from esper.analysis.arms import ArmError, have, load_arm
    from esper.analysis.comparison import compare, warnings
    from esper.analysis.measures import AFTER, FINAL_ACCURACY, all_measures

    try:
        arms = [load_arm(path, settings_of(RunConfig)) for path in args.arms]
        measures = all_measures(threshold, after=have(arms, *AFTER), growth=have(arms, FINAL_ACCURACY))
        results = compare(arms, measures, seed=seed)
    except ArmError as error:
        fail(str(error), "esper compare")
    notes = warnings(arms)
    if args.html:
        from esper.analysis.comparison_page import comparison_page

        try:
            page = comparison_page(arms, results, measures, notes)
            files.write_named(args.html, page.encode(errors="backslashreplace"))
        except OSError as error:
            fail(f"--html {args.html}: cannot be written: {files.why(error)}", "esper compare")
    if args.json:
        runs = {arm.name: len(arm.runs) for arm in arms}
        print(json.dumps(_plain({"arms": runs, "measures": results, "notes": notes})))
        return 0
    _print(results, measures)
    for note in notes:
        say(f"note: {note}", file=sys.stderr)
    return 0


def _print(results: Mapping[str, Mapping[str, Summary]], measures: Mapping[str, Measure]) -> None:
    from esper.analysis.comparison_table import HEADINGS, OF_ARM, rows

    lines = {measure: rows(summaries) for measure, summaries in results.items()}
    widths = [max(map(len, column)) for column in zip(HEADINGS, *itertools.chain(*lines.values()), strict=True)]
    parts = [slice(None)]
    if len(_line(HEADINGS, widths)) > shutil.get_terminal_size((sys.maxsize, 0)).columns:
        # Below each other: what is of the arm, then what is of its difference.
        parts = [slice(OF_ARM), slice(OF_ARM, None)]
    for part in parts:
        say("    " * (part.start is not None) + _line(HEADINGS[part], widths[part]))
    for measure, each in lines.items():
        print(f"{measure}, {measures[measure].better} is better")
        for row in each:
            for part in parts:
                if any(row[part]):
                    say("    " * (part.start is not None) + _line(row[part], widths[part]))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  " + "  ".join(f"{cell:{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


def _plain(value: Any) -> Any:
    """As JSON: numbers that are not finite become null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
