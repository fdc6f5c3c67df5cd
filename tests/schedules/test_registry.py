"""A decay shape is one file: what holds for all of them, and that one more is enough to train with it."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import esper
from esper.runs.config import RunConfig
from esper.schedules import SHAPES, ScheduleConfig, make_schedule
from esper.schedules.shape import NEEDED
from esper.settings.options import ConfigError, settings_of

SOURCE = Path(esper.__file__).parent

TOY = '''
from dataclasses import dataclass

from esper.schedules.shape import NEEDED, Falling, shape
from esper.settings.options import Bounds, option


@shape("halves", times=2)
@dataclass(frozen=True, kw_only=True)
class Halves(Falling):
    """halved at even distances"""

    times: int = option(NEEDED, "how often it is halved", bounds=Bounds(minimum=1))

    def share_left(self, x: float) -> float:
        return 0.5 ** int(x * (self.times + 1))
'''


@pytest.mark.parametrize("decay", list(SHAPES))
class TestEveryShape:
    def test_its_example_reaches_the_base_rate_and_ends_at_its_floor(self, decay: str) -> None:
        schedule = make_schedule(ScheduleConfig(decay=decay, **SHAPES[decay].example), 200)
        rates = [schedule(update) for update in range(200)]
        assert schedule.config.peak in rates
        if decay != "triangular":
            assert rates[0] == schedule.config.peak
        if schedule.decay_end is not None:
            assert schedule(schedule.decay_end) == schedule.floor

    def test_its_parameters_are_settings_of_every_schedule(self, decay: str) -> None:
        settings = settings_of(RunConfig)
        for field in dataclasses.fields(SHAPES[decay]):
            for prefix in ("policy_lr", "value_lr", "clip_coef", "entropy_coef"):
                assert field.metadata["help"] in settings[f"{prefix}_{field.name}"].help

    def test_what_it_needs_is_asked_for_and_what_it_does_not_use_is_refused(self, decay: str) -> None:
        example, fields = SHAPES[decay].example, dataclasses.fields(SHAPES[decay])
        for field in fields:
            if field.default is NEEDED:
                others = {name: value for name, value in example.items() if name != field.name}
                with pytest.raises(ConfigError, match=f"{field.name} = none: decay '{decay}' needs it"):
                    ScheduleConfig(decay=decay, **others)
        names = {field.name for field in fields}
        for other in SHAPES.values():
            for name, value in other.example.items():
                if name not in names:
                    with pytest.raises(ConfigError, match=f"{name} = .*: decay '{decay}' does not use it"):
                        ScheduleConfig(decay=decay, **example, **{name: value})

    def test_it_has_a_picture(self, decay: str) -> None:
        assert (SOURCE.parents[1] / "docs" / "images" / f"decay-{decay}.png").exists()


def test_one_more_file_is_one_more_shape(tmp_path: Path) -> None:
    shutil.copytree(SOURCE, tmp_path / "esper", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "esper" / "schedules" / "shapes" / "halves.py").write_text(TOY)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}

    def trainer(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "esper.scripts.train", "ppo", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)

    assert "halves: how often it is halved" in trainer("--help").stdout
    assert "--lr-times: decay 'halves' needs it" in trainer("--lr-decay", "halves").stderr
    assert "--lr-times 2: decay 'linear' does not use it" in trainer("--lr-decay", "linear", "--lr-times", "2").stderr
    sizes = ["--num-envs", "2", "--num-steps", "8", "--total-timesteps", "96", "--num-minibatches", "2"]
    schedule = ["--lr", "8e-4", "--lr-decay", "halves", "--lr-times", "2", "--lr-min-ratio", "0.0"]
    folder = ["--run-dir", str(tmp_path / "run"), "--no-picture", "--no-tensorboard", "--quiet", "--compile", "off"]
    done = trainer("--preset", "none", *sizes, *schedule, *folder)
    assert done.returncode == 0, done.stderr
    events = map(json.loads, (tmp_path / "run" / "events.jsonl").read_text().splitlines())
    rates = [event["lr/policy"] for event in events if event["event"] == "update_completed"]
    # Six updates: thirds of the run at the base rate, a half and a quarter of it.
    assert rates == [8e-4, 8e-4, 4e-4, 4e-4, 2e-4, 2e-4]
