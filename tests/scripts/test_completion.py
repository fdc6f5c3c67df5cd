"""`esper completion`: the scripts do in the shells what they are for, where the shells are there."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from esper.schedules import SHAPES
from esper.scripts.train import main

# What bash does when Tab is pressed behind the last word: it calls the function that `complete` registered.
TAB = """
source "$1"; shift
spec=$(complete -p esper)
[[ $spec =~ -F\\ ([^ ]+) ]]
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
"${BASH_REMATCH[1]}" esper
printf '%s\\n' "${COMPREPLY[@]}"
"""


def script(shell: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["completion", shell]) == 0
    (path := folder / f"esper.{shell}").write_text(capsys.readouterr().out)
    return path


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    capture = subprocess.run(
        [sys.executable, "-m", "esper", "completion", "bash"], capture_output=True, check=True, text=True
    )
    (path := tmp_path_factory.mktemp("completion") / "esper.bash").write_text(capture.stdout)
    return path


def completed(bash: Path, *words: str) -> list[str]:
    command = ["bash", "--norc", "-c", TAB, "bash", str(bash), "esper", *words]
    return subprocess.run(command, capture_output=True, check=True, text=True, cwd=bash.parent).stdout.split()


def test_a_command(bash: Path) -> None:
    assert completed(bash, "pp") == ["ppo"]
    assert completed(bash, "e") == ["evaluate", "enjoy", "export"]


def test_a_flag(bash: Path) -> None:
    assert completed(bash, "ppo", "--total") == ["--total-timesteps"]
    # Flags of a component, and those behind others.
    assert completed(bash, "ppo", "--env", "CartPole-v1", "--policy-lr-decay-f") == ["--policy-lr-decay-frac"]
    assert "--no-picture" in completed(bash, "sweep", "--no-")


def test_names(bash: Path) -> None:
    assert completed(bash, "ppo", "--lr-decay", "") == list(SHAPES)
    assert completed(bash, "ppo", "--lr-decay", "cos") == ["cosine", "cosine_restarts"]
    assert completed(bash, "ppo", "--resume-schedule", "") == ["continue", "extend", "restart"]
    assert completed(bash, "tune", "--preset", "CartPole-") == ["CartPole-v1"]
    assert completed(bash, "heuristic", "--controller", "h") == ["heuristic"]
    assert completed(bash, "completion", "") == ["bash", "zsh", "fish"]


def test_files(bash: Path) -> None:
    (bash.parent / "mine.toml").touch()
    assert completed(bash, "ppo", "--config", "mi") == ["mine.toml"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_other_shells(tmp_path: Path, capsys: pytest.CaptureFixture[str], shell: str) -> None:
    path = script(shell, tmp_path, capsys)
    text = path.read_text()
    assert all(name in text for name in ("lr-decay", "cosine_restarts", "evaluate"))
    if shutil.which(shell):
        subprocess.run([shell, "-n", str(path)], check=True)


def test_another_shell(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["completion", "tcsh"])
    assert capsys.readouterr().err == "esper completion: error: tcsh: must be one of bash, zsh, fish\n"
