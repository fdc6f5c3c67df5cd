"""Decays that begin at checkpoints of one run, each in a folder of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import differences

from esper.analysis.runs import load_updates, read_events
from esper.runs.checkpoint.folder import load_checkpoint
from esper.scripts.train import main

SMALL = (
    *("--preset", "none", "--compile", "off", "--quiet", "--no-tensorboard", "--no-picture", "--hidden-sizes", "8"),
    *("--num-envs", "4", "--num-steps", "16", "--keep-checkpoints", "99", "--checkpoint-every", "4"),
)
STEPS = 64  # of an update


@pytest.fixture(scope="module")
def stable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("runs") / "stable"
    flags = (*SMALL, "--lr", "1e-3", "--lr-kl-target", "1e-3", "--total-timesteps", str(16 * STEPS))
    assert main(["ppo", *flags, "--run-dir", str(run_dir)]) == 0
    return run_dir


# From update 16 or 8 on: a line to 0 over the last 4 of 20; a cosine over the 4 that are left; a jump to half the rate.
BRANCHES = {
    "extend": (16, ("wsd", "--lr-decay-frac", "0.2"), 20, [1e-3, 7.5e-4, 5e-4, 2.5e-4]),
    "restart": (8, ("cosine",), 12, [1e-3, 8.5355339e-4, 5e-4, 1.4644661e-4]),
}


@pytest.mark.parametrize("mode", BRANCHES)
def test_the_decay_begins_where_the_run_was(stable: Path, tmp_path: Path, mode: str) -> None:
    begin, decay, total, rates = BRANCHES[mode]
    before = {path: path.read_bytes() for path in stable.rglob("*") if path.is_file()}
    checkpoint = stable / "checkpoints" / f"{begin:08}"
    flags = ("--resume-schedule", mode, "--total-timesteps", str(total * STEPS), "--lr-decay", *decay)
    for branch in ("first", "second"):
        assert main(["ppo", "--resume", str(checkpoint), *flags, "--run-dir", str(tmp_path / branch), "--quiet"]) == 0
    (resumed,) = [event for event in read_events(tmp_path / "first") if event["event"] == "run_resumed"]
    assert resumed["lr_before"] == resumed["lr"] == {"policy": 1e-3, "value": 1e-3}
    updates = load_updates(tmp_path / "first")
    assert updates["update"].tolist() == list(range(begin, total))
    assert updates["lr/policy"].tolist() == pytest.approx(rates)
    factor = load_checkpoint(checkpoint)["training"]["agent"]["lr_factors"]["policy"].item()
    assert updates["lr_factor/policy"][0] == (factor if mode == "extend" else 1.0)
    # Two branches are equal; the run that they are from stays as it was.
    assert differences(tmp_path / "first", tmp_path / "second") == []
    assert {path: path.read_bytes() for path in stable.rglob("*") if path.is_file()} == before


def test_a_rate_that_jumps_is_said(stable: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--resume-schedule", "extend", "--total-timesteps", str(32 * STEPS), "--lr-decay", "linear")
    assert main(["ppo", "--resume", str(stable), *flags, "--run-dir", str(tmp_path / "run"), "--no-quiet"]) == 0
    # Halfway down a line over 32 updates.
    assert "lr/policy jumps: 0.001, now 0.0005" in capsys.readouterr().out
