"""Episodes in a window: what is said of them, how fast they go, and what is said where there can be none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from esper.envs import window
from esper.envs.base import DiscreteActions, EnvSpec, Vectors
from esper.envs.config import EnvConfig
from esper.policies.evaluate import evaluate
from esper.policies.policy import load_policy, save_policy
from esper.scripts.train import main
from esper.simic import NetworkConfig, PPOAgent, PPOConfig, RuntimeConfig


class Shown(gymnasium.Env[Any, Any]):
    """Episodes of 3 steps; each step's reward is the rate at which the environment thinks it is drawn."""

    metadata = {"render_modes": ["human"], "render_fps": 500}  # noqa: RUF012
    observation_space = Box(-1, 1, (4,))
    action_space = Discrete(2)

    def __init__(self, render_mode: str | None = None) -> None:
        assert render_mode == "human"

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.age = 0
        return self.np_random.uniform(-1, 1, 4).astype(np.float32), {}

    def step(self, action: Any) -> Any:
        self.age += 1
        obs = self.np_random.uniform(-1, 1, 4).astype(np.float32)
        return obs, float(self.metadata["render_fps"]), self.age >= 3, False, {}


class Blind(Shown):
    metadata = {"render_modes": ["ansi"]}  # noqa: RUF012


class Broken(Shown):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        raise OSError("the screen is upside down")


@pytest.fixture(autouse=True)
def environments(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    kinds: tuple[Any, ...] = (Shown, Blind, Broken)
    for kind in kinds:
        gymnasium.register(f"{kind.__name__}-v0", entry_point=kind)
    yield
    import pygame

    pygame.display.quit()
    for kind in kinds:
        del gymnasium.registry[f"{kind.__name__}-v0"]


def saved(folder: Path, env: str) -> Path:
    config = PPOConfig(num_envs=1, network=NetworkConfig(hidden_sizes=(8,)), runtime=RuntimeConfig(compile="off"))
    spec = EnvSpec(num_envs=1, observations=Vectors(size=4), actions=DiscreteActions(n=2))
    save_policy(folder, PPOAgent(config, spec, seed=1), EnvConfig(env=env))
    return folder


def enjoy(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    try:
        status = main(["enjoy", *map(str, arguments)])
    except SystemExit as exit:
        status = int(exit.code or 0)
    return status, *capsys.readouterr()


def test_the_return_of_each_episode_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = enjoy(capsys, saved(tmp_path, "Shown-v0"), "--episodes", "2")
    assert status == 0
    assert out == "episode 1: return 1500.00, 3 steps\nepisode 2: return 1500.00, 3 steps\n"


def test_the_rate_reaches_the_environment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = enjoy(capsys, saved(tmp_path, "Shown-v0"), "--episodes", "1", "--fps", "250")
    assert out == "episode 1: return 750.00, 3 steps\n"
    assert Shown.metadata["render_fps"] == 500


def test_steps_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that only sleeping moves, but for a step that takes 0.7 seconds of its own."""
    now, slept = [100.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    monkeypatch.setattr("esper.envs.window.time.monotonic", lambda: now[0])
    monkeypatch.setattr("esper.envs.window.time.sleep", sleep)
    env = window.Paced(Shown("human"), 2.0)
    env.reset(seed=0)
    env.step(0)
    now[0] += 0.2
    env.step(0)
    now[0] += 0.7
    env.step(0)
    env.step(0)
    # A step that is late by 0.2 is not made up for by a shorter one.
    assert slept == pytest.approx([0.5, 0.3, 0.0, 0.5])


@pytest.mark.parametrize("env", ["CartPole-v1", "torch/CartPole-v1"])
def test_gymnasiums_own_in_a_window_of_sdl(tmp_path: Path, capsys: pytest.CaptureFixture[str], env: str) -> None:
    run = saved(tmp_path, env)
    status, out, _ = enjoy(capsys, run, "--episodes", "1", "--seed", "3", "--fps", "1000")
    score = evaluate(load_policy(saved(tmp_path, "CartPole-v1")), episodes=1, seed=3)
    assert (status, out) == (0, f"episode 1: return {score.returns[0]:.2f}, {score.lengths[0]} steps\n")


def test_sampled_actions_are_those_of_evaluate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = saved(tmp_path, "CartPole-v1")
    _, out, _ = enjoy(capsys, run, "--episodes", "1", "--stochastic", "--fps", "1000")
    score = evaluate(load_policy(run), episodes=1, seed=0, stochastic=True)
    assert out == f"episode 1: return {score.returns[0]:.2f}, {score.lengths[0]} steps\n"


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ("Blind-v0", "Blind-v0: cannot be shown: needs the render mode human or rgb_array, and has ansi\n"),
        ("Broken-v0", "environment 0 raised on reset: OSError: the screen is upside down ("),
        ("Nowhere-v0", "env = Nowhere-v0: is no Gymnasium environment here"),
    ],
)
def test_what_cannot_be_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str], env: str, message: str) -> None:
    status, out, err = enjoy(capsys, saved(tmp_path, env))
    assert (status, out) == (2, "")
    assert err.startswith("esper enjoy: error: ")
    assert message in err


@pytest.mark.parametrize("display", [None, ":99"])
def test_without_a_display(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, display: str | None
) -> None:
    """None at all, or one that is not there."""
    for name in ("SDL_VIDEODRIVER", "XDG_RUNTIME_DIR", "WAYLAND_DISPLAY", "DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    if display is not None:
        monkeypatch.setenv("DISPLAY", display)
    status, out, err = enjoy(capsys, saved(tmp_path, "CartPole-v1"))
    assert (status, out) == (2, "")
    assert "CartPole-v1: cannot be shown: there is no display; esper evaluate --record draws" in err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--fps", "0"], "--fps 0: must be greater than 0"),
        (["--episodes", "0"], "--episodes 0: must be at least 1"),
        (["--seed", "-1"], "--seed -1: must be at least 0"),
    ],
)
def test_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str) -> None:
    assert enjoy(capsys, tmp_path, *flags) == (2, "", f"esper enjoy: error: {message}\n")
