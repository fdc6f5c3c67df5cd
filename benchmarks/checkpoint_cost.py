"""What a checkpoint costs a run: its stall, its writing, and what both take from the updates meanwhile.

Blocks of updates without checkpoints, and with one after each update, alternate in one process; medians over blocks.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import torch

from esper.envs.config import EnvConfig
from esper.envs.make import make_for_training
from esper.runs.checkpoint.config import CheckpointConfig
from esper.runs.checkpoint.folder import checkpoints_in
from esper.runs.checkpoint.keeper import CheckpointKeeper
from esper.runs.config import RunConfig
from esper.runs.state import capture_run
from esper.simic.config import NetworkConfig, PPOConfig, RuntimeConfig
from esper.simic.ppo import PPOAgent
from esper.simic.vectorized import Training

# Environment, hidden sizes, steps of a rollout, updates in a block. Two networks of width 2230 have 10 million weights.
CASES = {
    "CartPole-v1, 64x64": ("CartPole-v1", (64, 64), 128, 20),
    "CartPole-v1, 10 million parameters": ("CartPole-v1", (2230, 2230), 16, 4),
    "HalfCheetah-v4, 64x64": ("HalfCheetah-v4", (64, 64), 128, 10),
}


def measure(env: str, hidden_sizes: tuple[int, ...], num_steps: int, updates: int, blocks: int) -> dict[str, float]:
    ppo = PPOConfig(
        num_steps=num_steps,
        network=NetworkConfig(hidden_sizes=hidden_sizes),
        runtime=RuntimeConfig(compile="off"),
    )
    config = RunConfig(environment=EnvConfig(env=env), ppo=ppo, checkpoints=CheckpointConfig(keep_checkpoints=1))
    vector_env = make_for_training(config.environment, ppo.num_envs)
    training = Training(PPOAgent(ppo, vector_env.spec), vector_env, env_seed=1)
    stalls: list[float] = []
    writes: list[float] = []
    plain: list[float] = []
    with_saves: list[float] = []
    with tempfile.TemporaryDirectory(dir=".") as folder:
        keeper = CheckpointKeeper(Path(folder), config.checkpoints)
        for block in range(2 * blocks + 2):
            started, saving = time.perf_counter(), block % 2 == 1
            for _ in range(updates):
                training.update()
                if saving:
                    ready = time.perf_counter()
                    state = capture_run(config, training, 0)
                    stalls.append(time.perf_counter() - ready)
                    saved = keeper.save(training.rollouts, state)
                    writes += [] if saved is None else [saved.seconds]
            keeper.wait()
            # The first block of each kind warms up.
            if block > 1:
                (with_saves if saving else plain).append(time.perf_counter() - started)
        size = sum(file.stat().st_size for file in checkpoints_in(Path(folder))[0].iterdir())
    vector_env.close()
    cost = statistics.median(a - b for a, b in zip(with_saves, plain, strict=True)) / updates
    update = statistics.median(plain) / updates
    return {
        "parameters": sum(parameter.numel() for parameter in training.agent.network.parameters()),
        "bytes": size,
        "update_seconds": update,
        "capture_seconds": statistics.median(stalls),
        "write_seconds_in_background": statistics.median(writes),
        "cost_seconds": cost,
        "cost_share_every_5_minutes": cost / 300,
        "blocks": len(plain),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--blocks", type=int, default=9)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    results = {name: measure(*case, args.blocks) for name, case in CASES.items()}
    text = json.dumps(results, indent=2)
    print(text)
    if args.output:
        args.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
