"""How training scales with environments, network width and cores, and how far it is from what the machine can do.

Everything is on torch/CartPole-v1, 128 steps, 4 epochs x 4 minibatches. Settings take turns in one process, a few
updates each, round after round; medians over rounds. The arithmetic limit is the rate of the largest matrix product of
a minibatch, measured in the same rounds on the same number of threads, over the operations that a step needs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from esper.envs.base import VectorEnv
from esper.envs.make import make_env
from esper.simic import NetworkConfig, PPOAgent, PPOConfig, RuntimeConfig
from esper.simic.losses import Minibatch
from esper.simic.vectorized import Training
from esper.system.machine import usable_cores

OBSERVATION, ACTIONS, STEPS, EPOCHS, MINIBATCHES = 4, 2, 128, 4, 4
SECONDS_IN_A_TURN = 0.3


@dataclass(kw_only=True)
class Setting:
    """One point of a scaling curve: what it is, and how often it was timed."""

    num_envs: int = 64
    width: int = 64
    threads: int = 1
    engine: str = "native"
    training: Training = field(init=False)
    train: list[float] = field(default_factory=list)
    update: list[float] = field(default_factory=list)
    product: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        config = PPOConfig(
            num_envs=self.num_envs,
            num_steps=STEPS,
            update_epochs=EPOCHS,
            num_minibatches=MINIBATCHES,
            network=NetworkConfig(hidden_sizes=(self.width, self.width)),
            runtime=RuntimeConfig(compile=self.engine, threads=self.threads),  # type: ignore[arg-type]
        )
        env = make_env("torch/CartPole-v1", num_envs=self.num_envs)
        self.training = Training(PPOAgent(config, env.spec), env, env_seed=1)

    def take_turn(self) -> None:
        torch.set_num_threads(1 if self.engine == "native" else self.threads)
        batch_size = self.num_envs * STEPS
        self.train.append(batch_size / seconds_per_call(self.training.update))
        self.update.append(batch_size / seconds_per_call(self._minibatch_steps()))
        torch.set_num_threads(self.threads)
        self.product.append(self._product_flops() / seconds_per_call(self._product()))

    def _minibatch_steps(self) -> Callable[[], object]:
        rows = self.num_envs * STEPS
        agent = self.training.agent
        batch = Minibatch(
            torch.randn(rows, OBSERVATION), torch.randint(ACTIONS, (rows,)), torch.full((rows,), -0.7),
            torch.zeros(rows), torch.randn(rows), torch.randn(rows),
        )  # fmt: skip
        # At rate 0: the network that trains between is not to be spoilt by noise.
        agent.optimizer.set_learning_rates({"policy": 0.0, "value": 0.0})
        generator = torch.Generator()
        return lambda: agent.updater.optimize(batch, agent.updater.draw_orders(generator))

    def _product_flops(self) -> float:
        return 2 * 2 * self.num_envs * STEPS / MINIBATCHES * self.width**2

    def _product(self) -> Callable[[], object]:
        left = torch.randn(2, self.num_envs * STEPS // MINIBATCHES, self.width)
        right, out = torch.randn(2, self.width, self.width), torch.empty_like(left)
        return lambda: torch.bmm(left, right, out=out)

    def result(self) -> dict[str, Any]:
        train, update, product = (statistics.median(x) for x in (self.train, self.update, self.product))
        forward = 2 * (OBSERVATION * self.width + self.width**2)
        actor, critic = forward + 2 * self.width * ACTIONS, forward + 2 * self.width
        # Backward is twice the forward, but for the gradient by the observations, which nobody needs.
        step = 3 * (actor + critic) - 2 * 2 * OBSERVATION * self.width
        return {
            "num_envs": self.num_envs,
            "width": self.width,
            "threads": self.threads,
            "engine": self.engine,
            "train_steps_per_second": train,
            "update_steps_per_second": update,
            "matrix_product_gflops": product / 1e9,
            "update_share_of_matrix_product": update * EPOCHS * step / product,
            # A step acts once, is evaluated once, and is learned from in every epoch.
            "train_share_of_matrix_product": train * (actor + actor + critic + EPOCHS * step) / product,
        }


def seconds_per_call(call: Callable[[], object]) -> float:
    calls, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < SECONDS_IN_A_TURN:
        call()
        calls += 1
    return elapsed / calls


def environment_only(names: Iterable[str], num_envs: int) -> dict[str, float]:
    """Steps per second with random actions, and nothing learned."""
    return {name: num_envs / seconds_per_call(_stepping(make_env(name, num_envs=num_envs))) for name in names}


def _stepping(env: VectorEnv) -> Callable[[], object]:
    env.reset(1)
    rng = np.random.default_rng(1)
    actions = itertools.cycle(rng.integers(ACTIONS, size=(STEPS, env.spec.num_envs)))
    return lambda: env.step(next(actions))


def measure(settings: list[Setting], rounds: int) -> list[dict[str, Any]]:
    for setting in settings:
        setting.training.update()
    for _ in range(rounds):
        for setting in settings:
            setting.take_turn()
    return [setting.result() for setting in settings]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="fewer points: 8 and 64 environments, width 64")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    cores = usable_cores()
    threads = sorted({1, cores})
    envs = (8, 64) if args.quick else (1, 8, 64, 512, 4096)
    results: dict[str, Any] = {
        "environments": measure([Setting(num_envs=n, threads=t) for n in envs for t in threads], args.rounds),
        "environment_only": {n: environment_only(("CartPole-v1", "torch/CartPole-v1"), n) for n in envs},
    }
    if not args.quick:
        widths, engines = (32, 64, 128, 256, 512), ("native", "torch", "off")
        results["width"] = measure([Setting(width=width, threads=cores) for width in widths], args.rounds)
        results["engine"] = measure([Setting(num_envs=n, engine=e) for n in (8, 64) for e in engines], args.rounds)
    text = json.dumps(results, indent=2)
    print(text)
    if args.output:
        args.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
