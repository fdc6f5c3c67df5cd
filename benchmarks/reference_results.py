"""Trains the presets over several seeds, evaluates each policy, and records the scores.

    python benchmarks/reference_results.py --jobs 2

Each run is `esper ppo` with the arguments below and a seed, then `esper evaluate`. Runs that are complete in --output
are not run again. Scores go to docs/results.json and, as a table, to standard output.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import shlex
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ESPER = [sys.executable, "-m", "esper.scripts.train"]
DOCS = Path(__file__).parent.parent / "docs"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the table: what is trained, and the mean return each seed has to reach."""

    env: str
    seeds: int
    target: float
    flags: str = ""

    @property
    def command(self) -> str:
        return f"esper ppo --env {self.env} {self.flags}".strip()


ROWS = (
    Row(env="CartPole-v1", seeds=5, target=475, flags="--lr-warmup-frac 0.05 --lr-decay cosine"),
    Row(env="Acrobot-v1", seeds=3, target=-90),
    Row(env="Pendulum-v1", seeds=3, target=-250),
    Row(env="LunarLander-v3", seeds=3, target=200),
    Row(env="HalfCheetah-v4", seeds=3, target=1500),
)


def train_and_evaluate(row: Row, seed: int, output: Path, episodes: int) -> dict[str, float]:
    run = output / row.env / f"seed-{seed}"
    if not (run / "policy.json").exists():
        flags = [*shlex.split(row.command)[1:], "--seed", str(seed), "--run-dir", str(run), "--threads", "1", "--quiet"]
        subprocess.run([*ESPER, *flags], check=True)
    command = [*ESPER, "evaluate", str(run), "--episodes", str(episodes), "--json"]
    score = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    finished = json.loads((run / "events.jsonl").read_text().splitlines()[-1])
    return {"seed": seed, **score, "env_steps": finished["env_steps"], "seconds": round(finished["seconds"], 1)}


def table(results: dict[str, list[dict[str, float]]]) -> str:
    lines = [
        "| environment | target | mean over seeds | lowest | each seed (± std over episodes) | steps | s/run |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in ROWS:
        runs = results.get(row.env, [])
        if not runs:
            continue
        means = [run["mean"] for run in runs]
        seeds = ", ".join(f"{run['mean']:.1f} ± {run['std']:.1f}" for run in runs)
        seconds = statistics.median(run["seconds"] for run in runs)
        lines.append(
            f"| {row.env} | {row.target:g} | {statistics.fmean(means):.1f} | {min(means):.1f} | {seeds} "
            f"| {runs[0]['env_steps']:,} | {seconds:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/reference"), help="folder of the runs")
    parser.add_argument("--episodes", type=int, default=100, help="evaluation episodes for each run")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--only", nargs="*", default=[row.env for row in ROWS], help="environments")
    args = parser.parse_args()
    work = [(row, seed) for row in ROWS if row.env in args.only for seed in range(1, row.seeds + 1)]
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        scores = list(pool.map(lambda item: train_and_evaluate(*item, args.output, args.episodes), work))
    record = DOCS / "results.json"
    results = json.loads(record.read_text()) if record.exists() else {}
    for row in ROWS:
        runs = [score for (done, _), score in zip(work, scores, strict=True) if done is row]
        if runs:
            results[row.env] = {"command": row.command, "episodes": args.episodes, "runs": runs}
    record.write_text(json.dumps(results, indent=2) + "\n")
    print(table({env: entry["runs"] for env, entry in results.items()}))


if __name__ == "__main__":
    main()
