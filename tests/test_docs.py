"""What the pages tell the reader to do works, and the site's navigation has every page."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import signal
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from esper import __version__
from esper.scripts.train import main, make_parsers

ROOT = Path(__file__).parent.parent

# What makes a command of a page short enough for a test: flags behind its own, by how it begins.
SHORTER = {
    "esper ppo --resume runs/second": "--total-timesteps 60000 --no-picture",
    "esper ppo --resume runs/second --total-timesteps": "--total-timesteps 90000 --no-picture",
    "esper sweep": "--total-timesteps 5000 --seeds 2",
    "esper enjoy": "--fps 1000",
}


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of what a reader would run, in order."""
    return re.findall(r"```(sh|python)\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)


def follow(page: str) -> dict[str, Any]:
    """Do in this folder what `page` says; returns the names that its Python programs leave."""
    names: dict[str, Any] = {}
    for language, text in blocks(page):
        if language == "sh":
            for line in text.replace("\\\n", " ").splitlines():
                esper(line)
        elif written := re.match(r"# (\w+\.py)\n", text):
            Path(written[1]).write_text(text)
        else:
            exec(text, names)
    return names


def esper(line: str) -> None:
    command, _, comment = line.removeprefix("PYTHONPATH=. ").partition("  # ")
    beginnings = [beginning for beginning in SHORTER if command.startswith(beginning)]
    program, *arguments = shlex.split(f"{command} {SHORTER[max(beginnings, key=len)] if beginnings else ''}")
    assert program == "esper", line
    expected = 0
    if comment == "Ctrl-C":
        expected = 130
        record = Path(arguments[arguments.index("--run-dir") + 1], "events.jsonl")
        threading.Thread(target=interrupt, args=(record,), daemon=True).start()
    assert main(arguments) == expected, line


def interrupt(record: Path) -> None:
    """Press Ctrl-C after the first update."""
    while not record.exists() or "update_completed" not in record.read_text():
        time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGINT)


def events(run: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(run, "events.jsonl").read_text().splitlines()]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("SDL_VIDEODRIVER", "SDL_AUDIODRIVER"):
        monkeypatch.setenv(name, "dummy")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_the_tutorial(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = follow("tutorial.md")
    out = capsys.readouterr().out
    (score,) = re.findall(r"torch/CartPole-v1: return (\S+) .* over 8 episodes", out)
    # Chance has about 20; most runs get 500, but not for every rounding of every machine.
    assert float(score) > 100
    assert names["steps"] > 100
    assert names["result"].status == "completed"
    assert sum(names["scores"].returns) / 8 > 100
    _, extended = (event for event in events("runs/second") if event["event"] == "run_resumed")
    assert extended["changed"]["policy_lr"] == [3e-3, 1e-3]
    assert events("runs/second")[-1]["status"] == "completed"
    assert len(list(folder.glob("runs/sweep/torch-CartPole-v1/*/seed-*/events.jsonl"))) == 4
    for made in ("first/training.png", "sweep/torch-CartPole-v1.html", "policy.pt2"):
        assert (folder / "runs" / made).stat().st_size > 1000


def test_an_environment_of_ones_own(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    follow("custom-environments.md")
    out = capsys.readouterr().out
    (score,) = re.findall(r"corridor:Corridor-v0: return (\S+) ", out)
    assert float(score) == -9
    (resumed,) = [event for event in events("runs/corridor") if event["event"] == "run_resumed"]
    assert resumed["exact_resume"]


def test_the_programs_of_schedules(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = follow("schedules.md")
    # Half of the cosine, and it never leaves its bounds.
    assert names["scale"](names["fall"], 0.5)(0) == 5e-4
    assert names["curve"](399) == 1e-5
    assert names["config"].value_lr.decay.call(399) == 2e-5
    page = (ROOT / "docs" / "schedules.md").read_text()
    command, *others = re.findall(r"^(?:PYTHONPATH=. )?(esper schedule .*rates:.*)$", page, re.MULTILINE)
    assert not others
    esper(command)
    assert "policy  rates:sawtooth, base 0.001: custom from update 0 at 0.001" in capsys.readouterr().out


def test_policies_in_python(folder: Path) -> None:
    short = ["--num-envs", "4", "--num-steps", "32", "--total-timesteps", "256", "--no-picture", "--quiet"]
    recurrent = ["--env", "CartPoleNoVel-v1", "--rnn", "gru", "--rnn-size", "8"]
    assert main(["ppo", "--env", "CartPole-v1", *short, "--run-dir", "runs/first"]) == 0
    assert main(["ppo", *recurrent, *short, "--run-dir", "runs/recurrent"]) == 0
    names: dict[str, Any] = {}
    page = (ROOT / "docs" / "policies.md").read_text().partition("## In Python")[2]
    for program in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(program, names)
    assert names["episode_return"] >= 8
    assert names["actions"].shape == (4,)
    assert names["state"].shape == (4, 2 * 8)
    assert len(names["scores"].returns) == 10


def test_the_programs_of_training_from_python(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = follow("python.md")
    run, longer = names["run"], names["longer"]
    assert run.cause in (None, "good enough")
    # The square of 1, 2, 3, ...
    assert run.updates["user/updates_squared"][:3].tolist() == [1, 4, 9]
    # 60,000 and 62,000 steps in updates of 1,024, rounded up.
    assert longer.result.train.updates == 59
    assert names["same"].result.train.updates == 61
    # 10,000 steps.
    assert names["training"].updates == names["agent"].train_steps == 10


def test_the_notebook(folder: Path) -> None:
    pytest.importorskip("pandas")
    cells = json.loads((ROOT / "docs" / "notebook.ipynb").read_text())["cells"]
    programs = [cell for cell in cells if cell["cell_type"] == "code"]
    names: dict[str, Any] = {}
    for cell in programs:
        exec("".join(line for line in cell["source"] if not line.startswith("%")), names)
    # 100,000 and 200,000 steps in updates of 1,024, rounded up.
    assert len(names["updates"]) == 98
    assert len(names["longer"].updates["update"]) == 196
    assert Path("cartpole.gif").stat().st_size > 1000
    # What it shows is what it does.
    outputs = [cell["outputs"] for cell in programs]
    assert all(outputs)
    assert outputs[0][0]["text"] == "completed after 98 updates\n"


def test_the_navigation_has_every_page() -> None:
    listed = re.findall(r"^ +- .+: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert len(listed) == len(set(listed))
    # README.md is the index.
    of_root = {"index.md", "CONTRIBUTING.md", "CHANGELOG.md"}
    assert set(listed) == {*of_root, *(path.name for path in (ROOT / "docs").glob("*.md"))}


def test_the_site_searches_without_a_network() -> None:
    """The plugin takes a script of its own name from another host where none is given."""
    site = (ROOT / "mkdocs.yml").read_text()
    assert re.search(r"^  - search\n  - offline$", site, re.MULTILINE)
    (given,) = re.findall(r"^  polyfills: \[(.*)\]$", site, re.MULTILINE)
    assert "iframe-worker" in given
    assert "IFrameWorker" in (ROOT / "docs" / given).read_text()


@pytest.mark.parametrize("page", ["README.md", "docs/train.md"])
def test_the_flags_of_a_page_exist(page: str) -> None:
    _, commands = make_parsers(help_all=True)
    known = {name for parser in commands.values() for action in parser._actions for name in action.option_strings}
    ours = re.sub(r"^pip .*$", "", (ROOT / page).read_text(), flags=re.MULTILINE)
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", ours))
    assert len(named) > 4
    assert named <= known


def test_make_check_names_tests_that_exist() -> None:
    (listed,) = re.findall(r"^QUICK := (.*?[^\\])\n", (ROOT / "Makefile").read_text(), re.MULTILINE | re.DOTALL)
    paths = listed.replace("\\\n", " ").split()
    assert len(paths) > 5
    assert all((ROOT / path).exists() for path in paths)


def test_the_changelog_names_the_version() -> None:
    assert __version__ in (ROOT / "CHANGELOG.md").read_text()


@pytest.fixture
def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tables", ROOT / "docs" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_made_from_the_sources_is_up_to_date(tables: ModuleType) -> None:
    made = tables.made()
    for path, text in made.items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is out of date: run python docs/tables.py"
    in_pages = {part.split()[0] for text in made.values() for _, part, _, _ in tables.PART.findall(text)}
    assert in_pages == set(tables.PARTS)


def test_defaults_of_flags_are_filled_in_and_keep_their_spelling(tables: ModuleType) -> None:
    page = "<!-- docs/tables.py: defaults -->\n| `n` (1) | `--num-envs` (9), `--lr` (3e-4) | `--lr` (2) |\n<!-- end -->"
    assert tables.filled(page) == page.replace("(9)", "(8)")
