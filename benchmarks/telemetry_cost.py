"""What telemetry costs: whole runs at each level, in turn, in one process; ratios of seconds to those of `off`.

A run is training alone: no checkpoint but the first and the last, no picture. TensorBoard files are part of what the
levels above `off` write by default, and are also measured apart.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from esper.runs.layers import Layer, resolve
from esper.runs.presets import preset_layer
from esper.runs.run import run

# Of an update, the least work that there is to hide telemetry behind, and a usual one.
ENVIRONMENTS = {"torch/CartPole-v1": 400_000, "CartPole-v1": 120_000}
VARIANTS: dict[str, dict[str, Any]] = {
    "off": {"telemetry": "off", "tensorboard": False},
    "minimal": {"telemetry": "minimal", "tensorboard": False},
    "normal, no TensorBoard": {"telemetry": "normal", "tensorboard": False},
    "normal": {"telemetry": "normal"},
    "debug": {"telemetry": "debug"},
}


def seconds(env: str, steps: int, variant: dict[str, Any], run_dir: Path, threads: int) -> float:
    """Of training, by a run's own clock."""
    values = {
        "env": env,
        "total_timesteps": steps,
        "threads": threads,
        "run_dir": str(run_dir),
        "checkpoint_every": 10**9,
        "picture": False,
        "quiet": True,
        **variant,
    }
    preset = preset_layer("auto", env)
    layer = Layer(source="benchmark", values=values)
    return run(resolve([preset, layer] if preset else [layer]).config).seconds


def measure(env: str, steps: int, rounds: int, threads: int) -> dict[str, Any]:
    found: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for round_ in range(rounds + 1):
        names = list(VARIANTS)
        # Nobody is always the one after the same other.
        for name in names[round_ % len(names) :] + names[: round_ % len(names)]:
            with tempfile.TemporaryDirectory() as folder:
                taken = seconds(env, steps, VARIANTS[name], Path(folder) / "run", threads)
            # The first round warms up.
            if round_:
                found[name].append(taken)
    ratios = {
        name: [a / b for a, b in zip(values, found["off"], strict=True)]
        for name, values in found.items()
        if name != "off"
    }
    return {
        "steps": steps,
        "off_steps_per_second": round(steps / statistics.median(found["off"])),
        "median_ratio": {name: round(statistics.median(values), 4) for name, values in ratios.items()},
        "ratios": {name: [round(value, 4) for value in values] for name, values in ratios.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    results = {env: measure(env, steps, args.rounds, args.threads) for env, steps in ENVIRONMENTS.items()}
    text = json.dumps(results, indent=2)
    print(text)
    if args.output:
        args.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
