"""The tables of the whole suite in docs/general-settings.md and docs/which-schedule.md; numbers are in docs/suite.json.

    PYTHONPATH=benchmarks/suite esper sweep --config benchmarks/suite/whole-discrete.toml
    PYTHONPATH=benchmarks/suite PEERS/bin/python benchmarks/suite_sb3.py runs/suite/sb3.json --seeds 21 22 23 24 25
    PYTHONPATH=benchmarks/suite esper sweep --config benchmarks/suite/whole-preset.toml
    python benchmarks/whole_page.py runs/suite

Without a folder the pages are made from the numbers that are known. An arm that did not finish all seeds of a task is
shown with those it has.
"""

from __future__ import annotations

import argparse
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from marked import fill
from numpy.typing import NDArray
from suite_page import DOCS, SUITE, score

from esper.analysis.arms import load_arm
from esper.analysis.measures import MEASURES
from esper.analysis.statistics import RESAMPLES, Interval, difference_interval, mean_interval
from esper.runs.config import RunConfig
from esper.settings.options import settings_of
from esper.sweep.plan import environment_folder, read_sweep

NUMBERS = DOCS / "suite.json"
SWEEPS = {"whole-continuous": "Box actions", "whole-discrete": "discrete actions"}
# The columns of the table of returns.
SYSTEMS = {
    "defaults": "defaults",
    "general": "general settings",
    "preset": "preset",
    "cleanrl": "CleanRL's settings",
    "sb3-settings": "Stable-Baselines3's defaults",
}
# Those that every task has.
EVERYWHERE = {arm: name for arm, name in SYSTEMS.items() if arm != "preset"}
SCHEDULES = ("linear", "cosine")
KEPT = ("final_return", "area_under_curve", "ratio_std", "approx_kl_max", "value_loss_roughness")

# By measure and seed; of environment and arm.
Values = dict[str, dict[str, float]]
Numbers = dict[str, dict[str, dict[str, Values]]]
Ranges = Mapping[str, Sequence[float]]


def collect(folder: Path) -> Numbers:
    """Of every sweep, environment and arm the `KEPT` measures of each seed."""
    known, found = settings_of(RunConfig), Numbers()
    path = folder / "sb3.json"
    peer: dict[str, dict[str, float]] = json.loads(path.read_text()) if path.exists() else {}
    for sweep in SWEEPS:
        plan = read_sweep(SUITE / f"{sweep}.toml")
        tasks = found.setdefault(sweep, {})
        for task in map(environment_folder, plan["environments"]):
            tasks[task] = {
                arm: _measured(folder / sweep / task / arm, known)
                for arm in plan["arms"]
                if any((folder / sweep / task / arm).rglob("events.jsonl"))
            }
            preset = folder / "whole-preset" / task / "preset"
            if any(preset.rglob("events.jsonl")):
                tasks[task]["preset"] = _measured(preset, known)
            if task in peer:
                tasks[task]["sb3"] = {"final_return": peer[task]}
    return found


def _measured(arm: Path, known: Mapping[str, Any]) -> Values:
    runs = sorted(load_arm(arm, known).runs.items())
    return {name: {str(seed): MEASURES[name].of(run.updates) for seed, run in runs} for name in KEPT}


def merged(known: Numbers, found: Numbers) -> Numbers:
    """What was found; of seeds whose runs are not there the known numbers stay."""
    for sweep, tasks in found.items():
        for task, by_arm in tasks.items():
            for arm, values in by_arm.items():
                before = known.setdefault(sweep, {}).setdefault(task, {}).setdefault(arm, {})
                for name, by_seed in values.items():
                    before[name] = dict(sorted({**before.get(name, {}), **by_seed}.items()))
    return known


def finals(values: Values) -> list[float]:
    return list(values["final_return"].values())


def shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def spread(values: Sequence[float]) -> str:
    low, high = mean_interval(values, np.random.default_rng(0))
    return f"{shown(float(np.mean(values)))} [{shown(low)}, {shown(high)}]"


def returns_table(tasks: Mapping[str, Mapping[str, Values]], ranges: Ranges) -> str:
    """A row for each task: what random actions get, what each system ends with, and the best known."""
    arms = [arm for arm in SYSTEMS if any(arm in each for each in tasks.values())]
    rows = [
        f"| task | random | {' | '.join(SYSTEMS[arm] for arm in arms)} | best known |",
        "|---" * (len(arms) + 3) + "|",
    ]
    for task, by_arm in tasks.items():
        cells = [spread(finals(by_arm[arm])) if arm in by_arm else "" for arm in arms]
        rows.append(f"| {task} | {ranges[task][0]:g} | {' | '.join(cells)} | {ranges[task][1]:g} |")
    return "\n".join(rows)


def scores_of(tasks: Mapping[str, Mapping[str, Values]], arm: str, ranges: Ranges) -> list[NDArray[np.float64]]:
    """The normalized scores of the seeds, of each task that `arm` has."""
    return [
        np.array([score(task, value, dict(ranges)) for value in finals(by_arm[arm])])  # type: ignore[arg-type]
        for task, by_arm in tasks.items()
        if arm in by_arm
    ]


def interquartile(scores: Sequence[NDArray[np.float64]]) -> tuple[float, Interval]:
    """The interquartile mean over tasks and seeds, and its interval by resampling the seeds of each task.

    The stratified bootstrap of Agarwal et al. 2021 (arXiv 2108.13264). All tasks weigh the same, however many seeds
    they have.
    """
    times = np.lcm.reduce([len(x) for x in scores])
    weights = np.concatenate([np.full(len(x), times // len(x)) for x in scores])
    rng = np.random.default_rng(0)
    drawn = np.concatenate([x[rng.integers(len(x), size=(RESAMPLES, len(x)))] for x in scores], axis=1)
    low, high = np.quantile(_middle(drawn, weights), (0.025, 0.975))
    return float(_middle(np.concatenate(scores)[None], weights)[0]), Interval(float(low), float(high))


def _middle(values: NDArray[np.float64], weights: NDArray[np.int64]) -> NDArray[np.float64]:
    """The mean of the middle half of each row, whose columns have `weights`: at most a quarter is cut at each end."""
    order = np.argsort(values, axis=1)
    weight = weights[order]
    up_to, total = np.cumsum(weight, axis=1), weights.sum()
    kept = weight * ((4 * up_to > total) & (4 * (total - up_to + weight) > total))
    middle: NDArray[np.float64] = (np.take_along_axis(values, order, axis=1) * kept).sum(axis=1) / kept.sum(axis=1)
    return middle


def scores_table(numbers: Numbers, arms: Mapping[str, str], ranges: Ranges) -> str:
    """A row for each of `arms`: the interquartile mean of its scores, over each sweep and over all."""
    groups = {title: numbers[sweep] for sweep, title in SWEEPS.items() if numbers.get(sweep)}
    groups["all"] = {task: by_arm for tasks in numbers.values() for task, by_arm in tasks.items()}
    rows = [f"| | {' | '.join(groups)} |", "|---" * (len(groups) + 1) + "|"]
    for arm, name in arms.items():
        cells = []
        for tasks in groups.values():
            if not all(arm in by_arm for by_arm in tasks.values()):
                cells.append("")
                continue
            mean, (low, high) = interquartile(scores_of(tasks, arm, ranges))
            cells.append(f"{mean:.2f} [{low:.2f}, {high:.2f}]")
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def schedules_table(tasks: Mapping[str, Mapping[str, Values]]) -> str:
    """A row for each task: its return with constant rates, and by pairs of a seed what schedules add to it."""
    rows = [f"| task | constant | {' | '.join(SCHEDULES)} | ratio's deviation, cosine |", "|---|---|---|---|---|"]
    for task, by_arm in tasks.items():
        constant = by_arm["constant"]
        cells = [
            _difference(constant["final_return"], by_arm[arm]["final_return"]) if arm in by_arm else ""
            for arm in SCHEDULES
        ]
        ratio = ""
        if "cosine" in by_arm:
            before, after = (np.mean(list(each["ratio_std"].values())) for each in (constant, by_arm["cosine"]))
            ratio = f"{100 * (after / before - 1):+.0f} %"
        rows.append(f"| {task} | {spread(finals(constant))} | {' | '.join(cells)} | {ratio} |")
    return "\n".join(rows)


def _difference(constant: Mapping[str, float], other: Mapping[str, float]) -> str:
    """In bold what has an interval without 0."""
    pairs = [other[seed] - constant[seed] for seed in other if seed in constant]
    low, high = difference_interval(pairs, [0.0] * len(pairs), np.random.default_rng(0))
    mean = float(np.mean(pairs))
    text = f"{'+' if mean >= 0 else ''}{shown(mean)} [{shown(low)}, {shown(high)}]"
    return f"**{text}**" if low * high > 0 else text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="the folder of the sweeps; without it the known numbers")
    folder = parser.parse_args().folder
    if folder is not None:
        known: Numbers = json.loads(NUMBERS.read_text())
        NUMBERS.write_text(json.dumps(merged(known, collect(folder)), indent=1) + "\n")
    numbers: Numbers = json.loads(NUMBERS.read_text())
    ranges = tomllib.loads((SUITE / "ranges.toml").read_text())
    fill(
        DOCS / "general-settings.md",
        {sweep: returns_table(tasks, ranges) for sweep, tasks in numbers.items()}
        | {"whole-scores": scores_table(numbers, EVERYWHERE, ranges)},
    )
    arms = {"constant": "constant", "linear": "warmup + linear", "cosine": "warmup + cosine"}
    # Schedules were compared at the general settings.
    compared = {
        sweep: {task: {"constant": by_arm["general"], **by_arm} for task, by_arm in tasks.items()}
        for sweep, tasks in numbers.items()
    }
    fill(
        DOCS / "which-schedule.md",
        {sweep: schedules_table(tasks) for sweep, tasks in compared.items()}
        | {"scores": scores_table(compared, arms, ranges)},
    )


if __name__ == "__main__":
    main()
