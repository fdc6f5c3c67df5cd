"""Some of the mutated files that the fuzzer makes by the hundred thousand."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz import study


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_mutated_files_are_taken_or_refused_with_the_projects_own_errors(tmp_path: Path, env: str) -> None:
    checkpoints, settings = study(tmp_path, 3000, 1, env)
    assert checkpoints.foreign == []
    assert settings.foreign == []
    # Whole files, and every kind of fault, were among them.
    assert checkpoints.outcomes["taken"] > 100
    assert checkpoints.outcomes["StoreError"] > 500
    assert settings.outcomes["SettingsError"] > 500
