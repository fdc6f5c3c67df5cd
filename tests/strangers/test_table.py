"""Links, pipes, sockets, devices and folders in place of a run's files: some of the table that table.py has whole."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from table import OPENS, Case, Runs, all_cases


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


def test_without_anything_spoilt_every_command_succeeds(runs: Runs, tmp_path: Path) -> None:
    # Otherwise everything would be refused for another reason.
    for command in OPENS:
        assert runs.try_(Case(command, "notes.txt", "link")) == []
        assert runs.status == 0, command
