"""A kill of each kind of run; the harness does them by the hundred."""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from harness import CASES, differences, run_alone, run_with_kills
from launch import forked, forkserver

from esper.runs.checkpoint.folder import checkpoints_in


@pytest.mark.slow
@pytest.mark.parametrize("name", list(CASES))
def test_a_killed_run_ends_where_the_run_left_alone_ends(name: str, tmp_path: Path) -> None:
    pytest.importorskip({"convolutions": "minatar"}.get(name, "mujoco" if "mujoco" in name else "esper"))
    run_alone(CASES[name], tmp_path / "alone", forked)
    outcome = run_with_kills(name, tmp_path / "killed", 2 if CASES[name].then else 1, random.Random(name), forked)
    assert outcome.lost is None
    assert outcome.kills
    assert differences(tmp_path / "killed", tmp_path / "alone") == []


_CHANGES_FILES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate")
_FLAGS = (
    *("--preset", "none", "--compile", "off", "--num-envs", "2", "--num-steps", "8", "--total-timesteps", "64"),
    *(
        "--hidden-sizes",
        "8",
        "--num-minibatches",
        "1",
        "--update-epochs",
        "1",
        "--no-picture",
        "--no-tensorboard",
        "--quiet",
        "--run-dir",
    ),
)


def run_until(run_dir: Path, changes: int) -> None:
    """Start a run, and kill it before change `changes` to its folder."""
    seen = -1

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event == "open":
            name, _, flags = arguments
            seen = 0 if str(name).endswith(".lock") else seen
            changing = bool(flags & (os.O_WRONLY | os.O_RDWR))
        else:
            changing = event in _CHANGES_FILES
        if changing and seen >= 0:
            seen += 1
            if seen > changes:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    from esper.scripts.train import main as esper

    sys.exit(esper(["ppo", *_FLAGS, str(run_dir)]))


@pytest.mark.slow
def test_a_run_killed_before_any_change_to_its_new_folder_can_be_gone_on_with(tmp_path: Path) -> None:
    outcomes = []
    for changes in range(100):
        run_dir = tmp_path / str(changes)
        process = forkserver().Process(target=run_until, args=(run_dir, changes))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        has_checkpoint = bool(checkpoints_in(run_dir / "checkpoints"))
        begun = (run_dir / "config.json").exists()
        forked(("--resume", str(run_dir), "--quiet") if begun else (*_FLAGS, str(run_dir))).wait_for_success()
        assert checkpoints_in(run_dir / "checkpoints")[0].name == "00000004"
        outcomes.append((begun, has_checkpoint))
        if has_checkpoint:
            break
    # Before its config is there, between that and the first checkpoint, and after it.
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {(False, False), (True, False), (True, True)}
