"""Runs whose environments draw from global generators and from those of their spaces, ended and gone on with."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from combinations import check
from factors import FACTORS, settings_of
from harness import differences

from esper.analysis.runs import read_events
from esper.runs.checkpoint.folder import checkpoints_in, load_checkpoint, save_checkpoint
from esper.runs.layers import Layer, resolve
from esper.runs.run import resume_run, run
from esper.storage.store import StoreError

ROW = {name: next(iter(levels)) for name, levels in FACTORS.items()} | {"draws": "global", "decay": "linear"}


@pytest.mark.parametrize("end", ["killed", "signal"])
@pytest.mark.parametrize(
    ("vector", "evaluation"),
    [("sync", "none"), ("sync", "best policy"), ("async, 2", "best policy"), ("native", "none")],
)
def test_end_as_those_left_alone(vector: str, evaluation: str, end: str, tmp_path: Path) -> None:
    check({**ROW, "vector": vector, "evaluation": evaluation, "end": end}, tmp_path, random.Random(end))


def trained(run_dir: Path, vector: str = "sync") -> Path:
    settings = settings_of({**ROW, "vector": vector}) | {"checkpoint_every": 1, "run_dir": str(run_dir)}
    run(resolve([Layer(source="test", values=settings)]).config)
    return run_dir


def as_if_killed(whole: Path, copy: Path, change: Callable[[Any], Any] = lambda state: state) -> Path:
    """A copy of a run as if it had been killed after 3 updates; `change` its last state."""
    shutil.copytree(whole, copy)
    for path in checkpoints_in(copy / "checkpoints"):
        if int(path.name[:8]) > 3:
            shutil.rmtree(path)
    newest = checkpoints_in(copy / "checkpoints")[0]
    state = change(load_checkpoint(newest))
    shutil.rmtree(newest)
    save_checkpoint(newest, state)
    return copy


def go_on(run_dir: Path, **how: Any) -> dict[str, Any]:
    resume_run(run_dir, [Layer(source="again", values={"quiet": True})], **how)
    return next(event for event in read_events(run_dir) if event["event"] == "run_resumed")


def without_generators(state: Any) -> Any:
    """As states were before generators were stored."""
    training = state["training"]
    del training["generators"]
    copies = training["environment"]["copies"]
    training["environment"]["copies"] = {name: copy["env"] for name, copy in copies.items()}
    return state


@pytest.mark.parametrize("vector", ["sync", "async, 4"])
def test_older_checkpoints_go_on_with_numbers_of_the_seed(
    vector: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = trained(tmp_path / "whole", vector)
    runs = [as_if_killed(whole, tmp_path / name, without_generators) for name in ("one", "other")]
    assert [go_on(run_dir)["update"] for run_dir in runs] == [3, 3]
    assert differences(*runs) == []
    assert "training/agent/network/actor.0.weight" in differences(runs[0], whole)
    assert "stored no global generators" in caplog.text


def test_fresh_episodes_have_numbers_of_the_seed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = trained(tmp_path / "whole")
    runs = [as_if_killed(whole, tmp_path / name) for name in ("one", "other")]
    assert [go_on(run_dir, fresh_episodes=True)["exact_resume"] for run_dir in runs] == [False, False]
    assert differences(*runs) == []
    assert not caplog.text


def changed(state: Any, path: str, value: Any) -> Any:
    *branches, name = path.split("/")
    place = state["training"]
    for branch in branches:
        place = place[branch]
    place[name] = value
    return state


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("generators/numpy/state/pos", 10**8),
        ("generators/numpy/state/key", [1]),
        ("generators/random/words", [1]),
        ("generators/random/gauss", "much"),
        ("generators/torch", "none"),
        ("generators", {}),
        ("environment/copies/1/generators", {}),
        ("environment/copies/1/generators/own", {}),
        ("environment/copies/1/generators/own/0", {"bit_generator": "PCG64"}),
        ("environment/copies/1/generators/global/numpy/state/pos", -1),
    ],
)
def test_states_that_are_none_are_refused(path: str, value: Any, tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", "async, 2" if "global" in path else "sync")
    broken = as_if_killed(whole, tmp_path / "broken", lambda state: changed(state, path, value))
    with pytest.raises(StoreError, match=r"checkpoints/00000003: "):
        go_on(broken)
    assert json.loads((broken / "config.json").read_text())["env"] == "Mixed-v0"
