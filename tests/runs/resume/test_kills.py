"""A kill of each kind of run; the harness does them by the hundred."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from harness import CASES, differences, run_alone, run_with_kills
from launch import forked


@pytest.mark.slow
@pytest.mark.parametrize("name", list(CASES))
def test_a_killed_run_ends_where_the_run_left_alone_ends(name: str, tmp_path: Path) -> None:
    pytest.importorskip({"convolutions": "minatar"}.get(name, "mujoco" if "mujoco" in name else "esper"))
    run_alone(CASES[name], tmp_path / "alone", forked)
    outcome = run_with_kills(name, tmp_path / "killed", 2 if CASES[name].then else 1, random.Random(name), forked)
    assert outcome.lost is None
    assert outcome.kills
    assert differences(tmp_path / "killed", tmp_path / "alone") == []
