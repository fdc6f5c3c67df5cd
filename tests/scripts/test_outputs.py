"""Wherever a command writes: the folders above what the user named are made, or the error says what is none."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest

from esper.scripts.train import main, make_parsers

TRAIN = (
    *("--env", "torch/CartPole-v1", "--preset", "none", "--num-envs", "2", "--num-steps", "16", "--compile", "off"),
    *("--total-timesteps", "64", "--no-tensorboard", "--no-picture", "--quiet"),
)
GROW = ("--episodes", "2", "--num-envs", "2", "--epochs", "4", "--blueprints", "norm", "--no-tensorboard", "--quiet")
SEARCH = ("--trials", "1", "--seeds", "1", "--final-seeds", "7-8", "--workers", "1")

# What is read, by the name of the argument.
READ = {"run", "arms", "runs", "path", "config", "resume"}
# By command: the rest of the command line, the argument that names what is written, the end of that name, and the
# package without which it is not written. RUN is a run, and OTHER another folder.
WRITTEN: Sequence[tuple[str, Sequence[str], str, str, str]] = [
    ("ppo", TRAIN, "--run-dir", "run", "torch"),
    ("heuristic", GROW, "--run-dir", "run", "sklearn"),
    ("heuristic", (*GROW, "--run-dir", "OTHER"), "--record", "best.png", "sklearn"),
    ("heuristic", (*GROW, "--run-dir", "OTHER"), "--record", "best.gif", "sklearn"),
    ("sweep", (*TRAIN[:4], *TRAIN[10:12], "--seeds", "1"), "--output", "sweep", "torch"),
    ("tune", (*TRAIN[:2], "--total-timesteps", "2048", *SEARCH), "--output", "search", "optuna"),
    ("schedule", TRAIN, "--output", "rates.png", "matplotlib"),
    ("evaluate", ("RUN", "--episodes", "1"), "--record", "episode.gif", "PIL"),
    ("export", ("RUN",), "--output", "policy.pt2", "torch"),
    ("report", ("RUN",), "--output", "page", "matplotlib"),
    ("report", ("RUN",), "--csv", "updates.csv", "torch"),
    ("report", ("RUN",), "--parquet", "updates.parquet", "pyarrow"),
    ("compare", ("RUN",), "--html", "page.html", "matplotlib"),
    ("push", ("RUN", "me/cart"), "--output", "shared", "huggingface_hub"),
    ("watch", ("RUN",), "--once", "page.html", "plotly"),
]
# tests/hub has a Hub to pull from.
ELSEWHERE = {("pull", "folder")}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main(["ppo", *TRAIN, "--run-dir", str(folder)]) == 0
    return folder


def command(case: tuple[str, Sequence[str], str, str, str], run: Path, output: Path) -> list[str]:
    name, given, flag, _, needed = case
    if find_spec(needed) is None:
        pytest.skip(f"needs {needed}")
    places = {"RUN": str(run), "OTHER": str(output.parents[1] / "other")}
    return [name, *(places.get(word, word) for word in given), flag, str(output)]


@pytest.mark.parametrize("case", WRITTEN, ids=lambda case: f"{case[0]} {case[2]}")
def test_folders_that_are_missing_are_made(
    case: tuple[str, Sequence[str], str, str, str], run: Path, tmp_path: Path
) -> None:
    output = tmp_path / "missing" / "deeper" / case[3]
    assert main(command(case, run, output)) == 0
    assert output.exists()


@pytest.mark.parametrize("case", WRITTEN, ids=lambda case: f"{case[0]} {case[2]}")
def test_a_file_where_a_folder_must_be_is_named(
    case: tuple[str, Sequence[str], str, str, str], run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as ended:
        main(command(case, run, tmp_path / "file" / case[3]))
    assert ended.value.code in (1, 2)
    says = capsys.readouterr().err.splitlines()[-1]
    assert re.search(rf"{tmp_path}/file(: is no folder| is no folder|/\w+: Not a directory)$", says)


@pytest.mark.parametrize("case", [case for case in WRITTEN if case[2] == "--record"], ids=lambda case: case[0])
def test_a_place_that_cannot_be_written_is_refused_before_the_episodes(
    case: tuple[str, Sequence[str], str, str, str],
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "folder" / case[3]
    folder.mkdir(parents=True)
    (tmp_path / "link.gif").symlink_to(tmp_path)
    (tmp_path / "mine").mkdir()
    for place, why in ((folder, f"{folder}: not a file, but a folder"), (tmp_path / "link.gif", "is a link")):
        with pytest.raises(SystemExit, match="2"):
            main(command(case, run, place))
        out, err = capsys.readouterr()
        assert (out, f"--record {place}: cannot be written: " in err, why in err) == ("", True, True)
    # Root may write everywhere.
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path / "mine")
    with pytest.raises(SystemExit, match="2"):
        main(command(case, run, tmp_path / "mine" / case[3]))
    assert f"{tmp_path}/mine: this user may not write in it" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_no_command_is_forgotten() -> None:
    known = {(command, flag.lstrip("-").replace("-", "_")) for command, _, flag, _, _ in WRITTEN} | ELSEWHERE
    _, commands = make_parsers()
    paths = {
        (name, action.dest) for name, parser in commands.items() for action in parser._actions if action.type is Path
    }
    assert {each for each in paths if each[1] not in READ} <= known
