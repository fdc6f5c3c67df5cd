"""What a learning-rate schedule costs: whole updates under warmup and cosine against constant rates.

Two agents that differ in nothing but their schedules learn from the same rollout, an update each in turn; a pair is so
many of them, and the ratio of the two medians. Under torch.compile the graphs that Dynamo makes are counted as well,
over thousands of updates whose rates all differ.
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
from esper.simic.collect import Collector
from esper.simic.vectorized import Training

# Rates so low that neither agent gets anywhere: what they compute stays the same.
SCHEDULES = {
    "constant": ScheduleConfig(peak=1e-7),
    "warmup and cosine": ScheduleConfig(peak=1e-7, warmup_frac=0.1, decay="cosine"),
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
    """Seconds of an update with schedules over those without, pair by pair."""
    agents = [make_training(engine, schedule, (pairs + 1) * updates).agent for schedule in SCHEDULES.values()]
    rollout = agents[0].allocate_rollout()
    env = make_env("CartPole-v1", num_envs=agents[0].spec.num_envs)
    Collector(env, 1).collect(agents[0].network, rollout, agents[0].generators["actions"])
    found = []
    for _ in range(pairs + 1):
        seconds: tuple[list[float], list[float]] = [], []
        for update in range(updates):
            # Who goes first alternates too.
            for index in (0, 1) if update % 2 else (1, 0):
                started = time.perf_counter()
                agents[index].update(rollout)
                seconds[index].append(time.perf_counter() - started)
        found.append(statistics.median(seconds[1]) / statistics.median(seconds[0]))
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
    return {"median_ratio": statistics.median(found), "ratios": found, "updates_per_pair": updates}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--engines", nargs="+", default=["native", "torch"])
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--updates", type=int, default=100, help="of each in a pair")
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
