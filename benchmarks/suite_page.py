"""Scores what the sweeps in benchmarks/suite trained, and fills the tables of docs/general-settings.md.

    PYTHONPATH=benchmarks/suite esper sweep --config benchmarks/suite/screen-discrete.toml
    python benchmarks/suite_page.py runs/suite

A score is 0 for random actions and 1 for the best known return; it is that of training, in the last tenth of a run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tomllib
from pathlib import Path

from marked import fill

from esper.analysis.arms import load_arm
from esper.analysis.measures import all_measures
from esper.runs.config import RunConfig
from esper.settings.options import settings_of
from esper.sweep.plan import environment_folder, read_sweep

SUITE, DOCS = Path(__file__).parent / "suite", Path(__file__).parents[1] / "docs"
PAGE, NUMBERS = DOCS / "general-settings.md", DOCS / "general-settings.json"
SWEEPS = (
    "screen-continuous",
    "screen-discrete",
    "screen-images",
    "screen-memory",
    "decide-continuous",
    "decide-discrete",
    "decide-images",
    "decide-memory",
    "second-continuous",
)

# Mean return at the end of each run, by environment and arm.
Returns = dict[str, dict[str, list[float]]]


def returns_of(sweep: str, folder: Path) -> Returns:
    """Of all runs of `sweep` that there are; an environment that not all arms have finished is left out."""
    plan, found = read_sweep(SUITE / f"{sweep}.toml"), Returns()
    known, final = settings_of(RunConfig), all_measures(None)["final_return"]
    for environment in map(environment_folder, plan["environments"]):
        arms = {arm: folder / sweep / environment / arm for arm in plan["arms"]}
        if all(any(path.rglob("events.jsonl")) for path in arms.values()):
            found[environment] = {
                arm: [final.of(run.updates) for run in load_arm(path, known).runs.values()]
                for arm, path in arms.items()
            }
    return found


def score(environment: str, value: float, ranges: dict[str, list[float]]) -> float:
    lowest, best = ranges[environment]
    return (value - lowest) / (best - lowest)


def table(returns: Returns, ranges: dict[str, list[float]]) -> str:
    """A row for each arm, the best mean first, with its mean score in each environment."""
    scores = {
        arm: [statistics.fmean(score(env, value, ranges) for value in arms[arm]) for env, arms in returns.items()]
        for arm in next(iter(returns.values()))
    }
    seeds = [str(max(map(len, arms.values()))) for arms in returns.values()]
    rows = [
        f"| arm | {' | '.join(returns)} | mean |",
        f"|---|{'---|' * (len(returns) + 1)}",
        f"| seeds | {' | '.join(seeds)} | |",
    ]
    for arm, row in sorted(scores.items(), key=lambda item: -statistics.fmean(item[1])):
        rows.append(f"| {arm} | {' | '.join(f'{value:.2f}' for value in row)} | {statistics.fmean(row):.3f} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="the folder of the sweeps; without it the known numbers")
    folder = parser.parse_args().folder
    if folder is not None:
        # Of a sweep whose runs are not there the known numbers stay.
        found = {sweep: returns_of(sweep, folder) for sweep in SWEEPS if (folder / sweep).is_dir()}
        NUMBERS.write_text(json.dumps({**json.loads(NUMBERS.read_text()), **found}, indent=1) + "\n")
    numbers = json.loads(NUMBERS.read_text())
    ranges = tomllib.loads((SUITE / "ranges.toml").read_text())
    fill(PAGE, {sweep: table(returns, ranges) for sweep, returns in numbers.items() if returns})


if __name__ == "__main__":
    main()
