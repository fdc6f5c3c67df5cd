"""Evaluates what the sweeps in docs/results/ trained, and fills the tables of docs/results.md.

    esper sweep --config docs/results/classic.toml
    python benchmarks/results_page.py runs/results

A policy that was evaluated before is not evaluated again: docs/results/results.json has the scores. After a change of
settings those of the environment have to be deleted there.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import multiprocessing
import statistics
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from marked import fill
from matplotlib.figure import Figure
from numpy.typing import NDArray

from esper.analysis.arms import Run, load_arm
from esper.analysis.measures import all_measures
from esper.analysis.statistics import interquartile_mean, mean_band, mean_interval
from esper.policies.evaluate import evaluate
from esper.policies.policy import load_policy
from esper.runs.config import RunConfig
from esper.settings.options import settings_of
from esper.sweep.plan import environment_folder, read_sweep

DOCS = Path(__file__).parents[1] / "docs"
PAGE, FOLDER = DOCS / "results.md", DOCS / "results"
NUMBERS, PUBLISHED = FOLDER / "results.json", FOLDER / "published.toml"
# Apart from what evaluations during training use.
SEED = 1_000

# Episodes of each policy; more where they are short and where they start decides most of the return.
EPISODES = 100
MORE_EPISODES = {"Reacher-v4": 1_000}
# Fewer have no interval that would say something.
ENOUGH_SEEDS = 3
# Points of a curve, each over all episodes of its part of the run: long ones do not end in every update.
POINTS = 50
# Whose published results are curves.
WITH_CURVES = ("minatar", "atari")

Scores = dict[str, Any]


def score(run: Run) -> Scores:
    """What `run` reached: the final policy by itself, and the last tenth of its training."""
    torch.set_num_threads(1)
    # Its own sweeps name the modules that register environments.
    scores = evaluate(load_policy(run.path, trust=True), episodes=MORE_EPISODES.get(run.env, EPISODES), seed=SEED)
    finished = json.loads((run.path / "events.jsonl").read_text().splitlines()[-1])
    return {
        "evaluation": statistics.fmean(scores.returns),
        "evaluation_std": statistics.pstdev(scores.returns),
        "training": all_measures(None)["final_return"].of(run.updates),
        "env_steps": finished["env_steps"],
        "seconds": finished["seconds"],
    }


def places_of(family: str) -> Iterator[tuple[str, str, str]]:
    """Environment and arm of each table row of `family`, and the name of its folder."""
    sweep = read_sweep(FOLDER / f"{family}.toml")
    for environment in sweep["environments"]:
        for arm in sweep.get("arms", {"default": {}}):
            yield environment, arm, f"{family}/{environment_folder(environment)}/{arm}"


def score_all(runs: Mapping[str, Path], known: dict[str, dict[str, Scores]]) -> None:
    """Score every run of `runs` that has none in `known` yet, and write what is known after each."""
    new = [
        (place, seed, run)
        for place, folder in runs.items()
        for seed, run in load_arm(folder, settings_of(RunConfig)).runs.items()
        if str(seed) not in known.get(place, {})
    ]
    with concurrent.futures.ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(score, run): (place, seed) for place, seed, run in new}
        for done in concurrent.futures.as_completed(futures):
            place, seed = futures[done]
            known.setdefault(place, {})[str(seed)] = done.result()
            NUMBERS.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
            print(place, seed, flush=True)


def table(family: str, known: Mapping[str, Any], published: Mapping[str, str]) -> str:
    lines = [
        "| environment | steps | published | arm | seeds | evaluation: mean [95 %] | IQM | lowest | "
        "training: mean [95 %] | s/run |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for environment, arm, place in places_of(family):
        if place not in known:
            continue
        runs = list(known[place].values())
        scores = [run["evaluation"] for run in runs]
        lines.append(
            f"| {environment} | {runs[0]['env_steps']:,} | {published.get(environment, '-')} | {arm} | {len(runs)} "
            f"| {with_interval(scores)} | {interquartile_mean(scores):.4g} | {min(scores):.4g} "
            f"| {with_interval([run['training'] for run in runs])} "
            f"| {statistics.median(run['seconds'] for run in runs):.0f} |"
        )
    return "\n".join(lines)


def draw_curves(family: str, folder: Path) -> None:
    """Returns during training over env_steps, a panel for each environment of `family` that has runs in `folder`."""
    arms = {environment: folder / place for environment, _, place in places_of(family) if (folder / place).is_dir()}
    figure = Figure(figsize=(2.8 * len(arms), 2.6), layout="constrained")
    for axis, (environment, path) in zip(figure.subplots(1, len(arms), squeeze=False).flat, arms.items(), strict=True):
        runs = [run.updates for run in load_arm(path, settings_of(RunConfig)).runs.values()]
        edges = np.linspace(0, max(run["env_steps"][-1] for run in runs), POINTS + 1)
        mean, low, high = mean_band(np.array([returns_between(edges, run) for run in runs]))
        middles = (edges[1:] + edges[:-1]) / 2e6
        if len(runs) >= ENOUGH_SEEDS:
            axis.fill_between(middles, low, high, alpha=0.25, linewidth=0)
        axis.plot(middles, mean, linewidth=1.2)
        axis.set_title(f"{environment}\nseeds: {len(runs)}", fontsize=9)
        axis.set_xlabel("million env steps")
    figure.savefig(DOCS / "images" / f"results-{family}.png", dpi=150)


def returns_between(edges: NDArray[Any], run: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """Mean return of the episodes that ended between every two of `edges`, in env_steps; NaN where none did."""
    episodes = np.nan_to_num(run["episodes"])
    sums, counts = (
        np.histogram(run["env_steps"], edges, weights=weights)[0]
        for weights in (np.nan_to_num(run["episode_return_mean"]) * episodes, episodes)
    )
    return np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)


def with_interval(values: list[float]) -> str:
    """The mean, with its interval where there are seeds enough for one that says something."""
    mean = statistics.fmean(values)
    digits = 0 if abs(mean) >= 1000 else 1
    if len(values) < ENOUGH_SEEDS:
        return f"{mean:,.{digits}f}"
    low, high = mean_interval(values, np.random.default_rng(0))
    return f"{mean:,.{digits}f} [{low:,.{digits}f}, {high:,.{digits}f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="folder of the sweeps' folders, as runs/results")
    args = parser.parse_args()
    known = json.loads(NUMBERS.read_text()) if NUMBERS.exists() else {}
    published = tomllib.loads(PUBLISHED.read_text())
    families = [path.stem for path in sorted(FOLDER.glob("*.toml")) if path != PUBLISHED]
    places = [place for family in families for *_, place in places_of(family)]
    score_all({place: args.folder / place for place in places if (args.folder / place).is_dir()}, known)
    fill(PAGE, {family: table(family, known, published) for family in families})
    for family in WITH_CURVES:
        if (args.folder / family).is_dir():
            draw_curves(family, args.folder)


if __name__ == "__main__":
    main()
