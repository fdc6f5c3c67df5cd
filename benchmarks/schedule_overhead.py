"""What a learning-rate schedule costs: whole updates under warmup and cosine against constant rates.

Blocks of updates with one and the other alternate in one process, and each pair gives a ratio. Under torch.compile the
graphs that Dynamo makes are counted as well, over thousands of updates whose rates all differ.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch._dynamo.utils import counters

from esper.envs.make import make_env
from esper.simic import PPOAgent, PPOConfig, RuntimeConfig, ScheduleConfig
from esper.simic.vectorized import Training

SCHEDULES = {
    "constant": ScheduleConfig(),
    "warmup and cosine": ScheduleConfig(warmup_frac=0.1, decay="cosine"),
}


def make_training(engine: str, schedule: ScheduleConfig, updates: int, **sizes: int) -> Training:
    settings = {"num_envs": 8, "num_steps": 128, **sizes}
    config = PPOConfig(
        **settings,  # type: ignore[arg-type]
        total_timesteps=updates * settings["num_envs"] * settings["num_steps"],
        policy_lr=schedule,
        value_lr=schedule,
        runtime=RuntimeConfig(compile=engine),  # type: ignore[arg-type]
    )
    env = make_env("torch/CartPole-v1", num_envs=config.num_envs)
    return Training(PPOAgent(config, env.spec), env, env_seed=1)


def ratios(engine: str, pairs: int, updates: int) -> list[float]:
    """Seconds per update with schedules over those without, pair by pair."""
    trainings = [make_training(engine, schedule, (pairs + 1) * updates) for schedule in SCHEDULES.values()]
    found = []
    for pair in range(pairs + 1):
        seconds = {}
        # Who begins alternates too.
        for index in (0, 1) if pair % 2 else (1, 0):
            started = time.perf_counter()
            for _ in range(updates):
                trainings[index].update()
            seconds[index] = time.perf_counter() - started
        found.append(seconds[1] / seconds[0])
    # The first pair compiles and warms up.
    return found[1:]


def graphs(updates: int) -> dict[str, int]:
    """What Dynamo compiles in `updates` updates after the first."""
    training = make_training(
        "torch", SCHEDULES["warmup and cosine"], updates + 1, num_steps=8, update_epochs=1, num_minibatches=1
    )
    training.update()
    counters.clear()
    for _ in range(updates):
        training.update()
    return {"updates": training.rollouts - 1, "graphs": sum(counters["stats"].values())}


def measure(engine: str, pairs: int, updates: int) -> dict[str, Any]:
    found = ratios(engine, pairs, updates)
    return {"median_ratio": statistics.median(found), "ratios": found, "updates_per_block": updates}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--engines", nargs="+", default=["native", "torch"])
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--updates", type=int, default=100, help="in a block")
    parser.add_argument("--count-updates", type=int, default=10_000, help="in which recompilations are counted")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {engine: measure(engine, args.pairs, args.updates) for engine in args.engines}
    results["recompilations"] = graphs(args.count_updates)
    text = json.dumps(results, indent=2)
    print(text)
    if args.output:
        args.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
