"""Run a trained policy for whole episodes and report its return."""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esper.policies.progress import Progress
from esper.scripts.flags import (
    STOPPED_BY,
    add_time_limit,
    add_trust,
    check_made_by_id,
    check_record,
    fail,
    log_to_stderr,
    number,
    say,
    time_limit,
    trusted,
)
from esper.settings.options import Bounds, ConfigError
from esper.settings.values import counted
from esper.storage import files

if TYPE_CHECKING:
    from esper.policies.evaluate import Scores

USAGE = "esper evaluate RUN [--episodes N] [--seed S] [--stochastic] [--max-episode-steps N] [--json] [--record FILE]"

_SECONDS_BETWEEN_LINES = 10.0


def add_arguments(parser: argparse.ArgumentParser, *, help_all: bool) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument("--episodes", default="20", metavar="N", help="episodes to run (default: 20)")
    parser.add_argument("--seed", default="0", metavar="S", help="seed of the environments (default: 0)")
    parser.add_argument("--stochastic", action="store_true", help="sample actions instead of taking the most likely")
    add_time_limit(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    recorded = "also record an episode: an animated .gif, or an .mp4 with the extra video"
    parser.add_argument("--record", type=Path, metavar="FILE", help=recorded)
    add_trust(parser)


def run(args: argparse.Namespace) -> int:
    episodes = number("--episodes", args.episodes, int, Bounds(minimum=1), "esper evaluate")
    seed = number("--seed", args.seed, int, Bounds(minimum=0), "esper evaluate")
    limit = time_limit(args, "esper evaluate")
    check_record(args.record, "esper evaluate")
    log_to_stderr(quiet=args.json)
    from esper.envs.base import EnvError
    from esper.envs.watched import GivenUp
    from esper.policies.evaluate import EvaluationStopped, evaluate
    from esper.policies.policy import load_policy
    from esper.policies.show import record_gif
    from esper.storage.store import StoreError
    from esper.system.stopping import stop_request

    try:
        policy = load_policy(args.run, **trusted(args))
        call = f"record_gif(policy, {str(args.record)!r}" if args.record else f"evaluate(policy, episodes={episodes}"
        check_made_by_id(policy.environment, call, args, "esper evaluate")
        settings: dict[str, Any] = {"seed": seed, "max_episode_steps": limit}
        with stop_request(quiet=args.json, what="this step") as stop:
            stop.begin()
            with _progress(episodes, quiet=args.json) as on_step:
                scores = evaluate(
                    policy, episodes=episodes, stochastic=args.stochastic, stop=stop, on_step=on_step, **settings
                )
            result = _result(scores)
            say(json.dumps(result) if args.json else _sentences(policy.environment.env, result, scores, seed))
            if args.record:
                record_gif(policy, args.record, stop=stop, **settings)
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


@contextlib.contextmanager
def _progress(episodes: int, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Report the progress of an evaluation: in one line of a terminal, or in lines at intervals."""
    if quiet:
        yield lambda done, steps: None
    elif sys.stderr.isatty():
        try:
            yield Progress(_redraw, episodes, first=1.0, every=0.2)
        finally:
            _redraw("")
    else:
        every = _SECONDS_BETWEEN_LINES
        yield Progress(lambda text: say(text, file=sys.stderr), episodes, first=every, every=every)


def _redraw(text: str) -> None:
    print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def _result(scores: Scores) -> dict[str, float]:
    """The text of the result; with the success rate if it is known, and the number of truncated episodes if any."""
    from esper.analysis.statistics import interquartile_mean

    capped, told = sum(scores.capped), scores.successes
    return {
        "mean": statistics.fmean(scores.returns),
        "std": statistics.pstdev(scores.returns),
        "iqm": interquartile_mean(scores.returns),
        "episodes": len(scores.returns),
        **({"success_rate": statistics.fmean(told)} if told else {}),
        **({"capped": capped} if capped else {}),
    }


def _sentences(env: str, result: dict[str, float], scores: Scores, seed: int) -> str:
    success = f"success rate {result['success_rate']:.2f}, " if scores.successes else ""
    score = (
        f"{env}: return {result['mean']:.2f} ± {result['std']:.2f} (mean ± std), IQM {result['iqm']:.2f}, "
        f"{success}over {counted(len(scores.returns), 'episode')}, seed {seed}"
    )
    if not any(scores.capped):
        return score
    truncated = f"{result['capped']} of {result['episodes']} episodes were truncated"
    steps = scores.lengths[scores.capped.index(True)]
    return f"{score}\
{truncated} at {steps:,} steps; their returns so far count"
