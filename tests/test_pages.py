"""Report, compare, watch and searches in a browser: their scripts run without an error, and curves are there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pytest

from esper.scripts.train import main

pytest.importorskip("plotly")

from esper.watch.followed import FollowedRuns
from esper.watch.server import WatchServer

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")

RUNNING, FINISHED = 10, 100


class Opened(NamedTuple):
    """The page after its scripts, and what they wrote to the console: nothing, if nothing is wrong."""

    dom: str
    console: list[str]

    @property
    def charts(self) -> int:
        return self.dom.count('class="plot-container')

    @property
    def lines(self) -> int:
        return self.dom.count('class="js-line"') - self.dom.count('class="legendlines"><path class="js-line"')


def opened(url: str, folder: Path, *, dark: bool = False) -> Opened:
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--virtual-time-budget=6000"]
    flags += ["--blink-settings=preferredColorScheme=0"] * dark
    command = [str(CHROMIUM), *flags, "--window-size=400,900", f"--user-data-dir={folder}", "--dump-dom", url]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return Opened(ended.stdout, [line for line in ended.stderr.splitlines() if "CONSOLE" in line])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("trained") / "<b>run</b> & %{y}"
    small = ["--preset", "none", "--compile", "off", "--num-envs", "2", "--num-steps", "16", "--total-timesteps", "320"]
    flags = ["--lr-decay", "cosine", "--eval-every", "5", "--quiet", "--no-tensorboard", "--no-picture"]
    assert main(["ppo", "--env", "CartPole-v1", *small, *flags, "--run-dir", str(run)]) == 0
    return run


def copied(run: Path, to: Path, *, seed: int = 1, running: bool = False) -> Path:
    """The record of `run` as that of another seed, or as that of a run whose last event was just now."""
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    events[0] |= {"seed": seed, "config": events[0]["config"] | {"seed": seed}}
    if running:
        late = time.time() - events[-2]["time"]
        events = [{**event, "time": event["time"] + late} for event in events[:-1]]
    to.mkdir(parents=True)
    (to / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return to


@pytest.fixture
def server(trained: Path, tmp_path: Path) -> Iterator[WatchServer]:
    for number in range(FINISHED):
        copied(trained, tmp_path / "runs" / f"arm-{number % 5}" / f"seed-{number}")
    for number in range(RUNNING):
        copied(trained, tmp_path / "runs" / "now" / f"<i>{number}</i>", running=True)
    runs = FollowedRuns([tmp_path / "runs"])
    runs.look()
    with WatchServer("127.0.0.1", 0, runs) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_errors_of_a_page_are_seen(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<script>throw new Error('wrong')</script>")
    assert "wrong" in opened((tmp_path / "page.html").as_uri(), tmp_path / "profile").console[0]


def test_report(trained: Path, tmp_path: Path) -> None:
    assert main(["report", str(trained), "--output", str(tmp_path)]) == 0
    page = opened((tmp_path / "report.html").as_uri(), tmp_path / "profile")
    assert page.console == []
    # Four groups of three; the rates and the norms of policy and value are two lines each.
    assert page.charts == 12
    assert page.lines >= 14


def test_compare(trained: Path, tmp_path: Path) -> None:
    for arm in ("<b>a</b>", "b & c"):
        for seed in (1, 2):
            copied(trained, tmp_path / arm / str(seed), seed=seed)
    page = tmp_path / "page.html"
    assert main(["compare", str(tmp_path / "<b>a</b>"), str(tmp_path / "b & c"), "--html", str(page)]) == 0
    found = opened(page.as_uri(), tmp_path / "profile")
    assert found.console == []
    # The return, two rates and four of stability, each with a line for each arm; eleven measures.
    assert found.charts == 7 + 11
    assert found.lines >= 2 * found.charts
    assert len(re.findall(r'<input type="checkbox" value="[^"]+" checked', found.dom)) == 2


def test_watch_all(server: WatchServer, tmp_path: Path) -> None:
    page = opened(server.url, tmp_path / "profile")
    assert page.console == []
    assert page.dom.count('class="sparkline"') == RUNNING + FINISHED
    assert f"{RUNNING + FINISHED} of {RUNNING + FINISHED} runs" in page.dom
    assert f"{RUNNING} running" in page.dom


def test_watch_one(server: WatchServer, tmp_path: Path) -> None:
    page = opened(f"{server.url}#{quote(str(tmp_path / 'runs' / 'now' / '<i>3</i>'), safe='')}", tmp_path / "profile")
    assert page.console == []
    assert page.charts == 8
    # Return and evaluation, the rates of policy and value, and six metrics.
    assert page.lines == 2 + 2 + 6


def test_watch_once(trained: Path, tmp_path: Path) -> None:
    copied(trained, tmp_path / "runs" / "one")
    assert main(["watch", str(tmp_path / "runs"), "--once", str(tmp_path / "page.html")]) == 0
    name = quote(str(tmp_path / "runs" / "one"), safe="")
    page = opened(f"{(tmp_path / 'page.html').as_uri()}#{name}", tmp_path / "profile")
    assert page.console == []
    assert page.charts == 8


@pytest.mark.parametrize("dark", [False, True])
def test_tune(tmp_path: Path, dark: bool) -> None:
    optuna = pytest.importorskip("optuna")
    from esper.runs.layers import Layer
    from esper.tune.page import write_page
    from esper.tune.plan import make_tuning
    from esper.tune.search import open_study

    space = {"lr": {"low": 1e-4, "high": 1e-2, "log": True}, "lr_decay": ["linear", "cosine"]}
    given = Layer(source="flag", values={"env": "torch/CartPole-v1", "total_timesteps": 20_480})
    tuning = make_tuning({"space": space}, tmp_path, Layer(source="tune", values={}), given, "x.toml")
    study = open_study(tuning)
    for number in range(6):
        trial = study.ask()
        lr = trial.suggest_float("lr", 1e-4, 1e-2, log=True)
        trial.suggest_categorical("lr_decay", ["linear", "cosine"])
        trial.report(lr, 0)
        study.tell(trial, lr if number else None, state=None if number else optuna.trial.TrialState.PRUNED)
    write_page(tuning, study, {"best": {7: 30.0, 8: 50.0}, "start": {7: 10.0, 8: 20.0}})
    page = opened((tmp_path / "tune.html").as_uri(), tmp_path / "profile", dark=dark)
    assert page.console == []
    # History, evaluations, importance, parallel coordinates, and the score by each of two settings.
    assert page.charts == 4 + 2
    # Texts have the page's colour, --text.
    assert ("fill: rgb(221, 221, 221)" in page.dom, "fill: rgb(34, 34, 34)" in page.dom) == (dark, not dark)
