"""Trains the tasks of the whole suite with Stable-Baselines3's PPO and its defaults, as `PPO("MlpPolicy", env)` does.

Run it in an environment of benchmarks/requirements-peers.txt, which needs nothing of this project:

    PYTHONPATH=benchmarks/suite python benchmarks/suite_sb3.py runs/suite/sb3.json --seeds 21 22 23

The file gets the mean return of the episodes that ended in the last tenth of each run. Runs that it has are not
repeated.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tomllib
from pathlib import Path
from typing import Any

import gymnasium as gym
import suite_envs  # noqa: F401  (registers its environments)
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor

SUITE = Path(__file__).parent / "suite"


class Episodes(BaseCallback):
    """`returns`: when each episode ended, in steps, and its return."""

    def __init__(self) -> None:
        super().__init__()
        self.returns: list[tuple[int, float]] = []

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "episode" in info:
                self.returns.append((self.num_timesteps, float(info["episode"]["r"])))
        return True


def make(name: str, settings: dict[str, Any]) -> gym.Env[Any, Any]:
    env_id = settings.get("env", name).removeprefix("torch/").removeprefix("suite_envs:")
    limit = {"max_episode_steps": settings["max_episode_steps"]} if "max_episode_steps" in settings else {}
    return gym.make(env_id, **limit, **json.loads(settings.get("env_kwargs", "{}")))


def final_return(name: str, settings: dict[str, Any], seed: int, timesteps: int) -> float:
    env = Monitor(make(name, settings))
    env.reset(seed=seed)
    episodes = Episodes()
    PPO("MlpPolicy", env, seed=seed, device="cpu").learn(timesteps, callback=episodes)
    last = [value for step, value in episodes.returns if step > 0.9 * timesteps]
    # Where none has ended by then, the last one that has.
    return statistics.fmean(last or [episodes.returns[-1][1]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[21])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these environments alone")
    args = parser.parse_args()
    torch.set_num_threads(1)
    known: dict[str, dict[str, float]] = json.loads(args.file.read_text()) if args.file.exists() else {}
    for seed in args.seeds:
        for plan in (tomllib.loads(path.read_text()) for path in sorted(SUITE.glob("whole-*.toml"))):
            for name, settings in plan["environments"].items():
                runs = known.setdefault(name.replace("/", "-"), {})
                if str(seed) in runs or (args.only and name not in args.only):
                    continue
                runs[str(seed)] = final_return(name, settings, seed, plan["settings"]["total_timesteps"])
                args.file.parent.mkdir(parents=True, exist_ok=True)
                args.file.write_text(json.dumps(known, indent=1) + "\n")
                print(name, seed, runs[str(seed)], flush=True)


if __name__ == "__main__":
    main()
