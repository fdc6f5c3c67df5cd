"""How time and memory of an update grow with environments, widths, cores and runs at once: docs/scaling.md.

    python benchmarks/scaling_page.py            # measures, some five minutes, and fills the page
    python benchmarks/scaling_page.py --known    # fills it from docs/scaling.json

Everything is torch/CartPole-v1, 128 steps, 4 epochs x 4 minibatches. Each point is a process of its own, whose largest
memory is taken, too. Two small models are fitted, whose constants are in the page: they say what was not measured.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from marked import fill

STEPS = 128
DOCS = Path(__file__).parents[1] / "docs"
PAGE, NUMBERS = DOCS / "scaling.md", DOCS / "scaling.json"
ENVIRONMENTS, WIDTHS, AT_ONCE = (1, 8, 64, 512, 4_096, 65_536), (64, 128, 256, 512, 1_024), (1, 2, 4)
# What is predicted and cannot be measured on a small machine.
BEYOND = (262_144,)
_SECONDS, _FEWEST = 2.0, 3

Point = dict[str, float]


def point(num_envs: int, width: int, threads: int, seconds: float) -> Point:
    """Median seconds of an update, and the largest memory of this process before training and in all."""
    from esper.envs.make import make_env
    from esper.simic import NetworkConfig, PPOAgent, PPOConfig, RuntimeConfig
    from esper.simic.vectorized import Training

    network = NetworkConfig(hidden_sizes=(width, width))
    runtime = RuntimeConfig(compile="native", threads=threads)
    config = PPOConfig(num_envs=num_envs, num_steps=STEPS, network=network, runtime=runtime)
    before = _megabytes()
    env = make_env("torch/CartPole-v1", num_envs=num_envs)
    training = Training(PPOAgent(config, env.spec), env, env_seed=1)
    training.update()
    times: list[float] = []
    while sum(times) < seconds or len(times) < _FEWEST:
        started = time.perf_counter()
        training.update()
        times.append(time.perf_counter() - started)
    return {"seconds": statistics.median(times), "megabytes": _megabytes(), "before": before}


def _megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def started(**values: float) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--point", json.dumps(values)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def result(process: subprocess.Popen[str]) -> Point:
    output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"a point ended with exit status {process.returncode}")
    measured: Point = json.loads(output)
    return measured


def measure(cores: int) -> dict[str, Any]:
    def one(num_envs: int = 64, width: int = 64, threads: int = cores) -> Point:
        return result(started(num_envs=num_envs, width=width, threads=threads, seconds=_SECONDS))

    at_once = {}
    for runs in AT_ONCE:
        # Longer, so that they overlap.
        values = {"num_envs": 64, "width": 64, "threads": 1, "seconds": 8.0}
        at_once[str(runs)] = [result(process) for process in [started(**values) for _ in range(runs)]]
    return {
        "cores": cores,
        "environments": {str(n): one(num_envs=n) for n in ENVIRONMENTS},
        "widths": {str(w): one(width=w) for w in WIDTHS},
        "threads": {str(t): one(width=256, threads=t) for t in range(1, cores + 1)},
        "runs": at_once,
    }


def fitted(columns: Sequence[Sequence[float]], values: Sequence[float]) -> list[float]:
    """Weights, none below 0, with which the columns sum up to `values`, by least squares of the relative error."""
    from scipy.optimize import nnls

    y = np.asarray(values)
    weights, _ = nnls(np.stack(columns, axis=1) / y[:, None], np.ones(len(y)))
    return [float(weight) for weight in weights]


def models(numbers: dict[str, Any]) -> dict[str, list[float]]:
    """Seconds of an update by rows: fixed, and for each row. Of a row by width W: fixed, for each W, for each W^2.

    Megabytes by rows: fixed, and for each row.
    """
    by_envs, by_width = numbers["environments"], numbers["widths"]
    rows = [int(n) * STEPS for n in by_envs]
    widths = [float(w) for w in by_width]
    return {
        "update": fitted([[1.0] * len(rows), rows], [p["seconds"] for p in by_envs.values()]),
        "memory": fitted([[1.0] * len(rows), rows], [p["megabytes"] for p in by_envs.values()]),
        "width": fitted(
            [[1.0] * len(widths), widths, [w * w for w in widths]],
            [p["seconds"] / (64 * STEPS) for p in by_width.values()],
        ),
    }


def environments_table(numbers: dict[str, Any], fit: dict[str, list[float]]) -> str:
    lines = [
        "| environments | update, ms | steps/s | memory, MB | model: ms | model: MB |",
        "|---|---|---|---|---|---|",
    ]
    for n in (*map(int, numbers["environments"]), *BEYOND):
        rows, measured = n * STEPS, numbers["environments"].get(str(n))
        seconds, memory = (fit[name][0] + fit[name][1] * rows for name in ("update", "memory"))
        cells = ["", f"{rows / seconds:,.0f} (model)", ""]
        if measured is not None:
            took = measured["seconds"]
            cells = [f"{1e3 * took:.3g}", f"{rows / took:,.0f}", f"{measured['megabytes']:,.0f}"]
        lines.append(f"| {n:,} | {' | '.join(cells)} | {1e3 * seconds:.3g} | {memory:,.0f} |")
    return "\n".join(lines)


def widths_table(numbers: dict[str, Any], fit: dict[str, list[float]]) -> str:
    lines = ["| hidden layers | update, ms | steps/s | memory, MB | model: ms |", "|---|---|---|---|---|"]
    fixed, linear, square = fit["width"]
    for width, measured in numbers["widths"].items():
        w, rows = int(width), 64 * STEPS
        model = rows * (fixed + linear * w + square * w * w)
        took = measured["seconds"]
        lines.append(
            f"| {w} x {w} | {1e3 * took:.3g} | {rows / took:,.0f} | {measured['megabytes']:,.0f} | {1e3 * model:.3g} |"
        )
    return "\n".join(lines)


def cores_table(numbers: dict[str, Any]) -> str:
    lines = ["| what | threads or runs | steps/s, all together | times one |", "|---|---|---|---|"]
    rows = 64 * STEPS
    for threads, measured in numbers["threads"].items():
        speed = rows / measured["seconds"]
        first = rows / numbers["threads"]["1"]["seconds"]
        lines.append(f"| one run, 256 x 256 | {threads} threads | {speed:,.0f} | {speed / first:.2f} |")
    totals = {runs: sum(rows / each["seconds"] for each in points) for runs, points in numbers["runs"].items()}
    for runs, total in totals.items():
        lines.append(f"| runs of 64 x 64, a thread each | {runs} at once | {total:,.0f} | {total / totals['1']:.2f} |")
    return "\n".join(lines)


def constants(fit: dict[str, list[float]]) -> str:
    update, memory, (fixed, linear, square) = fit["update"], fit["memory"], fit["width"]
    half = update[0] / update[1] / STEPS if update[1] else float("nan")
    wide = (fixed + linear * 64) / (square or float("nan"))
    return "\n".join(
        [
            f"- An update costs {1e3 * update[0]:.2g} ms, and {1e6 * update[1]:.2g} microseconds for each row (a step "
            f"of one environment). Below {half:.2g} environments the fixed part is the larger one.",
            f"- A run takes {memory[0]:,.0f} MB, and {1024 * memory[1]:.2g} kB for each row of a rollout.",
            f"- A row costs {1e6 * fixed:.2g} + {1e6 * linear:.2g} W + {1e6 * square:.2g} W^2 microseconds with two "
            f"layers of width W. The products of weights are the larger part from W = {wide**0.5:.0f}.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--known", action="store_true", help="measure nothing")
    parser.add_argument("--point", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.point is not None:
        print(json.dumps(point(**args.point)))
        return
    from esper.system.machine import usable_cores

    if not args.known:
        NUMBERS.write_text(json.dumps(measure(usable_cores()), indent=1) + "\n")
    numbers = json.loads(NUMBERS.read_text())
    fit = models(numbers)
    fill(
        PAGE,
        {
            "environments": environments_table(numbers, fit),
            "widths": widths_table(numbers, fit),
            "cores": cores_table(numbers),
            "constants": constants(fit),
        },
    )


if __name__ == "__main__":
    main()
