"""The tables of docs/growth.md; numbers are in docs/study-growth.json.

    esper sweep --config docs/study-growth.toml
    esper sweep --env esper/Growth-v0 --seeds 7-16 --arm "ppo:" --output runs/growth-ppo
    esper sweep --env esper/Growth-v0 --seeds 7-16 --preset growth-tuned --arm "growth-tuned:" \
      --output runs/growth-growth-tuned
    for s in $(seq 7 16); do for name in heuristic random wait; do
      esper heuristic --controller $name --episodes 20 --seed $((1000 + s)) --run-dir runs/controllers/$name/seed-$s
    done; for name in ppo growth-tuned; do
      esper heuristic --policy runs/growth-$name/esper-Growth-v0/$name/seed-$s --episodes 20 \
        --seed $((1000 + s)) --run-dir runs/controllers/$name/seed-$s
    done; done
    python benchmarks/growth_page.py --study runs/study-growth --controllers runs/controllers

Of seeds whose runs are not there the known numbers stay.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from marked import fill, grid

from esper.analysis.arms import load_arm
from esper.analysis.measures import all_measures
from esper.analysis.statistics import mean_interval, ratio_interval
from esper.runs.config import RunConfig
from esper.settings.options import settings_of
from esper.sweep.plan import read_sweep

DOCS = Path(__file__).parents[1] / "docs"
NUMBERS = DOCS / "study-growth.json"
STUDY = (
    *("final_return", "area_under_curve", "value_loss_variance", "value_loss_roughness"),
    *("ratio_std_after", "ratio_std_after_variance", "approx_kl_after_max", "approx_kl_after_oscillation"),
)
# Measures of an episode: their columns, and digits.
EPISODE = {
    "episode_return": ("return", 1),
    "final_accuracy": ("final accuracy, %", 1),
    "seed_parameters": ("parameters added", 0),
}
CONTROLLERS = {
    "heuristic": "rules (`heuristic`)",
    "random": "random",
    "wait": "wait",
    "ppo": "PPO, the preset, constant rates",
    "growth-tuned": "PPO, `growth-tuned`",
}

# By arm or controller, measure and seed.
Values = dict[str, dict[str, dict[str, float]]]


def study(folder: Path) -> Values:
    known, measures = settings_of(RunConfig), all_measures(after=True)
    arms = (folder / "esper-Growth-v0" / name for name in read_sweep(DOCS / "study-growth.toml")["arms"])
    loaded = {arm.name: load_arm(arm, known).runs for arm in arms if any(arm.rglob("events.jsonl"))}
    return {
        arm: {name: {str(seed): measures[name].of(run.updates) for seed, run in runs.items()} for name in STUDY}
        for arm, runs in loaded.items()
    }


def controllers(folder: Path) -> Values:
    """The means over the episodes of each run."""
    found: Values = {}
    for events in sorted(folder.glob("*/seed-*/events.jsonl")):
        episodes = [event for event in map(json.loads, events.open()) if event["event"] == "growth_episode"]
        for name in EPISODE:
            by_seed = found.setdefault(events.parents[1].name, {}).setdefault(name, {})
            by_seed[events.parent.name.removeprefix("seed-")] = float(np.mean([each[name] for each in episodes]))
    return found


def merged(known: Values, found: Values) -> Values:
    for arm, measures in found.items():
        for name, by_seed in measures.items():
            before = known.setdefault(arm, {}).setdefault(name, {})
            before |= by_seed
    return known


def study_table(arms: Values) -> str:
    """Means, and how they differ from those of the first arm, by pairs of a seed."""
    first, *others = arms

    def row(name: str) -> list[str]:
        constant = arms[first][name]
        cells = [f"{np.mean(list(constant.values())):.3g}"]
        for arm in others:
            values = arms[arm][name]
            pairs = [(values[seed], constant[seed]) for seed in values if seed in constant]
            mine, theirs = map(list, zip(*pairs, strict=True))
            low, high = ratio_interval(mine, theirs, np.random.default_rng(0), paired=True)
            mean, change = np.mean(mine), np.mean(mine) / np.mean(theirs)
            cells.append(f"{mean:.3g} ({_percent(change)} % [{_percent(low)}, {_percent(high)}])")
        return [name, *cells]

    seeds = ["runs", *(str(len(measures[STUDY[0]])) for measures in arms.values())]
    return grid(" | ".join(["measure", *arms]), [*map(row, STUDY), seeds])


def _percent(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.0f}"


def controllers_table(found: Values) -> str:
    def cell(values: Mapping[str, float], digits: int) -> str:
        low, high = mean_interval(list(values.values()), np.random.default_rng(0))
        mean = np.mean(list(values.values()))
        return f"{mean:,.{digits}f}" if low == high else f"{mean:,.{digits}f} [{low:,.{digits}f}, {high:,.{digits}f}]"

    names = [name for name in CONTROLLERS if name in found]
    rows = [[CONTROLLERS[x], *(cell(found[x][m], digits) for m, (_, digits) in EPISODE.items())] for x in names]
    return grid(" | ".join(["", *(title for title, _ in EPISODE.values())]), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, help="the folder of docs/study-growth.toml's runs")
    parser.add_argument("--controllers", type=Path, help="a folder with CONTROLLER/seed-N, runs of esper heuristic")
    args = parser.parse_args()
    numbers: dict[str, Values] = json.loads(NUMBERS.read_text())
    if args.study:
        merged(numbers["study"], study(args.study))
    if args.controllers:
        merged(numbers["controllers"], controllers(args.controllers))
    NUMBERS.write_text(json.dumps(numbers, indent=1) + "\n")
    tables = {"study": study_table(numbers["study"]), "controllers": controllers_table(numbers["controllers"])}
    fill(DOCS / "growth.md", tables)


if __name__ == "__main__":
    main()
