"""An environment family is one file among `esper.envs.families`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import pytest

from esper.envs import families
from esper.envs.base import Vectors
from esper.envs.config import EnvConfig
from esper.envs.make import make_env
from esper.scripts.train import main
from esper.settings.options import ConfigError

TOY = '''
import dataclasses

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

from esper.envs.family import Family


class Three(gymnasium.Env):
    """Three steps, each of the same reward. It shows three numbers."""

    observation_space, action_space = Box(0, 1, (3,)), Discrete(2)

    def __init__(self, reward=1.0):
        self.reward = reward

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.see(), {}

    def step(self, action):
        self.steps += 1
        return self.see(), self.reward, self.steps == 3, False, {}

    def see(self):
        return np.eye(4, 3, dtype=np.float32)[self.steps]


class FirstTwo(gymnasium.ObservationWrapper):
    def __init__(self, env):
        super().__init__(env)
        self.observation_space = Box(0, 1, (2,))

    def observation(self, observation):
        return observation[:2]


class Toy(Family):
    prefixes = ("Toy/",)

    def register(self, env):
        if "Toy/Three-v0" not in gymnasium.registry:
            gymnasium.register("Toy/Three-v0", entry_point=Three)

    def wrap(self, env):
        return FirstTwo(env)

    def make_for_scores(self, config, num_envs, seed):
        return super().make_for_scores(dataclasses.replace(config, env_kwargs={"reward": 10.0}), num_envs, seed)


FAMILY = Toy()
'''


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.setattr(families, "__path__", [*families.__path__, str(tmp_path)])
    families.families.cache_clear()
    yield
    gymnasium.registry.pop("Toy/Three-v0", None)
    families.families.cache_clear()
    sys.modules.pop(f"{families.__name__}.toy", None)


@pytest.mark.usefixtures("toy")
def test_a_file_adds_a_family(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make_env("Toy/Three-v0", num_envs=2).spec.observations == Vectors(size=2)
    with pytest.raises(ConfigError, match="did you mean 'Toy/Three-v0'"):
        make_env("Toy/Thre-v0")
    sizes = ("--num-envs", "2", "--num-steps", "8", "--num-minibatches", "2", "--total-timesteps", "32")
    rest = ("--hidden-sizes", "8", "--compile", "off", "--no-tensorboard", "--no-picture")
    folder = str(tmp_path / "run")
    assert main(["ppo", "--env", "Toy/Three-v0", "--run-dir", folder, *sizes, *rest]) == 0
    capsys.readouterr()
    assert main(["evaluate", folder, "--episodes", "2"]) == 0
    # For scores a step is worth 10.
    assert "30.0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("env", "vector", "family"),
    [
        ("CartPole-v1", "auto", "gymnasium"),
        ("mine:CartPole-v1", "async", "gymnasium"),
        ("CartPole-v1", "envpool", "envpool"),
        ("CartPoleNoVel-v1", "sync", "velocity"),
        ("torch/CartPole-v1", "auto", "device"),
        ("torch/CartPole-v1", "envpool", "device"),
        ("ale_py:ALE/Pong-v5", "auto", "atari"),
        ("ALE/Pong-v5", "sync", "atari"),
        ("MinAtar/Breakout-v1", "auto", "minatar"),
        ("MiniGrid-Empty-5x5-v0", "auto", "minigrid"),
        ("popgym-RepeatFirstEasy-v0", "auto", "popgym"),
    ],
)
def test_ids_and_the_way_of_stepping_decide(env: str, vector: str, family: str) -> None:
    found = families.family_of(EnvConfig(env=env, vector=vector))  # type: ignore[arg-type]
    assert type(found).__module__ == f"esper.envs.families.{family}"
