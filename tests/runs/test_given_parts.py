"""Runs whose network, loss terms or optimizer were given in Python: their files name them, resumes need them again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import esper
from esper.envs.base import EnvSpec
from esper.policies.policy import load_policy
from esper.runs.resume.point import ResumeError
from esper.scripts.train import main
from esper.settings.options import ConfigError
from esper.simic.losses import Inputs
from esper.storage.store import StoreError

SMALL: dict[str, Any] = {
    "preset": "none",
    "num_envs": 2,
    "num_steps": 8,
    "num_minibatches": 2,
    "checkpoint_every": 1,
    "lr": 1e-3,
    "lr_decay": "linear",
    "threads": 1,
    "tensorboard": False,
    "picture": False,
    "quiet": True,
}
STEPS = 16
NAME = f"{__name__}:Mine"


class Mine(nn.Module):
    """The usual parts; `width` is not what a file would tell."""

    width = 5

    def __init__(self, spec: EnvSpec) -> None:
        super().__init__()
        self.actor = nn.Sequential(nn.Linear(4, self.width), nn.Mish(), nn.Linear(self.width, 2))
        self.critic = nn.Sequential(nn.Linear(4, self.width), nn.Mish(), nn.Linear(self.width, 1))


def small_values(inputs: Inputs) -> Tensor:
    return inputs.evaluation.value.square().mean()


def rising(update: int) -> float:
    return 0.1 * update


def rmsprop(groups: Any) -> torch.optim.Optimizer:
    return torch.optim.RMSprop(groups, momentum=0.9)


PARTS: dict[str, dict[str, Any]] = {
    "network": {"network": Mine},
    "loss_terms": {"loss_terms": {"small": (small_values, rising), "also": (small_values, 0.5)}},
    "optimizer": {"optimizer": rmsprop},
    "activation": {"activation": nn.PReLU, "hidden_sizes": [4]},
}
RECORDED = {
    "network": NAME,
    "activation": "torch.nn.modules.activation:PReLU",
    "optimizer": f"{__name__}:rmsprop",
    "loss_terms": {
        "small": [f"{__name__}:small_values", f"{__name__}:rising"],
        "also": [f"{__name__}:small_values", 0.5],
    },
}


def train(run_dir: Path, updates: int, **settings: Any) -> esper.Run:
    return esper.train("CartPole-v1", **{**SMALL, **settings}, total_timesteps=STEPS * updates, run_dir=run_dir)


def stop_after(updates: int) -> Callable[[Any], None]:
    def callback(run: Any) -> None:
        if run.agent.train_steps == updates:
            run.stop("enough")

    return callback


@pytest.mark.parametrize("part", PARTS)
def test_a_resume_with_the_same_part_is_exact(tmp_path: Path, part: str) -> None:
    whole = train(tmp_path / "whole", 6, **PARTS[part])
    parts = train(tmp_path / "parts", 6, **PARTS[part], callbacks=[stop_after(2)])
    assert parts.result.train.updates == 2
    parts = parts.resume(callbacks=[stop_after(4)])
    parts = esper.resume(parts.folder, **PARTS[part], quiet=True)
    assert (parts.result.train.updates, parts.status) == (6, "completed")
    assert json.loads((parts.folder / "config.json").read_text())[part] == RECORDED[part]
    ours, theirs = (run.folder / "policy.safetensors" for run in (parts, whole))
    assert ours.read_bytes() == theirs.read_bytes()
    assert ours.read_bytes() != (train(tmp_path / "without", 6).folder / "policy.safetensors").read_bytes()


@pytest.mark.parametrize("part", sorted(PARTS.keys() - {"activation"}))
def test_a_resume_without_it_is_refused_by_name(tmp_path: Path, part: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = train(tmp_path / "run", 2, **PARTS[part]).folder
    needed = rf"{part} = .*: was given in Python, where it must be given again: esper.resume\(folder, {part}=...\)"
    with pytest.raises(ConfigError, match=needed):
        esper.resume(folder, total_timesteps=STEPS * 4, trust=True, quiet=True)
    with pytest.raises(SystemExit):
        main(["ppo", "--resume", str(folder), "--total-timesteps", str(STEPS * 4), "--trust"])
    assert f"esper.resume(folder, {part}=...)" in capsys.readouterr().err
    without: dict[str, Any] = {part: None}
    with pytest.raises(ResumeError, match=rf"these settings cannot change on resume:\n  {part}: .*, now none"):
        esper.resume(folder, **without, quiet=True)


def test_another_part_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = train(tmp_path / "run", 2, network=Mine, loss_terms={"small": (small_values, 0.5)}).folder
    more: dict[str, Any] = {
        "network": Mine,
        "loss_terms": {"small": (small_values, 0.5)},
        "total_timesteps": STEPS * 4,
        "quiet": True,
    }
    with pytest.raises(ResumeError, match=rf"\n  network: {NAME}, now torch.nn.modules.linear:Linear"):
        esper.resume(folder, **{**more, "network": nn.Linear})
    for terms in ({"other": (small_values, 0.5)}, {"small": (small_values, 0.6)}, {"small": (rising, 0.5)}):
        with pytest.raises(ResumeError, match=r"\n  loss_terms: .*, now "):
            esper.resume(folder, **{**more, "loss_terms": terms})
    monkeypatch.setattr(Mine, "width", 6)
    with pytest.raises(StoreError, match=r"network/actor.0.0.weight has shape \[5, 4\], not \[6, 4\]"):
        esper.resume(folder, **more)


def test_policy_of_a_given_network(tmp_path: Path) -> None:
    run = train(tmp_path / "run", 2, network=Mine, encoder=lambda shape: nn.Identity(), eval_every=1, eval_episodes=2)
    assert len(run.evaluate(episodes=2).returns) == 2
    assert run.best_policy.network.actor[0][0].weight.shape == (5, 4)
    with pytest.raises(StoreError, match=rf"its network was given in Python, by '{NAME}'"):
        load_policy(run.folder, trust=True)


def test_an_activation_is_given_again(tmp_path: Path) -> None:
    run = train(tmp_path / "run", 2, activation=nn.PReLU)
    assert [type(layer) for layer in run.policy.network.actor[1::2]] == [nn.PReLU, nn.PReLU]
    assert "actor.1.weight" in run.policy.network.state_dict()
    with pytest.raises(ConfigError, match=r"activation = torch.*PReLU: was given in Python, where it must be given"):
        esper.resume(run.folder, total_timesteps=STEPS * 4, trust=True, quiet=True)
    with pytest.raises(StoreError, match=r"activation = torch.*PReLU: was given in Python, where it must be given"):
        load_policy(run.folder, trust=True)
    assert load_policy(run.folder, activation=nn.PReLU).network.act(torch.zeros(1, 4)).shape == (1,)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"activation": nn.PReLU()}, "activation = .*PReLU>: must be what makes a module: a class or a function"),
        ({"activation": lambda: None}, "must return a torch.nn.Module, not NoneType"),
        ({"activation": nn.functional.mish}, "fails on features .*missing 1 required positional argument"),
        ({"activation": lambda: nn.Linear(64, 2)}, r"must keep the shape of features \[2, 64\], and returns \[2, 2\]"),
        ({"activation": "mish"}, "activation = mish: must be one of tanh, .* or a callable that makes a module"),
        ({"network": "module:name"}, "network = module:name: was given in Python"),
        ({"network": 3}, "network = 3: must be text or a callable"),
        ({"network": lambda spec: None}, "must return a torch.nn.Module, not NoneType"),
        ({"loss_terms": {"mine": small_values}}, "loss_terms = mine: .*must be a function and its weight"),
        ({"loss_terms": {"mine": (small_values, torch.ones(()))}}, "must be a function and its weight, a finite"),
        ({"loss_terms": {"mine": (small_values, float("nan"))}}, "must be a function and its weight, a finite"),
        ({"loss_terms": small_values}, "must be a JSON object"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        train(tmp_path / "run", 2, **given)
    assert not (tmp_path / "run").exists()
