"""Environment steps per second of training on a device, in steady state, one workload and engine after the other.

A part of gpu.py. Prints a line of JSON for each, as soon as it is measured.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any, ClassVar

import torch
from torch import Tensor

from esper.envs.base import DiscreteActions, Images
from esper.envs.device.dynamics import Dynamics, Outcome
from esper.envs.device.registry import DYNAMICS
from esper.envs.make import make_env
from esper.simic import NetworkConfig, PPOAgent, PPOConfig, RuntimeConfig
from esper.simic.vectorized import Training
from esper.telemetry.events import UpdateCompleted

CARTPOLE, WARM_UP_UPDATES = {"env": "torch/CartPole-v1", "hidden_sizes": (64, 64)}, 3
WORKLOADS: dict[str, dict[str, Any]] = {
    "CartPole, 512 environments": {**CARTPOLE, "num_envs": 512, "num_steps": 128},
    "CartPole, 4,096 environments": {**CARTPOLE, "num_envs": 4096, "num_steps": 32},
    "CartPole, 65,536 environments": {**CARTPOLE, "num_envs": 65536, "num_steps": 16},
    "MinAtar Breakout, 1,024 environments": {
        "env": "torch/MinAtar/Breakout",
        "num_envs": 1024,
        "num_steps": 32,
        "hidden_sizes": (64, 64),
    },
    "frames of 84x84x4, Nature, 256 environments": {
        "env": "torch/Frames",
        "num_envs": 256,
        "num_steps": 32,
        "hidden_sizes": (512,),
        "shared_trunk": True,
        "encoder": "nature",
    },
    "CartPole, 1024x1024, 4,096 environments": {
        **CARTPOLE,
        "num_envs": 4096,
        "num_steps": 32,
        "hidden_sizes": (1024, 1024),
    },
}


class Frames(Dynamics):
    """Images that cost nothing to make, as many bytes as those of Atari: the network is what is measured."""

    observations: ClassVar[Images] = Images(shape=(4, 84, 84), highest=255)
    state_size, begin_draws = 1, 1
    actions: ClassVar[DiscreteActions] = DiscreteActions(n=6)
    max_episode_steps = 1000

    def begin(self, state: Tensor, uniform: Tensor) -> Tensor:
        return uniform

    def step(self, state: Tensor, action: Tensor, uniform: Tensor) -> Outcome:
        state = (state * 1.618 + 0.1) % 1.0
        return Outcome(state, (action == 0).float(), torch.zeros_like(action, dtype=torch.bool))

    def observe(self, state: Tensor) -> Tensor:
        pixels = torch.arange(4 * 84 * 84, device=state.device).view(4, 84, 84)
        return ((pixels + (state * 255).long()[:, :, None, None]) % 256).to(torch.uint8)


def measure(workload: dict[str, Any], runtime: RuntimeConfig, seconds: float) -> dict[str, Any]:
    """Train for about `seconds` after the warm-up."""
    names = ("hidden_sizes", "shared_trunk", "encoder")
    network = {name: workload[name] for name in names if name in workload}
    env = make_env(workload["env"], num_envs=workload["num_envs"])
    config = PPOConfig(
        num_envs=workload["num_envs"],
        num_steps=workload["num_steps"],
        total_timesteps=10**12,
        network=NetworkConfig(**network),
        runtime=runtime,
    )
    on_card = runtime.device.startswith("cuda")
    if on_card:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(runtime.device)
    started = time.perf_counter()
    training = Training(PPOAgent(config, env.spec), env, env_seed=1)
    event = training.update()
    first = time.perf_counter() - started
    for _ in range(WARM_UP_UPDATES - 1):
        training.update()
    ends = [time.perf_counter()]
    while ends[-1] - ends[0] < seconds or len(ends) < 3:
        event = training.update()
        ends.append(time.perf_counter())
    return {
        "steps_per_second": (len(ends) - 1) * config.batch_size / (ends[-1] - ends[0]),
        "first_update_seconds": first,
        "updates": training.updates,
        "engine": training.agent.updater.engine_name,
        "score": event.episode_return_mean if isinstance(event, UpdateCompleted) else None,
        "peak_memory_mib": torch.cuda.max_memory_allocated(runtime.device) / 2**20 if on_card else None,
    }


def quick(workload: dict[str, Any]) -> dict[str, Any]:
    """The same, as small as it can be."""
    return {**workload, "num_envs": 4, "num_steps": 2, "hidden_sizes": (8,)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--engines", nargs="+", default=["torch", "off", "graphs"])
    parser.add_argument("--precisions", nargs="+", default=["float32"])
    parser.add_argument("--workloads", nargs="+", default=list(WORKLOADS), choices=WORKLOADS, metavar="NAME")
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    assert isinstance(DYNAMICS, dict)
    DYNAMICS["Frames"] = Frames
    for name in args.workloads:
        workload = quick(WORKLOADS[name]) if args.quick else WORKLOADS[name]
        for engine in args.engines:
            for precision in args.precisions:
                line = {"name": name, "compile": engine, "precision": precision, "num_steps": workload["num_steps"]}
                try:
                    runtime = RuntimeConfig(device=args.device, compile=engine, precision=precision)
                    line |= measure(workload, runtime, args.seconds)
                except Exception as error:
                    line |= {"failed": f"{type(error).__name__}: {error}"[:500]}
                print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
