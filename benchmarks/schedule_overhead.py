"""What a learning-rate schedule costs, or feedback: whole updates with it against constant rates.

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
from esper.schedules import FeedbackConfig, ScheduleConfig
from esper.simic import PPOAgent, PPOConfig, RuntimeConfig
from esper.simic.collect import Collector
from esper.simic.vectorized import Training

# Rates so low that neither agent gets anywhere: what they compute stays the same.
COSINE = ScheduleConfig(peak=1e-7, warmup_frac=0.1, decay="cosine")
ARMS: dict[str, dict[str, Any]] = {
    "constant": {"policy_lr": 1e-7, "value_lr": 1e-7},
    "cosine": {"policy_lr": COSINE, "value_lr": COSINE},
    **{
        f"feedback by {every}": {
            "policy_lr": COSINE,
            "value_lr": COSINE,
            **{f"{group}_lr_kl": FeedbackConfig(target=0.01, every=every) for group in ("policy", "value")},  # type: ignore[arg-type]
        }
        for every in ("update", "minibatch")
    },
}


def make_training(engine: str, arm: str, updates: int, **sizes: int) -> Training:
    settings = {"num_envs": 8, "num_steps": 128, **sizes}
    config = PPOConfig(
        **settings,  # type: ignore[arg-type]
        total_timesteps=updates * settings["num_envs"] * settings["num_steps"],
        **ARMS[arm],
        runtime=RuntimeConfig(compile=engine),  # type: ignore[arg-type]
    )
    env = make_env("torch/CartPole-v1", num_envs=config.num_envs)
    return Training(PPOAgent(config, env.spec), env, env_seed=1)


def ratios(engine: str, arm: str, pairs: int, updates: int) -> list[float]:
    """Seconds of an update of `arm` over those of constant rates, pair by pair."""
    agents = [make_training(engine, each, (pairs + 1) * updates).agent for each in ("constant", arm)]
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


def graphs(arm: str, updates: int) -> dict[str, int]:
    """What Dynamo compiles in `updates` updates of `arm` after the first."""
    training = make_training("torch", arm, updates + 1, num_steps=8, update_epochs=1, num_minibatches=1)
    training.update()
    counters.clear()
    for _ in range(updates):
        training.update()
    return {"updates": training.updates - 1, "graphs": sum(counters["stats"].values())}


def measure(engine: str, arm: str, pairs: int, updates: int) -> dict[str, Any]:
    found = ratios(engine, arm, pairs, updates)
    return {"median_ratio": statistics.median(found), "ratios": found, "updates_per_pair": updates}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--engines", nargs="+", default=["native", "torch"])
    parser.add_argument("--arm", choices=list(ARMS), default="cosine", help="against constant (control: constant)")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--updates", type=int, default=100, help="of each in a pair")
    parser.add_argument("--count-updates", type=int, default=10_000, help="in which recompilations are counted")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {engine: measure(engine, args.arm, args.pairs, args.updates) for engine in args.engines}
    if args.count_updates:
        results["recompilations"] = graphs(args.arm, args.count_updates)
    text = json.dumps(results, indent=2)
    print(text)
    if args.output:
        args.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
