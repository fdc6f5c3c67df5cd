"""What docs/migration.md says of our side is so: flags, defaults, commands, and how schedules translate."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from esper.runs.config import RunConfig
from esper.schedules import ScheduleConfig, make_schedule
from esper.scripts.train import main, make_parsers
from esper.settings.layers import common_names
from esper.settings.options import Setting, settings_of
from esper.settings.values import parse

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "migration.md").read_text()
ROWS = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| ")]
OURS = " ".join(row[1] for row in ROWS)
# CleanRL and rl-baselines3-zoo write their flags in the same way.
THEIRS = {
    *re.findall(r"--[a-z-]+", " ".join(row[0] for row in ROWS)),
    *("--torch-deterministic", "--wandb-entity", "--save-model", "--upload-model"),
}


def settings() -> dict[str, Setting]:
    known = dict(settings_of(RunConfig))
    return known | {name: known[first] for name, (first, *_) in common_names(known).items()}


def test_our_column_has_flags_of_ours_alone() -> None:
    _, commands = make_parsers(help_all=True)
    ours = {name for parser in commands.values() for action in parser._actions for name in action.option_strings}
    named = set(re.findall(r"--[a-z-]+", OURS))
    assert len(named) > 40
    assert named <= ours
    assert set(re.findall(r"--[a-z][a-z-]+", PAGE)) <= ours | THEIRS


def test_defaults_are_filled_into_every_table() -> None:
    assert PAGE.count("<!-- docs/tables.py: defaults -->\n| theirs") == PAGE.count("\n| theirs") == 8


@pytest.mark.parametrize("command", re.findall(r"^esper .*", PAGE, re.MULTILINE))
def test_commands_are_understood(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert main([*shlex.split(command)[1:], "--print-config"]) == 0
    capsys.readouterr()


def test_there_is_a_command_for_each_library() -> None:
    assert len(re.findall(r"^esper .*", PAGE, re.MULTILINE)) == 7


def test_the_linear_schedule_of_stable_baselines_to_the_update() -> None:
    """Their progress is taken after the rollout: 1 - (u + 1) / U."""
    peak, updates = 1e-3, 8
    points = ((0, peak * (updates - 1) / updates), (updates - 1, 0.0))
    schedule = make_schedule(ScheduleConfig(decay="piecewise", points=points), updates)
    theirs = [8.75e-4, 7.5e-4, 6.25e-4, 5e-4, 3.75e-4, 2.5e-4, 1.25e-4, 0.0]
    assert [schedule(update) for update in range(updates)] == pytest.approx(theirs)
    # Ours, one update later, but for its first.
    ours = make_schedule(ScheduleConfig(peak=peak, decay="linear"), updates)
    assert [ours(update) for update in range(updates)] == pytest.approx([peak, *theirs[:-1]])


def test_the_list_of_rllib() -> None:
    """[[0, 1e-3], [400_000, 1e-4]] in rollouts of 4,000 steps."""
    (points,) = re.findall(r"With 4,000 it is `--lr-decay piecewise --lr-points (.*?)`", PAGE)
    given = parse("lr_points", points, settings()["lr_points"].type)
    schedule = make_schedule(ScheduleConfig(peak=1e-3, decay="piecewise", points=given), 200)
    # At 0, 40,000, 200,000, 400,000 and 720,000 environment steps.
    found = [schedule(update) for update in (0, 10, 50, 100, 180)]
    assert found == pytest.approx([1e-3, 9.1e-4, 5.5e-4, 1e-4, 1e-4])
