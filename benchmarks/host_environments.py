"""Where the time of a step of Gymnasium's environments goes, by the way they are stepped: nothing is learned.

Ways take turns in one process, round after round. Of each the fastest turn counts, in microseconds of wall time for a
step of one environment, and the cheapest, in microseconds of CPU time of all processes together: on a busy machine only
the latter compares. "alone" is a loop over the environments, without a vector environment. EnvPool is timed where it is
installed.

    python benchmarks/host_environments.py --output results.json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

from esper.envs.make import make_env
from esper.settings.options import ConfigError

ENVS = ("CartPole-v1", "Acrobot-v1", "HalfCheetah-v5")
NUM_ENVS = (8, 32)
WORKERS = (1, 2, 4, 8)

Stepper = tuple[Callable[[Any], Any], Callable[[], None]]


def alone(env: str, num_envs: int) -> Stepper:
    envs = [gymnasium.make(env, disable_env_checker=True) for _ in range(num_envs)]
    for each in envs:
        each.reset(seed=1)

    def step(actions: Any) -> None:
        for each, action in zip(envs, actions, strict=True):
            _, _, terminated, truncated, _ = each.step(action)
            if terminated or truncated:
                each.reset()

    return step, lambda: [each.close() for each in envs].clear()


def gymnasiums(env: str, num_envs: int, kind: Any) -> Stepper:
    made = kind([lambda: gymnasium.make(env, disable_env_checker=True)] * num_envs)
    made.reset(seed=1)
    return made.step, made.close


def ours(env: str, num_envs: int, **settings: Any) -> Stepper:
    made = make_env(env, num_envs=num_envs, **settings)
    made.reset(1)
    return made.step, made.close


def ways(env: str, num_envs: int) -> dict[str, Callable[[], Stepper]]:
    numbers = [number for number in WORKERS if number <= num_envs]
    return {
        "alone": lambda: alone(env, num_envs),
        "Gymnasium's sync": lambda: gymnasiums(env, num_envs, SyncVectorEnv),
        "Gymnasium's async": lambda: gymnasiums(env, num_envs, AsyncVectorEnv),
        "sync": lambda: ours(env, num_envs, vector="sync"),
        **{
            f"async, {number}": lambda number=number: ours(env, num_envs, vector="async", env_workers=number)
            for number in numbers
        },
        "envpool": lambda: ours(env, num_envs, vector="envpool"),
    }


def actions_of(env: str, num_envs: int) -> Any:
    space = gymnasium.make(env).action_space
    rng = np.random.default_rng(1)
    if space.shape:
        return rng.uniform(-1, 1, (num_envs, *space.shape)).astype(np.float32)
    return rng.integers(0, space.n, num_envs)  # type: ignore[attr-defined]


def cpu_seconds() -> float:
    """Of this process and its workers, which have a thread each."""
    nanoseconds = 0
    for child in multiprocessing.active_children():
        nanoseconds += int(Path(f"/proc/{child.pid}/schedstat").read_text().split()[0])
    return time.process_time() + nanoseconds / 1e9


def turn(step: Callable[[Any], Any], actions: Any, seconds: float) -> tuple[float, float]:
    """Microseconds for a step of one environment, by the clock and of CPUs."""
    steps, used, started = 0, cpu_seconds(), time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        step(actions)
        steps += 1
    return 1e6 * elapsed / steps / len(actions), 1e6 * (cpu_seconds() - used) / steps / len(actions)


def measured(env: str, num_envs: int, rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    actions = actions_of(env, num_envs)
    steppers: dict[str, Stepper] = {}
    for name, make in ways(env, num_envs).items():
        with contextlib.suppress(ConfigError):
            steppers[name] = make()
    # Processes that wait for their turn are asleep.
    turns: dict[str, list[tuple[float, float]]] = {name: [] for name in steppers}
    for _ in range(rounds):
        for name, (step, _) in steppers.items():
            turns[name].append(turn(step, actions, seconds))
    for _, close in steppers.values():
        close()
    best = {name: [min(each) for each in zip(*found, strict=True)] for name, found in turns.items()}
    return {name: {"wall": round(wall, 1), "cpu": round(cpu, 1)} for name, (wall, cpu) in best.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--envs", nargs="+", default=list(ENVS))
    parser.add_argument("--num-envs", nargs="+", type=int, default=list(NUM_ENVS))
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=0.05, help="of a turn")
    parser.add_argument("--output", type=Path, help="JSON file of the results")
    args = parser.parse_args()
    results: list[dict[str, Any]] = []
    for env in args.envs:
        for num_envs in args.num_envs:
            found = measured(env, num_envs, args.rounds, args.seconds)
            results.append({"env": env, "num_envs": num_envs, "microseconds": found})
            said = ", ".join(f"{name} {us['wall']} ({us['cpu']})" for name, us in found.items())
            print(f"{env}, {num_envs}, wall (cpu): {said}", flush=True)
    if args.output:
        args.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
