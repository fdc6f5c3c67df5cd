"""A policy that grows hosts, stopped and resumed: its way and end are those of a run left alone. It can be shown."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from esper.analysis.runs import repeatable_events
from esper.envs.growth.single import GrowthEnv
from esper.policies.policy import load_policy
from esper.runs.config import RunConfig
from esper.runs.layers import Layer, resolve
from esper.runs.run import resume_run, run
from esper.scripts.train import main
from esper.storage.store import load_pair
from esper.telemetry.events import Event, UpdateCompleted

UPDATES = 6


def config(folder: Path, total_updates: int, **changes: Any) -> RunConfig:
    """Episodes of 5 epochs in rollouts of 4 steps: hosts, seeds and memory go on from one rollout to the next."""
    settings = {
        "env": "esper/Growth-v0",
        "env_kwargs": {
            "dataset": "growth_probes:pairs",
            "channels": [4, 4],
            "epochs": 5,
            "epoch_steps": 2,
            "batch_size": 4,
            "min_epochs": 1,
            "min_gain": 0.0,
            "min_gradient": 0.0,
        },
        "num_envs": 2,
        "num_steps": 4,
        "num_minibatches": 1,
        "total_timesteps": total_updates * 8,
        "hidden_sizes": [4],
        "rnn": "lstm",
        "rnn_size": 4,
        "lr": 0.01,
        "lr_warmup_frac": 0.1,
        "lr_decay": "cosine",
        "metrics_after": True,
        "run_dir": str(folder),
        "quiet": True,
        "picture": False,
        "tensorboard": False,
    }
    return resolve([Layer(source="here", values=settings | changes)]).config


class StopsAfter3:
    def emit(self, event: Event) -> None:
        if isinstance(event, UpdateCompleted) and event.update == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    def close(self) -> None: ...


@pytest.mark.parametrize("vector", ["native", "sync"])
@pytest.mark.parametrize("changes", [{}, {"normalize_observations": True, "compile": "off"}], ids=["plain", "torch"])
def test_goes_on_to_the_last_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vector: str, changes: dict[str, Any]
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run(config(whole, UPDATES, vector=vector, **changes))
    assert run(config(cut, UPDATES, vector=vector, **changes), [StopsAfter3()]).train.updates == 3
    resume_run(cut, [], trust=True)
    ways = [
        [event for event in repeatable_events(folder) if event["event"] == "update_completed"]
        for folder in (whole, cut)
    ]
    assert [event["update"] for event in ways[0]] == list(range(UPDATES))
    assert ways[0] == ways[1]
    ours, theirs = (load_pair(folder / "policy", root=folder)[0] for folder in (whole, cut))
    assert all(tensor.equal(theirs[name]) for name, tensor in ours.items())


def test_evaluations_draw_what_happened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    run(config(tmp_path / "run", 2))
    command = ["evaluate", str(tmp_path / "run"), "--episodes", "1", "--record", str(tmp_path / "a.gif"), "--trust"]
    assert main(command) == 0
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 5  # type: ignore[attr-defined]


@pytest.mark.parametrize("vector", ["native", "sync"])
def test_a_policy_acts_outside_of_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vector: str) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    settings = config(tmp_path / "run", 2, vector=vector)
    run(settings)
    env = GrowthEnv(**settings.environment.env_kwargs)
    obs, info = env.reset(seed=0)
    action, memory = load_policy(tmp_path / "run", trust=True).predict(obs, mask=info["action_mask"])
    assert env.action_space.contains(action)
    assert memory is not None


def test_the_band_of_a_slot_has_the_colours_of_its_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    kwargs = dict(config(Path("unused"), 2).environment.env_kwargs) | {"epochs": 4, "min_gain": 100.0}
    env = GrowthEnv(render_mode="rgb_array", **kwargs)
    env.reset(seed=1)
    # Wait, plant the first blueprint in the first slot, where it stays in training, and wait.
    for operation in (0, 1, 0):
        env.step(np.array([0, 1, 0, operation]))
    picture = env.render()
    # Four epochs are 102 pixels each from x = 64, and the band is 28 high from y = 216: empty, orange twice, empty.
    row = picture[230, [64 + 51, 64 + 153, 64 + 255, 64 + 357]]
    assert row.tolist() == [[255, 255, 255], [0xE6, 0x9F, 0x00], [0xE6, 0x9F, 0x00], [255, 255, 255]]
