"""A run whose encoder was given in Python: its files name it, and it goes on when it is given again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from esper.policies.policy import load_policy
from esper.runs.config import RunConfig
from esper.runs.layers import Layer, resolve
from esper.runs.resume.point import ResumeError
from esper.runs.run import resume_run, run
from esper.settings.layers import SettingsError
from esper.settings.options import ConfigError
from esper.settings.values import spelled
from esper.simic import NetworkConfig
from esper.storage.store import StoreError

NAME = f"{__name__}:wide"


def wide(shape: tuple[int, ...]) -> nn.Module:
    return nn.Sequential(nn.Linear(shape[0], 6), nn.Softplus())


def local() -> Callable[[tuple[int, ...]], nn.Module]:
    return lambda shape: wide(shape)


MARKER = f"<{__name__}.local.<locals>.<lambda>>"


def config(run_dir: Path, encoder: Any) -> RunConfig:
    values = {
        "env": "CartPole-v1",
        "num_envs": 2,
        "num_steps": 8,
        "num_minibatches": 2,
        "total_timesteps": 32,
        "quiet": True,
        "picture": False,
        "tensorboard": False,
        "hidden_sizes": [4],
        "checkpoint_every": 1,
        "run_dir": str(run_dir),
        "encoder": encoder,
        "compile": "off",
        "threads": 1,
    }
    return resolve([Layer(source="test", values=values)]).config


def more(timesteps: int, **settings: Any) -> list[Layer]:
    return [Layer(source="test", values={"total_timesteps": timesteps, "quiet": True, **settings})]


def parameters(run_dir: Path) -> dict[str, torch.Tensor]:
    return load_policy(run_dir, encoder=wide_of(run_dir)).network.state_dict()


def wide_of(run_dir: Path) -> Any:
    return wide if json.loads((run_dir / "config.json").read_text())["encoder"] == NAME else LOCAL


LOCAL = local()


@pytest.mark.parametrize(("encoder", "recorded"), [(wide, NAME), (LOCAL, MARKER)])
def test_goes_on_exactly_when_it_is_given_again(tmp_path: Path, encoder: Any, recorded: str) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(config(whole, encoder))
    resume_run(whole, more(64, encoder=encoder))
    run(config(parts, encoder))
    for timesteps in (48, 64):
        resume_run(parts, more(timesteps, encoder=encoder))
    for file in ("config.json", "policy.json"):
        found = json.loads((parts / file).read_text())
        assert (found.get("network") or found)["encoder"] == recorded
    ours, theirs = parameters(parts), parameters(whole)
    assert "actor.0.layers.0.weight" in ours
    assert all(tensor.equal(theirs[name]) for name, tensor in ours.items())


def test_is_named_where_it_is_missing(tmp_path: Path) -> None:
    run(config(tmp_path / "named", wide))
    run(config(tmp_path / "local", LOCAL))
    with pytest.raises(ResumeError, match=f"its encoder imports '{__name__}'"):
        resume_run(tmp_path / "named", more(64))
    with pytest.raises(StoreError, match=f"its encoder imports '{__name__}'"):
        load_policy(tmp_path / "named")
    with pytest.raises(SettingsError, match=r"encoder = <.*: was given in Python, where it must be given again"):
        resume_run(tmp_path / "local", more(64))
    with pytest.raises(StoreError, match=r"encoder = <.*: was given in Python, where it must be given again"):
        load_policy(tmp_path / "local", trust=True)
    with pytest.raises(ResumeError, match=r"these settings cannot change on resume:\n  encoder: <.*, now "):
        resume_run(tmp_path / "local", more(64, encoder=wide))
    # What has a name is imported where its files are trusted.
    resume_run(tmp_path / "named", more(64), trust=True)


def test_its_name() -> None:
    assert spelled(wide) == NAME
    assert spelled(nn.Linear) == "torch.nn.modules.linear:Linear"
    assert spelled(LOCAL) == MARKER
    assert spelled(nn.Identity()) == "<torch.nn.modules.linear.Identity>"
    assert spelled("none") == "none"


class Careful(nn.Module):
    """An encoder with a check of its own."""

    def forward(self, observations: Any) -> Any:
        assert observations.ndim == 4, "images alone"


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (nn.Linear(4, 3), "must be what makes a module: a callable that gets an observation's shape"),
        (lambda shape: None, "must return a torch.nn.Module, not NoneType"),
        (lambda shape: nn.Linear(5, 3), r"fails on observations \[4\]: mat1"),
        (
            lambda shape: nn.Conv2d(*shape),
            r"raises when it is called with \(4,\): TypeError: Conv2d.__init__.*test_given_encoder.py, line",
        ),
        (lambda: nn.Linear(4, 3), r"raises when it is called with \(4,\): TypeError: .*takes 0 positional arguments"),
        (lambda shape: Careful(), r"fails on observations \[4\]: images alone"),
        (3, "encoder = 3: must be text or a callable"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path: Path, encoder: Any, message: str) -> None:
    with pytest.raises((ConfigError, SettingsError), match=message):
        run(config(tmp_path / "run", encoder))
    assert not (tmp_path / "run").exists()


def test_the_same_weights_as_by_its_name(tmp_path: Path) -> None:
    run(config(tmp_path / "given", wide))
    run(config(tmp_path / "named", NAME))
    given, named = (load_policy(tmp_path / name, encoder=wide).network.state_dict() for name in ("given", "named"))
    assert all(tensor.equal(named[name]) for name, tensor in given.items())
    assert NetworkConfig(encoder=wide) == NetworkConfig(encoder=wide)
