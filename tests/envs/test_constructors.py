"""An environment that cannot be made ends the command with one line that says why."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from esper.scripts.train import main

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


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    kinds = ("assert", "odd", "base", "gym")
    for kind in kinds:
        gymnasium.register(f"Raises-{kind}-v0", entry_point=Raises, kwargs={"kind": kind})
    yield
    for kind in kinds:
        del gymnasium.registry[f"Raises-{kind}-v0"]


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
    told = "; it is in the current folder, where Python looks with PYTHONPATH=. before the command\n"
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
