"""Runs whose network, loss terms or optimizer were given in Python: their files name them, resumes need them again."""

from __future__ import annotations

import functools
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
from esper.runs.config import RunConfig
from esper.runs.parts import PartsConfig
from esper.runs.resume.point import ResumeError
from esper.runs.resume.rules import changes
from esper.runs.run import RunError
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
        (
            {"activation": "torch.nn:Mish"},
            "activation = torch.nn:Mish: was given in Python, .* as an object: activation",
        ),
        ({"network": "module:name"}, "network = module:name: must be a factory that gets the spec of the environment"),
        ({"network": 3}, "network = 3: must be a factory that gets the spec of the environment and returns"),
        ({"optimizer": "adam"}, "optimizer = adam: must be a factory that gets parameter groups"),
        ({"optimizer": []}, r"optimizer = \[\]: must be a factory that gets parameter groups"),
        ({"loss_terms": "mine"}, "loss_terms = mine: must be a dict of terms by name, each a function and its weight"),
        ({"network": lambda spec: None}, "must return a torch.nn.Module, not NoneType"),
        ({"loss_terms": {"mine": small_values}}, "loss_terms = mine: .*must be a function and its weight"),
        ({"loss_terms": {"mine": (small_values, torch.ones(()))}}, "must be a function and its weight, a finite"),
        ({"loss_terms": {"mine": (small_values, float("nan"))}}, "must be a function and its weight, a finite"),
        ({"loss_terms": small_values}, "must be a dict of terms by name"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        train(tmp_path / "run", 2, **given)
    assert not (tmp_path / "run").exists()


def sgd(momentum: float) -> Any:
    return functools.partial(torch.optim.SGD, momentum=momentum)


def test_partials_are_told_apart_by_their_function_and_arguments(tmp_path: Path) -> None:
    run = train(tmp_path / "run", 2, optimizer=sgd(0.9))
    name = json.loads((run.folder / "config.json").read_text())["optimizer"]
    assert name == "<partial(torch.optim.sgd.SGD, momentum=0.9)>"
    more: dict[str, Any] = {"total_timesteps": STEPS * 3, "quiet": True}
    with pytest.raises(ResumeError, match=r"optimizer: <partial.*momentum=0.9\)>, now <partial.*momentum=0.5\)>"):
        esper.resume(run.folder, optimizer=sgd(0.5), **more)
    assert esper.resume(run.folder, optimizer=sgd(0.9), **more).result.train.updates == 3


def test_a_partial_of_an_older_version_has_no_arguments_in_files(tmp_path: Path) -> None:
    before, now = (RunConfig(parts=PartsConfig(optimizer=each)) for each in ("<functools.partial>", sgd(0.9)))
    assert changes(before, now) == {}
    assert changes(before, RunConfig(parts=PartsConfig(optimizer=rmsprop))).keys() == {"optimizer"}


def fail(run: Any) -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("given", "call"),
    [
        ({"network": Mine}, "network=..."),
        ({"activation": nn.PReLU}, "activation=..."),
        ({"encoder": lambda shape: nn.Identity()}, "encoder=..."),
        ({"encoder": functools.partial(lambda name, shape: nn.Identity(), "a:b")}, "encoder=..."),
        ({"optimizer": rmsprop, "encoder": f"{__name__}:same"}, "optimizer=..., trust=True"),
    ],
)
def test_what_only_python_can_resume_names_the_call(tmp_path: Path, given: dict[str, Any], call: str) -> None:
    with pytest.raises(RunError, match="resume from it with  ") as caught:
        train(tmp_path / "run", 2, **given, callbacks=[fail])
    said = str(caught.value).split("resume from it with  ")[1]
    assert said == f"esper.resume({str(tmp_path / 'run')!r}, {call})"
    again = eval(said.replace("=...", "=PART"), {"esper": esper, "PART": next(iter(given.values()))})
    assert again.result.train.updates == 2


def same(shape: tuple[int, ...]) -> nn.Module:
    return nn.Identity()


def test_the_command_line_says_what_python_must_give_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, given in (("activation", nn.PReLU), ("encoder", lambda shape: nn.Identity())):
        folder = train(tmp_path / name, 2, **{name: given}).folder
        for command in (["ppo", "--total-timesteps", str(STEPS * 4), "--resume"], ["evaluate"]):
            with pytest.raises(SystemExit):
                main([*command, str(folder)])
            err = capsys.readouterr().err
            assert "was given in Python, where it must be given again" in err
            assert f"{name}=..." in err


def test_a_policy_takes_no_other_activation(tmp_path: Path) -> None:
    folder = train(tmp_path / "run", 2).folder
    with pytest.raises(StoreError, match="its activation is tanh: leave activation= out"):
        load_policy(folder, activation=nn.PReLU)
