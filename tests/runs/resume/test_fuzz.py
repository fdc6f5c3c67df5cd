"""Some of the mutated files that the fuzzer makes by the hundred thousand."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz import study


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_mutated_files_are_taken_or_refused_with_the_projects_own_errors(tmp_path: Path, env: str) -> None:
    reports = study(tmp_path, 3000, 1, env)
    assert [foreign for report in reports.values() for foreign in report.foreign] == []
    # Whole files, and every kind of fault, were among them.
    assert reports["checkpoints"].outcomes["taken"] > 70
    assert reports["checkpoints"].outcomes["StoreError"] > 350
    assert reports["settings"].outcomes["SettingsError"] > 350
    assert {"taken", "StoreError", "SweepError", "ReportError", "SinkError"} <= reports["other files"].outcomes.keys()
