"""Show a trained policy in a window, and print the return of each episode."""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

from esper.scripts.flags import (
    add_time_limit,
    add_trust,
    check_made_by_id,
    fail,
    log_to_stderr,
    number,
    time_limit,
    trusted,
)
from esper.settings.options import Bounds, ConfigError
from esper.storage import files

USAGE = "esper enjoy RUN [--episodes N] [--seed S] [--stochastic] [--max-episode-steps N] [--fps X]"


def add_arguments(parser: argparse.ArgumentParser, *, help_all: bool) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run, or its best")
    parser.add_argument("--episodes", default="5", metavar="N", help="episodes to show (default: 5)")
    parser.add_argument("--seed", default="0", metavar="S", help="seed of the environment (default: 0)")
    parser.add_argument("--stochastic", action="store_true", help="sample actions instead of taking the most likely")
    parser.add_argument("--fps", metavar="X", help="steps a second (default: the environment's rate)")
    add_time_limit(parser)
    add_trust(parser)


def run(args: argparse.Namespace) -> int:
    episodes = number("--episodes", args.episodes, int, Bounds(minimum=1), "esper enjoy")
    seed = number("--seed", args.seed, int, Bounds(minimum=0), "esper enjoy")
    fps = None if args.fps is None else number("--fps", args.fps, float, Bounds(above=0), "esper enjoy")
    limit = time_limit(args, "esper enjoy")
    log_to_stderr(quiet=False)
    from esper.envs.base import EnvError
    from esper.policies.policy import load_policy
    from esper.policies.show import show
    from esper.storage.store import StoreError

    numbers = itertools.count(1)

    def say(episode_return: float, length: int) -> None:
        print(f"episode {next(numbers)}: return {episode_return:.2f}, {length} steps", flush=True)

    try:
        policy = load_policy(args.run, **trusted(args))
        check_made_by_id(policy.environment, f"show(policy, episodes={episodes}", args, "esper enjoy")
        show(
            policy,
            episodes=episodes,
            seed=seed,
            stochastic=args.stochastic,
            fps=fps,
            max_episode_steps=limit,
            on_episode=say,
        )
    except (StoreError, ConfigError, EnvError, OSError) as error:
        fail(files.why(error), "esper enjoy")
    return 0
