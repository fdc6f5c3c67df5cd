"""Two checkouts side by side: environment steps per second of updates, in interleaved blocks.

`python benchmarks/versions.py OLD NEW` with the folders of two checkouts; what both install must be installed here.
Each pair is a block of updates of OLD, of NEW, and of NEW in another process as a control: the ratio NEW / OLD says
something where its interval leaves that of the control.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

CASES: dict[str, dict[str, Any]] = {
    "kernels, torch/CartPole-v1, 8 x 128": {"env": "torch/CartPole-v1", "num_envs": 8},
    "kernels, torch/CartPole-v1, 64 x 128": {"env": "torch/CartPole-v1", "num_envs": 64},
    "kernels, CartPole-v1, 8 x 128": {"env": "CartPole-v1", "num_envs": 8},
    "kernels, CartPole-v1 by sync, 8 x 128": {"env": "CartPole-v1", "num_envs": 8, "vector": "sync"},
    "kernels, normalized, HalfCheetah-v4, 8 x 128": {"env": "HalfCheetah-v4", "num_envs": 8, "normalize": True},
    "torch, shared trunk, torch/CartPole-v1, 8 x 128": {"env": "torch/CartPole-v1", "num_envs": 8, "shared": True},
    "torch, LSTM 64, CartPole-v1, 16 x 32": {"env": "CartPole-v1", "num_envs": 16, "num_steps": 32, "lstm": 64},
    # The preset's: 10 epochs of one minibatch.
    "auto, LSTM 64, CartPole-v1, 16 x 32, 10 epochs": {
        "env": "CartPole-v1",
        "num_envs": 16,
        "num_steps": 32,
        "num_minibatches": 1,
        "update_epochs": 10,
        "lstm": 64,
        "hidden_sizes": (64,),
        "compile": "auto",
    },
}


def work(case: dict[str, Any]) -> None:
    """A worker: for each line on standard input so many seconds of updates, and the steps per second of them."""
    import torch

    from esper.envs.make import make_env
    from esper.simic import NetworkConfig, PPOAgent, PPOConfig, RuntimeConfig
    from esper.simic.vectorized import Training

    torch.set_num_threads(1)
    env = make_env(case["env"], num_envs=case["num_envs"], vector=case.get("vector", "auto"))
    normalize = case.get("normalize", False)
    compiled = case.get("compile", "auto" if "lstm" not in case and "shared" not in case else "off")
    network = NetworkConfig(
        hidden_sizes=tuple(case.get("hidden_sizes", (64, 64))),
        lstm_size=case.get("lstm"),
        shared_trunk=case.get("shared", False),
        normalize_observations=normalize,
    )
    config = PPOConfig(
        num_envs=case["num_envs"],
        num_steps=case.get("num_steps", 128),
        num_minibatches=case.get("num_minibatches", 4),
        update_epochs=case.get("update_epochs", 4),
        total_timesteps=10**9,
        normalize_rewards=normalize,
        network=network,
        runtime=RuntimeConfig(threads=1, compile=compiled),
    )
    training = Training(PPOAgent(config, env.spec, seed=1), env, env_seed=1)
    training.update()
    print("ready", flush=True)
    for line in sys.stdin:
        # What another process has left in the caches is not to be measured.
        for _ in range(3):
            training.update()
        events, started = [], time.perf_counter()
        end = started + float(line)
        training.run(on_event=events.append, should_stop=lambda end=end: time.perf_counter() >= end)
        print(len(events) * config.batch_size / (time.perf_counter() - started), flush=True)


class Worker:
    """A process with the sources of `checkout`."""

    def __init__(self, checkout: Path, case: dict[str, Any]) -> None:
        env = os.environ | {"PYTHONPATH": str(checkout.resolve() / "src"), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__, "--work", json.dumps(case)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        assert self._line() == "ready"

    def rate(self, seconds: float) -> float:
        """Steps per second of the next block."""
        assert self._process.stdin is not None
        print(seconds, file=self._process.stdin, flush=True)
        return float(self._line())

    def close(self) -> None:
        self._process.communicate()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def interval(ratios: list[float]) -> tuple[float, float, float]:
    """Median, and the order statistics around it that hold it with 95 %, by the binomial distribution."""
    ordered, count = sorted(ratios), len(ratios)
    # The normal approximation of the rank: n/2 -+ 1.96 sqrt(n)/2.
    reach = int(0.98 * count**0.5 + 1)
    low, high = max(0, count // 2 - reach), min(count - 1, (count - 1) // 2 + reach)
    return statistics.median(ordered), ordered[low], ordered[high]


def compare(old: Path, new: Path, case: dict[str, Any], pairs: int, seconds: float) -> dict[str, Any]:
    workers = [Worker(checkout, case) for checkout in (old, new, new)]
    for worker in workers:
        worker.rate(seconds)
    rows, rng = [], random.Random(0)
    for _ in range(pairs):
        order = rng.sample(workers, len(workers))
        rates = {id(worker): worker.rate(seconds) for worker in order}
        rows.append([rates[id(worker)] for worker in workers])
    for worker in workers:
        worker.close()
    return {
        "steps_per_second": [round(statistics.median(column)) for column in zip(*rows, strict=True)][:2],
        "new_to_old": [round(value, 3) for value in interval([b / a for a, b, _ in rows])],
        "control": [round(value, 3) for value in interval([b / c for _, b, c in rows])],
    }


def main() -> None:
    if sys.argv[1] == "--work":
        return work(json.loads(sys.argv[2]))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=0.7, help="of a block")
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--output", type=Path, help="JSON file of the results")
    args = parser.parse_args()
    results = {}
    for name in args.cases:
        results[name] = compare(args.old, args.new, CASES[name], args.pairs, args.seconds)
        print(f"{name}: {results[name]}", flush=True)
    if args.output:
        args.output.write_text(json.dumps(results, indent=2) + "\n")
    return None


if __name__ == "__main__":
    main()
