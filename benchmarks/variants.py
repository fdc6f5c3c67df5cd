"""Kernels that a wheel carries beside those compiled for this machine: CPU time of training, by turns in one process.

    python benchmarks/variants.py FOLDER --output variants.json     # FOLDER: the kernels, from an unpacked wheel

CPU time, with one thread: other work on the machine delays a run, but hardly adds to that.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import time
from pathlib import Path

import torch

from esper.envs.make import make_env
from esper.simic import NetworkConfig, PPOAgent, PPOConfig, RuntimeConfig, train_ppo_vectorized
from esper.simic.engines.native import layout, library

# Environment, how many, updates, network: about half a second each.
WORKLOADS = {
    "CartPole, 8 environments": ("torch/CartPole-v1", 8, 120, NetworkConfig()),
    "CartPole, 64 environments": ("torch/CartPole-v1", 64, 20, NetworkConfig()),
    "Breakout, 8 environments, encoder small": ("torch/MinAtar/Breakout", 8, 8, NetworkConfig(encoder="small")),
}


def seconds(workload: str, loaded: library.Loaded) -> float:
    """CPU time of training from the beginning."""
    layout.load_library = lambda: loaded
    name, num_envs, updates, network = WORKLOADS[workload]
    config = PPOConfig(
        total_timesteps=num_envs * 128 * updates,
        num_envs=num_envs,
        network=network,
        runtime=RuntimeConfig(compile="native", threads=1),
    )
    env = make_env(name, num_envs=num_envs)
    agent = PPOAgent(config, env.spec, seed=1)
    started = time.process_time()
    train_ppo_vectorized(agent, env)
    taken = time.process_time() - started
    env.close()
    return taken


def measure(workload: str, variants: list[library.Loaded], rounds: int) -> dict[str, list[float]]:
    """Seconds by variant; the order turns around in every other round."""
    taken: dict[str, list[float]] = {variant.variant: [] for variant in variants}
    for turn in range(rounds + 1):
        for variant in variants[:: 1 if turn % 2 else -1]:
            value = seconds(workload, variant)
            if turn:  # the first one fills caches
                taken[variant.variant].append(value)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    own = library._load(library.find_compiler())
    if isinstance(own, library.BuildError):
        raise own
    carried = sorted(args.folder.glob("kernels-*.so"))
    variants = [own, *(library.Loaded(ctypes.CDLL(str(path)), path.stem.partition("-")[2]) for path in carried)]
    taken = {}
    for workload in WORKLOADS:
        taken[workload] = measure(workload, variants, args.rounds)
        print(workload)
        base = statistics.median(taken[workload][own.variant])
        for variant, values in taken[workload].items():
            middle, spread = statistics.median(values), max(values) - min(values)
            print(f"  {variant:26} {middle:.3f} s  {middle / base:.2f} of own  (spread {spread:.3f})", flush=True)
    if args.output:
        args.output.write_text(json.dumps(taken, indent=1) + "\n")


if __name__ == "__main__":
    main()
