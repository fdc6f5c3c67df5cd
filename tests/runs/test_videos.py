"""Videos during training: their names and events, what they leave as it is, resumes, and what cannot be drawn."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from PIL import Image

import esper
from esper.analysis.runs import repeatable_events
from esper.runs.run import RunError
from esper.runs.videos import Videos
from esper.settings.options import ConfigError

SMALL: dict[str, Any] = {
    "num_envs": 2,
    "num_steps": 8,
    "hidden_sizes": (4,),
    "compile": "off",
    "seed": 3,
    "tensorboard": False,
    "picture": False,
    "quiet": True,
}
UPDATE = 16  # steps


class Blind(gymnasium.Env[Any, Any]):
    """Episodes of 5 steps whose rewards are drawn from a global generator."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-1, 1, (2,))
        self.action_space = spaces.Discrete(2)
        self._age = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._age = 0
        return self._observed(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._age += 1
        reward = float(action) + np.random.normal()  # noqa: NPY002
        return self._observed(), reward, self._age == 5, False, {}

    def _observed(self) -> Any:
        return self.np_random.uniform(-1, 1, 2).astype(np.float32)


class Drawn(Blind):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__()
        self.render_mode = render_mode

    def render(self) -> Any:
        return np.full((16, 16, 3), 40 * self._age, np.uint8)


@pytest.fixture(autouse=True)
def without_ffmpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esper.runs.videos.find_spec", lambda name: None)


def names(run_dir: Path) -> list[str]:
    return sorted(path.name for path in (run_dir / "videos").iterdir())


def without_videos(run_dir: Path) -> list[dict[str, Any]]:
    """The record without videos, and without settings."""
    left_out = ("video_recorded", "run_started", "run_resumed")
    return [event for event in repeatable_events(run_dir) if event["event"] not in left_out]


def test_videos_are_named_and_recorded_and_change_nothing(tmp_path: Path) -> None:
    run = esper.train(Drawn, **SMALL, total_timesteps=5 * UPDATE, record_every=2, run_dir=tmp_path / "a")
    esper.train(Drawn, **SMALL, total_timesteps=5 * UPDATE, run_dir=tmp_path / "b")
    assert names(tmp_path / "a") == ["update-00002.gif", "update-00004.gif"]
    found = [event for event in run.record if event["event"] == "video_recorded"]
    assert [(event["update"], event["env_steps"], event["video"], event["frames"]) for event in found] == [
        (1, 2 * UPDATE, "videos/update-00002.gif", 5),
        (3, 4 * UPDATE, "videos/update-00004.gif", 5),
    ]
    with Image.open(tmp_path / "a" / "videos" / "update-00004.gif") as image:
        assert (image.n_frames, image.size) == (5, (16, 16))  # type: ignore[attr-defined]
    assert without_videos(tmp_path / "a") == without_videos(tmp_path / "b")
    policies = [(tmp_path / name / "policy.safetensors").read_bytes() for name in "ab"]
    assert policies[0] == policies[1]
    assert not (tmp_path / "b" / "videos").exists()


def test_a_resumed_run_goes_on_with_the_numbers(tmp_path: Path) -> None:
    esper.train(Drawn, **SMALL, total_timesteps=3 * UPDATE, record_every=2, run_dir=tmp_path / "a")
    esper.resume(tmp_path / "a", Drawn, total_timesteps=6 * UPDATE, quiet=True)
    assert names(tmp_path / "a") == ["update-00002.gif", "update-00004.gif", "update-00006.gif"]
    esper.resume(tmp_path / "a", Drawn, total_timesteps=9 * UPDATE, record_every=3, quiet=True)
    assert names(tmp_path / "a")[3:] == ["update-00009.gif"]


def test_a_video_that_a_stop_prevents_is_recorded_by_the_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    after_update = Videos.after_update

    def stopped(self: Videos, emit: Any) -> None:
        if self._training.agent.train_steps == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        after_update(self, emit)

    settings = {**SMALL, "total_timesteps": 4 * UPDATE, "record_every": 2}
    with monkeypatch.context() as patch:
        patch.setattr(Videos, "after_update", stopped)
        assert esper.train(Drawn, **settings, run_dir=tmp_path / "a").status == "interrupted"
    assert names(tmp_path / "a") == []
    esper.resume(tmp_path / "a", Drawn, quiet=True)
    esper.train(Drawn, **settings, run_dir=tmp_path / "alone")
    files = [{name: (run / "videos" / name).read_bytes() for name in names(run)} for run in tmp_path.iterdir()]
    assert files[0] == files[1]
    assert list(files[0]) == ["update-00002.gif", "update-00004.gif"]


def test_videos_are_mp4_where_the_extra_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("imageio_ffmpeg")
    monkeypatch.setattr("esper.runs.videos.find_spec", lambda name: name)
    esper.train(Drawn, **SMALL, total_timesteps=UPDATE, record_every=1, run_dir=tmp_path / "a")
    assert names(tmp_path / "a") == ["update-00001.mp4"]
    assert b"ftyp" in (tmp_path / "a" / "videos" / "update-00001.mp4").read_bytes()[:12]


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (Blind, r"record_every = 2: needs an environment to draw: env = .*Blind"),
        (Drawn(), r"record_every = 2: needs environments of its own, and .*Drawn.* exists already"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_the_run(tmp_path: Path, env: Any, message: str) -> None:
    settings = {**SMALL, "num_envs": 1}
    with pytest.raises(ConfigError, match=message):
        esper.train(env, **settings, total_timesteps=4 * UPDATE, record_every=2, run_dir=tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_an_environment_that_fails_to_draw_ends_the_run_with_a_checkpoint(tmp_path: Path) -> None:
    class Breaks(Drawn):
        drawn = 0

        def render(self) -> Any:
            Breaks.drawn += 1
            if Breaks.drawn > 8:  # The first frame, a whole episode, and two frames more.
                raise RuntimeError("no display any more")
            return super().render()

    with pytest.raises(RunError, match=r"(?s)cannot be drawn here: .*no display any more.*the last checkpoint"):
        esper.train(Breaks, **SMALL, total_timesteps=4 * UPDATE, record_every=1, run_dir=tmp_path / "a")
    assert names(tmp_path / "a") == ["update-00001.gif"]
