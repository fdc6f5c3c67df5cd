"""Checkpoints of schema 1, written before the clock of schedules counted updates that were undone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, cast

import gymnasium
import numpy as np
import pytest
import torch

from esper.analysis.runs import load_updates, read_events
from esper.runs.checkpoint.folder import checkpoints_in, load_checkpoint, read_checkpoint
from esper.scripts.train import main

# Each was trained for 8 updates of 2 x 8 steps; what is here is as if it had been killed after update 4.
OLD = Path(__file__).parent / "schema1"


def copy_of(name: str, folder: Path) -> Path:
    return Path(shutil.copytree(OLD / name, folder / name))


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def test_what_is_inspected_counts_the_updates_that_did_not_tick(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checkpoint", "inspect", str(OLD / "undone" / "checkpoints" / "00000004"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    # 4 updates of 2 x 8 steps, one of them undone.
    assert (facts["update"], facts["undone"], facts["env_steps"]) == (4, 1, 64)


def train_anew(name: str, run_dir: Path) -> Path:
    """The same run by this version, from its beginning."""
    settings = json.loads((OLD / name / "config.json").read_text())
    if settings["policy_lr_points"]:
        # Nothing read the base rate that stands beside points there.
        settings = {key: value for key, value in settings.items() if key not in ("policy_lr", "value_lr")}
    config = run_dir.with_suffix(".json")
    config.write_text(json.dumps(settings))
    output = ("--no-tensorboard", "--no-picture", "--quiet", "--run-dir", str(run_dir))
    assert main(["ppo", "--config", str(config), "--telemetry", "minimal", *output]) == 0
    return run_dir


@pytest.mark.parametrize(
    ("name", "number"), [("cosine", 4), ("memory", 4), ("memory", 0), ("piecewise", 4), ("tensors", 4)]
)
def test_goes_on_and_ends_where_a_run_by_this_version_ends(name: str, number: int, tmp_path: Path) -> None:
    run = copy_of(name, tmp_path)
    for path in checkpoints_in(run / "checkpoints"):
        if int(path.name) > number:
            shutil.rmtree(path)
    # The record of the run in another folder begins at the checkpoint, as the old one's length is not that of 0.
    target = run if number else tmp_path / "elsewhere"
    assert read_checkpoint(checkpoints_in(run / "checkpoints")[0]).schema == 1
    assert main(["ppo", "--resume", str(run), "--quiet", *(() if number else ("--run-dir", str(target)))]) == 0
    anew = train_anew(name, tmp_path / "anew")
    resumed = next(event for event in read_events(target) if event["event"] == "run_resumed")
    assert (resumed["update"], resumed["exact_resume"], resumed["broken"]) == (number, True, [])
    assert resumed["lr"] == resumed["lr_before"]
    rates = load_updates(anew)["lr/policy"]
    assert load_updates(target)["lr/policy"].tolist() == (rates if number else rates[number:]).tolist()
    ends = [read_checkpoint(checkpoints_in(folder / "checkpoints")[0]) for folder in (target, anew)]
    assert [end.schema for end in ends] == [2, 2]
    networks = [end.tree["training"]["agent"]["network"] for end in ends]
    if name == "cosine":
        # In schema 1 steps that only reset counted in statistics.
        return
    for tensor_name, tensor in networks[0].items():
        # Written by another processor, perhaps.
        torch.testing.assert_close(tensor, networks[1][tensor_name], rtol=1e-4, atol=1e-5)


class Faulty(gymnasium.Env[Any, Any]):
    """Of the spaces and the state of the environment whose rewards were not finite in one update."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(2, dtype=np.float32), {}

    def state_dict(self) -> Any:
        return {"steps": 0, "rng": self.np_random.bit_generator.state}

    def load_state_dict(self, state: Any) -> None:
        self.np_random.bit_generator.state = state["rng"]


@pytest.mark.parametrize("mode", ["continue", "extend", "restart"])
def test_one_with_undone_updates_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    run = copy_of("undone", tmp_path)
    training = load_checkpoint(run / "checkpoints" / "00000004")["training"]
    assert (training["rollouts"], training["agent"]["train_steps"]) == (4, 3)
    (tmp_path / "faulty.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(gymnasium.envs.registration, "registry", dict(gymnasium.registry))
    gymnasium.register("Faulty-v0", entry_point=cast(Any, Faulty))
    before = files_in(run)
    with pytest.raises(SystemExit) as exit:
        main(["ppo", "--resume", str(run), "--env", "faulty:Faulty-v0", "--resume-schedule", mode, "--quiet"])
    assert exit.value.code == 2
    err = capsys.readouterr().err
    assert "checkpoints/00000004: 1 of its 4 updates were undone (or over target_kl at once); the version that" in err
    assert files_in(run) == before
