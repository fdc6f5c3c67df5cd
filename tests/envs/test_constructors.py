"""An environment that cannot be made ends the command with one line that says why."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from esper.envs.config import EnvConfig
from esper.envs.make import make_rendered
from esper.envs.rendering import RenderedVectorEnv
from esper.scripts.train import main
from esper.settings.options import ConfigError

LONG = "No module of the simulator\n" + "and much about it\n" * 60


class Odd(Exception):
    pass


class Raises(gymnasium.Env[Any, Any]):
    """Raises in its constructor, as `kind` says."""

    def __init__(self, kind: str = "assert") -> None:
        kinds = {
            "assert": AssertionError(LONG),
            "odd": Odd(LONG),
            "base": BaseException(),
            "gym": gymnasium.error.Error(LONG),
        }
        raise kinds[kind]


class Plays(gymnasium.Env[Any, Any]):
    """Draws its `size` in pixels, in whatever mode, and names no mode."""

    observation_space = Box(-1, 1, (2,))
    action_space = Discrete(2)

    def __init__(self, size: int, render_mode: str | None = None) -> None:
        self.size, self.render_mode = size, render_mode

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return np.zeros(2, np.float32), {}

    def render(self) -> Any:
        return np.zeros((self.size, self.size, 3), np.uint8)


class OnWindows(Plays):
    """Draws on a window alone, and looks whether another mode was asked for."""

    metadata = {"render_modes": ["human", "ansi"]}  # noqa: RUF012

    def __init__(self, size: int, render_mode: str | None = None) -> None:
        assert render_mode in (None, "human")


class Blind(Plays):
    """Has no pictures, and no argument for them."""

    def __init__(self, size: int) -> None:
        super().__init__(size)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    kinds = ("assert", "odd", "base", "gym")
    for kind in kinds:
        gymnasium.register(f"Raises-{kind}-v0", entry_point=cast(Any, Raises), kwargs={"kind": kind})
    drawn: tuple[Any, ...] = (Plays, OnWindows, Blind)
    for each in drawn:
        gymnasium.register(f"{each.__name__}-v0", entry_point=each)
    yield
    for kind in kinds:
        del gymnasium.registry[f"Raises-{kind}-v0"]
    for each in drawn:
        del gymnasium.registry[f"{each.__name__}-v0"]


def refused(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    with pytest.raises(SystemExit) as exit:
        main(["ppo", "--quiet", *flags])
    assert exit.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("vector", ["sync", "async"])
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("assert", "raised in its constructor: AssertionError: No module of the simulator ("),
        ("odd", "raised in its constructor: Odd: No module of the simulator ("),
        ("base", "raised in its constructor: BaseException ("),
        ("gym", "cannot be made: Error: No module of the simulator\n"),
    ],
)
def test_a_constructor_that_raises(
    kind: str, said: str, vector: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(tmp_path / "run")
    message = refused(capsys, "--env", f"Raises-{kind}-v0", "--vector", vector, "--run-dir", run)
    assert f"Raises-{kind}-v0: {said}" in message
    assert message.count("\n") == 1


@pytest.mark.parametrize("name", ["lost_envs.py", "lost_envs/__init__.py"])
def test_a_module_in_the_current_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    told = "; it is in the current folder: put PYTHONPATH=. before the command\n"
    assert told not in refused(capsys, "--env", "lost_envs:Lost-v0", "--run-dir", "run")
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).touch()
    message = refused(capsys, "--env", "lost_envs:Lost-v0", "--run-dir", "run")
    assert f"lost_envs cannot be imported: No module named 'lost_envs'{told}" in message


@pytest.mark.parametrize(
    ("text", "said"), [("1 +", "SyntaxError: invalid syntax"), ("raise SystemExit(0)", "SystemExit: 0")]
)
def test_a_module_that_raises(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken_envs.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    message = refused(capsys, "--env", "broken_envs:Any-v0", "--run-dir", str(tmp_path / "run"))
    assert f"broken_envs cannot be imported: {said}" in message
    assert message.count("\n") == 1


SILENT = """
import gymnasium

class Silent(gymnasium.Env):
    def __init__(self):
        assert gymnasium.spec("Silent-v0").max_episode_steps in (1, 2)

gymnasium.register("Silent-v0", Silent)
"""


def test_an_assertion_without_a_text_is_shown_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Not in this file: pytest gives its assertions texts.
    (tmp_path / "silent_envs.py").write_text(SILENT)
    monkeypatch.syspath_prepend(tmp_path)
    message = refused(capsys, "--env", "silent_envs:Silent-v0", "--run-dir", str(tmp_path / "run"))
    assertion = 'assert gymnasium.spec("Silent-v0").max_episode_steps in (1, 2)'
    assert (
        f"raised in its constructor: AssertionError: {assertion} ({tmp_path / 'silent_envs.py'}, line 6)\n" in message
    )
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ("OnWindows-v0", "needs the render mode rgb_array, and has human, ansi"),
        ("Blind-v0", "its constructor takes no render_mode"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*render_mode='rgb_array'")
def test_what_cannot_be_drawn_is_not_laid_to_the_arguments(env: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        make_rendered(EnvConfig(env=env, env_kwargs={"size": 8}))
    assert (error.value.name, error.value.allowed) == ("env", f"cannot be drawn: {said}")


@pytest.fixture
def plays() -> Iterator[RenderedVectorEnv]:
    env = make_rendered(EnvConfig(env="Plays-v0", env_kwargs={"size": 8}))
    env.reset(seed=0)
    yield env
    env.close()


@pytest.mark.filterwarnings("ignore:.*render_mode='rgb_array'")
def test_what_names_no_render_modes_may_be_drawn(plays: RenderedVectorEnv) -> None:
    assert plays.render().shape == (8, 8, 3)


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (None, "render returned None; Gymnasium requires an image [height, width, 3] of uint8"),
        ("Invalid mode", "render returned 'Invalid mode'; Gymnasium requires"),
        ([np.zeros((8, 8, 3), np.uint8)], "render returned a list of 1 value; Gymnasium requires"),
        (np.zeros((8, 8, 5), np.uint8), "render returned an array of uint8 [8, 8, 5]; Gymnasium requires"),
        (np.full((8, 8, 3), 0.5), "render returned an image of float64; Gymnasium requires uint8"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*render_mode='rgb_array'")
def test_what_is_no_picture(frame: Any, said: str, plays: RenderedVectorEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plays, "render", lambda self: frame)
    with pytest.raises(
        ConfigError, match=re.escape(f"cannot be drawn here: environment 0 breaks Gymnasium's rules: {said}")
    ):
        plays.render()
