"""Run a trained policy for whole episodes and report its return."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

from esper import files
from esper.options import Bounds, ConfigError
from esper.scripts.flags import STOPPED_BY, add_trust, fail, number, say, trusted

USAGE = "esper evaluate RUN [--episodes N] [--seed S] [--stochastic] [--json] [--record FILE.gif]"


def add_arguments(parser: argparse.ArgumentParser, *, help_all: bool) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument("--episodes", default="20", metavar="N", help="episodes to run (default: 20)")
    parser.add_argument("--seed", default="0", metavar="S", help="seed of the environments (default: 0)")
    parser.add_argument("--stochastic", action="store_true", help="sample actions instead of taking the most likely")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--record", type=Path, metavar="FILE.gif", help="draw an episode")
    add_trust(parser)


def run(args: argparse.Namespace) -> int:
    episodes = number("--episodes", args.episodes, int, Bounds(minimum=1), "esper evaluate")
    seed = number("--seed", args.seed, int, Bounds(minimum=0), "esper evaluate")
    if args.record and args.record.suffix != ".gif":
        fail(f"--record {args.record}: must end in .gif", "esper evaluate")
    from esper.analysis.statistics import interquartile_mean
    from esper.checkpoint.store import StoreError
    from esper.envs.base import EnvError
    from esper.evaluate import EvaluationStopped, evaluate, record_gif
    from esper.policy import load_policy
    from esper.stopping import stop_request
    from esper.watched import GivenUp

    try:
        policy = load_policy(args.run, **trusted(args))
        with stop_request(quiet=args.json, what="this step") as stop:
            stop.begin()
            returns = evaluate(policy, episodes=episodes, seed=seed, stochastic=args.stochastic, stop=stop).returns
            result = {
                "mean": statistics.fmean(returns),
                "std": statistics.pstdev(returns),
                "iqm": interquartile_mean(returns),
                "episodes": episodes,
            }
            say(json.dumps(result) if args.json else _sentence(policy.environment.env, result, seed))
            if args.record:
                record_gif(policy, args.record, seed=seed, stop=stop)
    except (EvaluationStopped, GivenUp) as error:
        say(f"esper evaluate: stopped ({stop.cause}): {error}", file=sys.stderr)
        return STOPPED_BY[stop.cause or "SIGINT"]
    except EnvError as error:
        fail(str(error), "esper evaluate", status=1)
    except (StoreError, ConfigError, OSError) as error:
        fail(files.why(error), "esper evaluate")
    if args.record and not args.json:
        print(f"episode {args.record}")
    return 0


def _sentence(env: str, result: dict[str, float], seed: int) -> str:
    return (
        f"{env}: return {result['mean']:.2f} ± {result['std']:.2f} (mean ± std), IQM {result['iqm']:.2f}, "
        f"over {result['episodes']} episodes, seed {seed}"
    )
