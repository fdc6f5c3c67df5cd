"""Grow networks by rules, at random, or with the policy of a run."""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esper.runs.control_config import ENV, ControlConfig
from esper.scripts.flags import (
    STOPPED_BY,
    add_settings,
    check_record,
    explain,
    fail,
    flag_layer,
    log_to_stderr,
    say,
)
from esper.settings.layers import Layer, SettingsError, resolve
from esper.settings.options import ConfigError
from esper.storage import files
from esper.system.shell import quoted

if TYPE_CHECKING:
    from esper.policies.policy import Policy
    from esper.runs.control import ControlResult
    from esper.telemetry.events import Event
    from esper.telemetry.rounds import GrowthEpisode

USAGE = "esper heuristic [--controller NAME | --policy RUN] [--episodes N] [--seed S] [--record FILE] [flags]"
_PROG = "esper heuristic"


def add_arguments(parser: argparse.ArgumentParser, *, help_all: bool) -> None:
    add_settings(parser, help_all=help_all, config=ControlConfig)
    text = "draw the episode with the highest return: a .png, or a .gif or .mp4 that grows"
    parser.add_argument("--record", type=Path, metavar="FILE", help=text)


def run(args: argparse.Namespace) -> int:
    check_record(args.record, _PROG, ".png")
    layer = flag_layer(args, ControlConfig)
    log_to_stderr(quiet=bool(layer.values.get("quiet")))
    from esper.envs.base import EnvError
    from esper.runs.control import control
    from esper.storage.store import StoreError
    from esper.telemetry.events import SinkError

    try:
        policy, layers = _policy(layer)
        config = resolve(ControlConfig, [*layers, layer]).config
        result = control(config, policy, [] if config.quiet else [Lines(config.rounds)])
        if args.record:
            _draw(result, args.record)
    except SettingsError as error:
        fail(explain(error), _PROG)
    except (ConfigError, StoreError) as error:
        fail(str(error), _PROG)
    except (EnvError, SinkError, OSError) as error:
        fail(files.why(error), _PROG, status=1)
    if not config.quiet:
        _summarize(result, args.record)
    return STOPPED_BY.get(result.cause or "", 0)


def _policy(layer: Layer) -> tuple[Policy | None, list[Layer]]:
    """The policy that is asked for, and the settings of its environment."""
    if (path := layer.values.get("policy")) is None:
        return None, []
    from esper.policies.policy import load_policy

    policy = load_policy(path)
    if policy.environment.env != ENV:
        fail(f"--policy {path}: is a policy of {policy.environment.env}, not of {ENV}", _PROG)
    return policy, [Layer(source=str(path), values=policy.environment.env_kwargs)]


class Lines:
    """Prints a line for each round."""

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds

    def emit(self, event: Event) -> None:
        from esper.telemetry.rounds import RoundCompleted

        if isinstance(event, RoundCompleted) and event.user is not None:
            user = event.user
            say(
                f"round {event.update + 1}/{self._rounds}  return {event.episode_return_mean:.2f}  "
                f"accuracy {user['final_accuracy']:.1f}  seed parameters {user['seed_parameters']:,.0f}  "
                f"fossils {user['fossils']:.2f}  epochs/s {event.steps_per_second:,.1f}"
            )

    def close(self) -> None: ...


def _best(episodes: Sequence[GrowthEpisode]) -> GrowthEpisode:
    return max(episodes, key=lambda episode: episode.episode_return)


def _draw(result: ControlResult, path: Path) -> None:
    if not result.episodes:
        say(f"{_PROG}: no episode ended: {path} is not drawn", file=sys.stderr)
        return
    record: dict[str, Any] = dataclasses.asdict(_best(result.episodes))
    if path.suffix == ".png":
        from esper.analysis.plots_growth import plot_episode

        files.write_named(path, plot_episode(record))
        return
    from esper.analysis.plots_growth import episode_frames
    from esper.policies.movies import write_movie

    write_movie(path, episode_frames(record), fps=4)


def _summarize(result: ControlResult, record: Path | None) -> None:
    episodes = result.episodes
    how = "finished" if result.status == "completed" else f"stopped ({result.cause})"
    print(f"\n{how} after {len(episodes):,} episodes in {result.seconds:.0f} s")
    for label, values in (
        ("return", [episode.episode_return for episode in episodes]),
        ("accuracy", [episode.final_accuracy for episode in episodes]),
        ("seed parameters", [float(episode.seed_parameters) for episode in episodes]),
    ):
        if values:
            print(f"{label:16} {statistics.fmean(values):,.2f} ± {statistics.pstdev(values):,.2f}")
    say(f"{'record':16} {result.run_dir / 'events.jsonl'}, {result.run_dir / 'config.json'}")
    if record is not None and episodes:
        say(f"{'best episode':16} {record}")
    say(f"{'next':16} esper report {quoted(result.run_dir)}")
