"""Compare runs, or folders of runs over seeds: returns and stability, with intervals."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esper.options import Bounds
from esper.scripts.flags import fail, number

if TYPE_CHECKING:
    from esper.analysis.comparison import Difference, Summary

USAGE = "esper compare A B [C ...] [--threshold X] [--json]"


def add_arguments(parser: argparse.ArgumentParser, *, help_all: bool) -> None:
    parser.add_argument(
        "arms", type=Path, nargs="+", metavar="ARM", help="a run, or a folder of runs that differ in their seed alone"
    )
    parser.add_argument("--threshold", metavar="X", help="also the environment steps to a mean return of X")
    parser.add_argument("--seed", default="0", metavar="S", help="seed of the resampling (default: 0)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def run(args: argparse.Namespace) -> int:
    threshold = None
    if args.threshold is not None:
        threshold = number("--threshold", args.threshold, float, Bounds(), "esper compare")
    seed = number("--seed", args.seed, int, Bounds(minimum=0), "esper compare")
    from esper.analysis.arms import ArmError, load_arm
    from esper.analysis.comparison import compare, warnings

    try:
        arms = [load_arm(path) for path in args.arms]
        results = compare(arms, threshold=threshold, seed=seed)
    except ArmError as error:
        fail(str(error), "esper compare")
    notes = warnings(arms)
    if args.json:
        runs = {arm.name: len(arm.runs) for arm in arms}
        print(json.dumps(_plain({"arms": runs, "measures": results, "notes": notes})))
        return 0
    _print(results)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    return 0


def _print(results: dict[str, dict[str, Summary]]) -> None:
    for measure, summaries in results.items():
        width = max(map(len, summaries))
        print(measure)
        for arm, summary in summaries.items():
            mean = _with_interval(summary.mean, summary.interval)
            parts = [f"mean {mean}", f"IQM {_with_interval(summary.iqm, summary.iqm_interval)}"]
            if summary.without:
                parts.append(f"{summary.without} without")
            print(f"  {arm:{width}}  {', '.join(parts)}")
            if summary.difference is not None:
                print(f"  {'':{width}}  {_difference(summary.difference)}")


def _difference(difference: Difference) -> str:
    how = f"by {difference.pairs} pairs" if difference.pairs else "unpaired"
    text = f"less the first {_with_interval(difference.mean, difference.interval)} {how}"
    text += f", P(better) {difference.probability_of_improvement:.2f}"
    return text if math.isnan(difference.effect_size) else f"{text}, effect {difference.effect_size:+.2f}"


def _with_interval(value: float, interval: tuple[float, float]) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.4g}" + ("" if math.isnan(interval[0]) else f" [{interval[0]:.4g}, {interval[1]:.4g}]")


def _plain(value: Any) -> Any:
    """As JSON has it: no numbers that are none."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
