"""Checks on a device: the same numbers as on the CPU, no waiting, and rates that a graph really uses.

A part of gpu.py. Prints a line of JSON for each engine, as soon as it is checked.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from esper.envs.make import make_env
from esper.schedules import ScheduleConfig
from esper.simic import NetworkConfig, PPOAgent, PPOConfig, RuntimeConfig
from esper.simic.device_collect import DeviceCollector, Unrolled
from esper.simic.rollout import Rollout
from esper.simic.vectorized import Training

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from synchronisation import synchronisation

ENV, UPDATES = "torch/CartPole-v1", 8


def make_agent(device: str, engine: str, *, quick: bool, **changes: Any) -> PPOAgent:
    width, num_envs = (8, 8) if quick else (64, 256)
    settings: dict[str, Any] = {"num_envs": num_envs, "num_steps": 16, "total_timesteps": UPDATES * num_envs * 16}
    config = PPOConfig(
        **(settings | changes),
        network=NetworkConfig(hidden_sizes=(width, width)),
        runtime=RuntimeConfig(device=device, compile=engine),  # type: ignore[arg-type]
    )
    return PPOAgent(config, make_env(ENV, num_envs=num_envs).spec)


def collect(agent: PPOAgent) -> Callable[[], Rollout]:
    """What collects the next rollout, on the CPU."""
    env: Any = make_env(ENV, num_envs=agent.config.num_envs)
    collector = DeviceCollector(env, 1, agent.device, Unrolled(env, compiled=False))

    def collected() -> Rollout:
        rollout = agent.allocate_rollout()
        collector.collect(agent.network, rollout, agent.generators["actions"])
        return rollout

    return collected


def moved(rollout: Rollout, device: str) -> Rollout:
    names = ("obs", "actions", "rewards", "terminated", "truncated", "final_obs")
    fields: dict[str, Any] = {name: getattr(rollout, name).to(device) for name in names}
    return dataclasses.replace(rollout, **fields)


def equality(device: str, engine: str, quick: bool) -> dict[str, Any]:
    """Updates on the same rollouts, in one minibatch: devices draw other orders."""
    ours, theirs = (
        make_agent(place, kind, quick=quick, num_minibatches=1) for place, kind in (("cpu", "off"), (device, engine))
    )
    next_rollout = collect(ours)
    for _ in range(5):
        rollout = next_rollout()
        ours.update(rollout)
        result = theirs.update(moved(rollout, device))
        if result.fault is not None:
            return {"passed": False, "why": result.fault}
    pairs = list(zip(ours.optimizer.parameters, theirs.optimizer.parameters, strict=True))
    difference = max(float((a - b.cpu()).abs().max()) for a, b in pairs)
    largest = max(float(a.abs().max()) for a, _ in pairs)
    return {"passed": difference <= 1e-3 * largest, "largest_difference": difference, "largest_parameter": largest}


def synchronisations(device: str, engine: str, quick: bool) -> dict[str, Any]:
    """A rollout and its update in steady state, up to the one read."""
    if device == "cpu":
        return {"skipped": "the host is the device"}
    env = make_env(ENV, num_envs=8 if quick else 256)
    training = Training(make_agent(device, engine, quick=quick, normalize_rewards=True), env, env_seed=1)
    for _ in range(3):
        training.update()
    read, reads = torch.Tensor.tolist, 0

    def tolist(tensor: torch.Tensor) -> Any:
        nonlocal reads
        reads += 1
        torch.cuda.set_sync_debug_mode("default")
        return read(tensor)

    torch.Tensor.tolist = tolist  # type: ignore[method-assign, assignment]
    try:
        with synchronisation("error"):
            training.update()
    finally:
        torch.Tensor.tolist = read  # type: ignore[method-assign]
    return {"passed": reads == 1, "reads": reads, **launches(training)}


def launches(training: Training) -> dict[str, int]:
    """How often an update calls the driver, by what it asks for."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        training.update()
    counts = {event.key: event.count for event in profiled.key_averages()}
    names = {
        "kernels": ("cudaLaunchKernel", "cuLaunchKernel", "cuLaunchKernelEx", "cudaLaunchKernelExC"),
        "graphs": ("cudaGraphLaunch",),
        "copies": ("cudaMemcpyAsync",),
        "waits": ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize"),
    }
    return {what: sum(counts.get(name, 0) for name in called) for what, called in names.items()}


def rates(device: str, engine: str, quick: bool) -> dict[str, Any]:
    """The rates of warmup and cosine, as steps show them: Adam's first step is as large as the rate."""
    schedule = ScheduleConfig(peak=1e-3, warmup_steps=3, decay="cosine")
    agent = make_agent(
        *(device, engine),
        quick=quick,
        num_minibatches=1,
        update_epochs=1,
        policy_lr=schedule,
        value_lr=dataclasses.replace(schedule, peak=3e-3),
    )
    rollout = moved(collect(make_agent("cpu", "off", quick=quick))(), device)
    asked, used, forget = [], [], None
    for update in range(UPDATES):
        state = agent.optimizer.state_dict()
        forget = forget or state
        agent.optimizer.load_state_dict({**forget, "learning_rate": state["learning_rate"]})
        before = [flat.clone() for flat in agent.optimizer.parameters]
        agent.update(rollout)
        used.append([float((a - b).abs().max()) for a, b in zip(agent.optimizer.parameters, before, strict=True)])
        asked.append(list(agent.schedules.at(update).learning_rates.values()))
    pairs = [(a, b) for row, measured in zip(asked, used, strict=True) for a, b in zip(row, measured, strict=True)]
    # Epsilon keeps a step a little below the rate, float32 rounds what it is taken from.
    passed = all(abs(a - b) <= 0.02 * a + 1e-7 for a, b in pairs) and len({row[0] for row in asked}) == UPDATES
    return {"passed": passed, "asked": asked, "used": used}


CHECKS = {"equality": equality, "synchronisations": synchronisations, "rates": rates}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("check", choices=CHECKS)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--engines", nargs="+", default=["off", "torch", "graphs"])
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    for engine in args.engines:
        started = time.perf_counter()
        try:
            found = CHECKS[args.check](args.device, engine, args.quick)
        except Exception as error:
            found = {"passed": False, "why": f"{type(error).__name__}: {error}"[:500]}
        print(json.dumps({"name": engine, **found, "seconds": round(time.perf_counter() - started, 1)}), flush=True)


if __name__ == "__main__":
    main()
