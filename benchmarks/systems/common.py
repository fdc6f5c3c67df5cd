"""What the scripts of the systems share: their arguments, the clock, and the line that they print.

Each script trains PPO once, in a process of its own, and prints one JSON object as its last line:

    start_to_first_update_seconds  from here, before the system's own imports, to the end of the first update
    steady_steps_per_second        environment steps by rollouts and updates together, without the first 3 updates
    seconds                        from here to the end of training; an evaluation afterwards is not in it
    peak_memory_mib                the largest resident set of the process

It ends with status 3 and says what to install where a package is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

STARTED = time.perf_counter()
# The first updates import lazily, compile and fill caches.
WARM_UP_UPDATES = 3
MISSING_STATUS = 3

# What no workload changes; learning rates are constant, advantages are standardised in each minibatch, actor and
# critic are apart, and observations and rewards are not scaled.
GAMMA = 0.99
GAE_LAMBDA = 0.95
CLIP_COEF = 0.2
ENTROPY_COEF = 0.0
VALUE_COEF = 0.5
MAX_GRAD_NORM = 0.5
ADAM_EPS = 1e-5


class Arguments(argparse.Namespace):
    """One workload, as every script takes it."""

    env: str
    num_envs: int
    num_steps: int
    update_epochs: int
    num_minibatches: int
    lr: float
    hidden: list[int]
    seed: int
    threads: int
    timesteps: int

    @property
    def batch_size(self) -> int:
        return self.num_envs * self.num_steps

    @property
    def minibatch_size(self) -> int:
        return self.batch_size // self.num_minibatches

    @property
    def updates(self) -> int:
        return -(-self.timesteps // self.batch_size)


class Clock:
    """When each update ended, in seconds since `STARTED`."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def now(self) -> float:
        return time.perf_counter() - STARTED

    def tick(self) -> None:
        self.ends.append(self.now())


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a system says of its run; `extra` goes into the printed line as it is."""

    env_implementation: str
    score: float | None
    score_of: str = "last 100 training episodes"
    extra: dict[str, Any] = field(default_factory=dict)


def argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--env", default="CartPole-v1", help="environment id")
    parser.add_argument("--num-envs", type=int, default=8, help="environments stepped together")
    parser.add_argument("--num-steps", type=int, default=128, help="steps per environment in a rollout")
    parser.add_argument("--update-epochs", type=int, default=4, help="passes over a rollout")
    parser.add_argument("--num-minibatches", type=int, default=4, help="minibatches per pass")
    parser.add_argument("--lr", type=float, default=2.5e-4, help="learning rate")
    parser.add_argument("--hidden", type=int, nargs="+", default=[64, 64], help="widths of the hidden layers")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--timesteps", type=int, default=300_000, help="environment steps, in whole rollouts")
    return parser


def network_options(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """`parser` with what few scripts vary; the others have tanh, no bonus for entropy, and no convolutions."""
    parser.add_argument("--activation", choices=("tanh", "relu"), default="tanh")
    parser.add_argument("--entropy-coef", type=float, default=ENTROPY_COEF)
    parser.add_argument("--encoder", default="flatten", help="what is before the hidden layers: flatten, small")
    return parser


def main(
    train: Callable[[Arguments, Clock], Outcome],
    *,
    system: str,
    packages: Sequence[str],
    install: str,
    parser: argparse.ArgumentParser | None = None,
) -> None:
    """Parse the arguments, train, and print the line; the first of `packages` is the system's own."""
    parser = parser or argument_parser()
    args = parser.parse_args(namespace=Arguments())
    if args.batch_size % args.num_minibatches:
        parser.error(f"--num-minibatches {args.num_minibatches} does not divide a rollout of {args.batch_size} steps")
    if args.updates <= WARM_UP_UPDATES:
        parser.error(f"--timesteps {args.timesteps} are {args.updates} updates, not more than {WARM_UP_UPDATES}")
    # The scripts have the names of the packages that they import.
    here = Path(__file__).resolve().parent
    sys.path[:] = [folder for folder in sys.path if Path(folder).resolve() != here]
    clock = Clock()
    try:
        outcome = train(args, clock)
    except Exception as error:
        # Gymnasium wraps the ImportError of an environment's package.
        if not isinstance(error, ImportError) and not isinstance(error.__cause__, ImportError):
            raise
        print(json.dumps({"system": system, "missing": f"pip install {install}", "error": str(error)}))
        sys.exit(MISSING_STATUS)
    line = {
        "system": system,
        "version": version(packages[0]),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages[1:]}},
        "env_implementation": outcome.env_implementation,
        "timesteps": len(clock.ends) * args.batch_size,
        "start_to_first_update_seconds": clock.ends[0],
        "steady_steps_per_second": steady_speed(clock.ends, args.batch_size),
        "seconds": clock.ends[-1],
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "score": outcome.score,
        "score_of": outcome.score_of,
        **outcome.extra,
    }
    print(json.dumps(line))


def steady_speed(ends: Sequence[float], batch_size: int) -> float:
    """Steps per second from the end of the warm-up to the end of training."""
    seconds = ends[-1] - ends[WARM_UP_UPDATES - 1]
    return (len(ends) - WARM_UP_UPDATES) * batch_size / seconds


def keep_to_cores(count: int) -> None:
    """Run on `count` cores at most, for JAX, which has no setting for the number of its threads."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])
