"""Evaluates what the sweeps in docs/results/ trained, and fills the tables of docs/results.md.

    esper sweep --config docs/results/classic.toml
    python benchmarks/results_page.py runs/results

A policy that was evaluated before is not evaluated again: docs/results/results.json has the scores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from marked import fill

from esper.analysis.arms import Run, load_arm
from esper.analysis.measures import all_measures
from esper.analysis.statistics import interquartile_mean, mean_interval
from esper.evaluate import evaluate
from esper.policy import load_policy
from esper.sweep.plan import read_sweep

DOCS = Path(__file__).parents[1] / "docs"
PAGE, FOLDER = DOCS / "results.md", DOCS / "results"
NUMBERS, PUBLISHED = FOLDER / "results.json", FOLDER / "published.toml"
# Apart from what evaluations during training use.
SEED = 1_000

Scores = dict[str, Any]


def score(run: Run, episodes: int) -> Scores:
    """What `run` reached: the final policy by itself, and the last tenth of its training."""
    scores = evaluate(load_policy(run.path), episodes=episodes, seed=SEED)
    finished = json.loads((run.path / "events.jsonl").read_text().splitlines()[-1])
    return {
        "evaluation": statistics.fmean(scores.returns),
        "evaluation_std": statistics.pstdev(scores.returns),
        "training": all_measures(None)["final_return"].of(run.updates),
        "env_steps": finished["env_steps"],
        "seconds": finished["seconds"],
    }


def collect(family: str, runs: Path, known: dict[str, Any], episodes: int) -> Iterator[tuple[str, str]]:
    """Score what there is of the sweep `family`, into `known`; gives environments and arms."""
    sweep = read_sweep(FOLDER / f"{family}.toml")
    for environment in sweep["environments"]:
        for arm in sweep.get("arms", {"default": {}}):
            place = f"{family}/{environment}/{arm}"
            if (runs / place).is_dir():
                scores = known.setdefault(place, {})
                for seed, run in load_arm(runs / place).runs.items():
                    if str(seed) not in scores:
                        print(place, seed, flush=True)
                        scores[str(seed)] = score(run, episodes)
                        NUMBERS.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
            if place in known:
                yield environment, arm


def table(family: str, places: list[tuple[str, str]], known: Mapping[str, Any], published: Mapping[str, Any]) -> str:
    lines = [
        "| environment | steps | published | rates | seeds | evaluation: mean [95 %] | IQM | lowest | "
        "training: mean [95 %] | s/run |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for environment, arm in places:
        runs = list(known[f"{family}/{environment}/{arm}"].values())
        scores = [run["evaluation"] for run in runs]
        lines.append(
            f"| {environment} | {runs[0]['env_steps']:,} | {published.get(environment, '-')} | {arm} | {len(runs)} "
            f"| {with_interval(scores)} | {interquartile_mean(scores):.4g} | {min(scores):.4g} "
            f"| {with_interval([run['training'] for run in runs])} "
            f"| {statistics.median(run['seconds'] for run in runs):.0f} |"
        )
    return "\n".join(lines)


def with_interval(values: list[float]) -> str:
    low, high = mean_interval(values, np.random.default_rng(0))
    mean = statistics.fmean(values)
    digits = 0 if abs(mean) >= 1000 else 1
    return f"{mean:,.{digits}f} [{low:,.{digits}f}, {high:,.{digits}f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="folder of the sweeps' folders, as runs/results")
    parser.add_argument("--episodes", type=int, default=100, help="evaluation episodes of each policy")
    args = parser.parse_args()
    torch.set_num_threads(1)
    known = json.loads(NUMBERS.read_text()) if NUMBERS.exists() else {}
    published = tomllib.loads(PUBLISHED.read_text())
    for path in sorted(FOLDER.glob("*.toml")):
        if path == PUBLISHED:
            continue
        places = list(collect(path.stem, args.folder, known, args.episodes))
        if places:
            fill(PAGE, {path.stem: table(path.stem, places, known, published)})


if __name__ == "__main__":
    main()
