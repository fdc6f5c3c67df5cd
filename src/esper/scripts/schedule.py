"""Plot the learning rates of these flags, without training."""

from __future__ import annotations

import argparse
import itertools
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from esper.runs.layers import SettingsError, placed
from esper.schedules import SWITCH, FeedbackConfig, Schedule
from esper.scripts.flags import (
    add_settings,
    add_sources,
    beyond_end,
    explain,
    fail,
    in_force,
    resolved_lengths,
    settings_from,
)
from esper.simic.config import PPOConfig
from esper.simic.rates import Horizon, RateSchedules
from esper.storage import files

# More than these are sampled: a picture has fewer pixels.
_MOST_UPDATES = 10_000
_MOST_PARTS = 20

USAGE = "esper schedule [the flags of esper ppo] [--output FILE.png]"


def add_arguments(parser: argparse.ArgumentParser, *, help_all: bool) -> None:
    add_sources(parser)
    add_settings(parser, help_all=help_all)
    parser.add_argument("--output", type=Path, metavar="FILE.png", help="also write the curves as an image")
    parser.add_argument("--help-all", action="help", help="show every flag, those of each component too")


def run(args: argparse.Namespace) -> int:
    settings = settings_from(args)
    try:
        with placed(settings.origins):
            ppo = in_force(settings.config.ppo)
            every = ppo.make_schedules(ppo.total_updates)
            groups = ("policy", "value", *(("shared",) if ppo.network.shared_trunk else ()))
            rates = RateSchedules(ppo, groups, Horizon(updates=ppo.total_updates))
    except SettingsError as error:
        fail(explain(error), "esper schedule")
    schedules = {component: every.pop(f"{component}_lr") for component in ("policy", "value")}
    feedback = ppo.feedback(groups)
    updates = _sampled(ppo.total_updates)
    at = [rates.at(update).learning_rates for update in updates]
    curves = {group: [each[group] for each in at] for group in groups}
    from esper.analysis.terminal import draw_curves

    width = min(shutil.get_terminal_size().columns, 100)
    print(draw_curves(curves, updates, width=width, colour=sys.stdout.isatty()))
    if ppo is not settings.config.ppo:
        print(f"{SWITCH}=off: learning rates stay at their base rates")
    for line in [*resolved_lengths(ppo, settings.origins), *beyond_end(ppo, settings.origins)]:
        print(line)
    print(f"{ppo.total_updates} update{'s' * (ppo.total_updates > 1)} of {ppo.num_envs} x {ppo.num_steps} steps")
    for name, schedule in schedules.items():
        print(f"{name:7} {describe(schedule)}{_feedback(feedback[name])}")
    if "shared" in groups:
        last = f"last update {updates[-1]} at {at[-1]['shared']:.4g}"
        print(f"shared  {_shared(ppo)}; {last}{_feedback(feedback['shared'])}")
    for name, schedule in every.items():
        if schedule.config.decay != "constant" or schedule.phase(0) != "constant":
            print(f"{name} {describe(schedule)}")
    if args.output:
        _draw(args.output, curves, updates, schedules["policy"])
    return 0


def describe(schedule: Schedule) -> str:
    """The parts of a resolved schedule in a line."""
    config = schedule.config
    parts = [f"{phase} from update {update} at {schedule(update):.4g}" for update, phase in _starts(schedule)]
    if len(parts) > _MOST_PARTS:
        parts[_MOST_PARTS:] = [f"and {len(parts) - _MOST_PARTS} more parts"]
    last = schedule.total_updates - 1
    base = "" if config.peak is None else f", base {config.peak:g}"
    return f"{config.decay}{base}: " + ", ".join(parts) + f"; last update {last} at {schedule(last):.4g}"


def _shared(ppo: PPOConfig) -> str:
    """What the rate of a shared trunk is."""
    rate = "the lower rate of policy and value" if ppo.shared_lr == "min" else f"the rate of {ppo.shared_lr}"
    return f"0 before update {ppo.freeze_encoder}, then {rate}" if ppo.freeze_encoder else rate


def _feedback(config: FeedbackConfig) -> str:
    """What the rate is multiplied by."""
    if not config.is_on:
        return ""
    return (
        f"; times a factor from {config.min_factor:g} to {config.max_factor:g} that follows approx_kl every "
        f"{config.every}, target {config.target:g}"
    )


def _sampled(total_updates: int) -> Sequence[int]:
    """All updates, or as many as a picture can show, with the first and the last."""
    if total_updates <= _MOST_UPDATES:
        return range(total_updates)
    return [(total_updates - 1) * index // (_MOST_UPDATES - 1) for index in range(_MOST_UPDATES)]


def _starts(schedule: Schedule) -> list[tuple[int, str]]:
    """The updates at which the parts begin, with their names; of a long run each is found by bisection."""
    updates = _sampled(schedule.total_updates)
    found: list[tuple[int, str]] = [(0, schedule.phase(0))]
    for before, after in itertools.pairwise(updates):
        while schedule.phase(after) != found[-1][1]:
            low, high = max(before, found[-1][0]), after
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if schedule.phase(middle) == found[-1][1] else (low, middle)
            found.append((high, schedule.phase(high)))
    return found


def _draw(path: Path, curves: dict[str, list[float]], updates: Sequence[int], policy: Schedule) -> None:
    from esper.analysis.plots import plot_schedules

    if path.suffix != ".png":
        fail(f"--output {path}: must end in .png", "esper schedule")
    try:
        plot_schedules(curves, list(map(policy.phase, updates)), path, updates=updates, title="learning rates")
    except OSError as error:
        fail(f"--output {path}: cannot be written: {files.why(error)}", "esper schedule")
    print(f"picture {path}")
