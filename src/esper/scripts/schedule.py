"""Plot the learning rates of these flags, without training."""

from __future__ import annotations

import argparse
import shutil
import sys
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
    except SettingsError as error:
        fail(explain(error), "esper schedule")
    schedules = {component: every.pop(f"{component}_lr") for component in ("policy", "value")}
    feedback = ppo.feedback(schedules)
    curves = {name: [rate for _, rate, _ in schedule.table()] for name, schedule in schedules.items()}
    from esper.analysis.terminal import draw_curves

    width = min(shutil.get_terminal_size().columns, 100)
    print(draw_curves(curves, width=width, colour=sys.stdout.isatty()))
    if ppo is not settings.config.ppo:
        print(f"{SWITCH}=off: learning rates stay at their base rates")
    for line in [*resolved_lengths(ppo, settings.origins), *beyond_end(ppo, settings.origins)]:
        print(line)
    print(f"{ppo.total_updates} updates of {ppo.num_envs} x {ppo.num_steps} steps")
    for name, schedule in schedules.items():
        print(f"{name:7} {describe(schedule)}{_feedback(feedback[name])}")
    for name, schedule in every.items():
        if schedule.config.decay != "constant" or schedule.phase(0) != "constant":
            print(f"{name} {describe(schedule)}")
    if args.output:
        _draw(args.output, curves, schedules["policy"])
    return 0


def describe(schedule: Schedule) -> str:
    """The parts of a resolved schedule in a line."""
    config = schedule.config
    parts = [f"{phase} from update {update} at {rate:.4g}" for update, rate, phase in _starts(schedule)]
    last = schedule.total_updates - 1
    base = "" if config.peak is None else f", base {config.peak:g}"
    return f"{config.decay}{base}: " + ", ".join(parts) + f"; last update {last} at {schedule(last):.4g}"


def _feedback(config: FeedbackConfig) -> str:
    """What the rate is multiplied by."""
    if not config.is_on:
        return ""
    return (
        f"; times a factor from {config.min_factor:g} to {config.max_factor:g} that follows approx_kl every "
        f"{config.every}, target {config.target:g}"
    )


def _starts(schedule: Schedule) -> list[tuple[int, float, str]]:
    rows = schedule.table()
    return [row for before, row in zip([None, *rows], rows, strict=False) if before is None or before[2] != row[2]]


def _draw(path: Path, curves: dict[str, list[float]], policy: Schedule) -> None:
    from esper.analysis.plots import plot_schedules

    if path.suffix != ".png":
        fail(f"--output {path}: must end in .png", "esper schedule")
    try:
        plot_schedules(curves, [phase for _, _, phase in policy.table()], path, title="learning rates")
    except OSError as error:
        fail(f"--output {path}: cannot be written: {error.strerror}", "esper schedule")
    print(f"picture {path}")
