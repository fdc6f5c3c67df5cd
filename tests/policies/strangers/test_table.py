"""Links, pipes, sockets, devices and folders in place of a run's files: some of the table that table.py has whole."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from table import OPENS, Case, Runs, all_cases

from esper.scripts.train import main as esper


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("table"))


@pytest.mark.parametrize("command", OPENS)
def test_what_is_no_file_of_the_run_is_refused_by_name_and_nothing_outside_changes(runs: Runs, command: str) -> None:
    cases = [case for case in all_cases() if case.command == command]
    refused = [case for case in cases if case.must_be_refused]
    links = [case for case in refused if case.kind in ("link", "hard link")]
    rng = random.Random(command)
    chosen = {*links, *rng.sample(refused, min(12, len(refused))), *rng.sample(cases, 3)}
    assert [wrong for case in sorted(chosen) for wrong in runs.try_(case)] == []


def test_what_a_run_of_a_sweep_prints_goes_into_no_link(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "outside").write_text("kept")
    arm = tmp_path / "sweep" / "CartPole-v1" / "default"
    arm.mkdir(parents=True)
    (arm / "seed-1.log").symlink_to(tmp_path / "outside")
    flags = ("--preset", "none", "--total-timesteps", "64", "--num-envs", "2", "--num-steps", "8", "--compile", "off")
    assert esper(["sweep", "--seeds", "1", "--output", str(tmp_path / "sweep"), "--workers", "1", *flags]) == 1
    assert "seed-1.log: is a link" in capsys.readouterr().err
    assert (tmp_path / "outside").read_text() == "kept"


def test_without_anything_spoilt_every_command_succeeds(runs: Runs, tmp_path: Path) -> None:
    # Otherwise everything would be refused for another reason.
    for command in OPENS:
        assert runs.try_(Case(command, "notes.txt", "link")) == []
        assert runs.status == 0, command
