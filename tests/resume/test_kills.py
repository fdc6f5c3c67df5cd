"""A few kills of the kinds that the harness does by the hundred."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from harness import CASES, differences, run_alone, run_with_kills


@pytest.mark.slow
@pytest.mark.parametrize("name", ["box, shared trunk", "kernels", "extend"])
def test_a_killed_run_ends_where_the_run_left_alone_ends(name: str, tmp_path: Path) -> None:
    run_alone(CASES[name], tmp_path / "alone")
    outcome = run_with_kills(name, tmp_path / "killed", 3, random.Random(name))
    assert outcome.lost is None
    assert len(outcome.kills) >= 2
    assert differences(tmp_path / "killed", tmp_path / "alone") == []
