"""A run of the command line with an environment that misbehaves: how it ends, and what it leaves behind."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import misbehaving
import psutil
from misbehaving import Case

from esper.analysis.runs import read_events
from esper.scripts.train import main

SECONDS = 60.0  # after which a run hangs, however busy the machine is
FLAGS = (
    *("--preset", "none", "--compile", "off", "--num-envs", "2", "--num-steps", "8", "--hidden-sizes", "4"),
    *("--update-epochs", "1", "--num-minibatches", "1", "--no-picture", "--threads", "1", "--quiet"),
    *("--total-timesteps", "64", "--max-skipped-updates", "3"),
)


@dataclass(frozen=True)
class Ended:
    """How a run ended: its exit status, the last event of its record if there is one, and what it left behind."""

    status: int
    last: dict[str, Any] | None
    left_behind: list[str]
    hung: bool


class _Hung(BaseException):
    pass


def try_(case: Case, run_dir: Path) -> Ended:
    """Run the command line with the environments of `case`, and what uses `case.call` after that."""
    plan = {name: value for name, value in dataclasses.asdict(case).items() if name != "mode"}
    arguments = ("--env", "Misbehaves-v0", "--vector", case.mode)
    together: Any = misbehaving.make_together if case.mode == "native" else None
    gymnasium.register("Misbehaves-v0", entry_point=misbehaving.make, vector_entry_point=together, kwargs=plan)
    commands: list[tuple[str, ...]] = [("ppo", *arguments, *FLAGS, "--run-dir", str(run_dir))]
    if case.call == "load_state_dict":
        commands.append(("ppo", "--resume", str(run_dir), "--total-timesteps", "96", "--quiet", "--trust"))
    if case.call == "render":
        drawn = ("--episodes", "1", "--record", str(run_dir / "a.gif"), "--max-episode-steps", "50")
        commands.append(("evaluate", str(run_dir), "--trust", *drawn))
    before = _surroundings()
    try:
        with _as_from_a_shell(), _limit() as hung:
            for command in commands:
                status = _status(command)
                if status:
                    break
    finally:
        del gymnasium.registry["Misbehaves-v0"]
    events = list(read_events(run_dir)) if run_dir.exists() else []
    return Ended(status, events[-1] if events else None, _left_behind(before), bool(hung))


def _status(command: tuple[str, ...]) -> int:
    misbehaving.made = itertools.count()
    try:
        return main(command)
    except SystemExit as error:
        return int(error.code or 0)


@contextlib.contextmanager
def _as_from_a_shell() -> Iterator[None]:
    """Warnings and logs go to standard error, and Python's own filters hold."""
    handlers, logging.root.handlers = logging.root.handlers, []
    with warnings.catch_warnings():
        warnings.resetwarnings()
        for hidden in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", hidden)
        warnings.showwarning = lambda message, kind, *place: print(f"{kind.__name__}: {message}", file=sys.stderr)
        try:
            yield
        finally:
            logging.root.handlers = handlers


@contextlib.contextmanager
def _limit() -> Iterator[list[bool]]:
    hung: list[bool] = []

    def give_up(*arguments: Any) -> None:
        hung.append(True)
        raise _Hung

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, SECONDS, 1.0)
    try:
        yield hung
    except _Hung:
        raise AssertionError("it hangs") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _surroundings() -> dict[str, Any]:
    return {
        "processes": {process.pid for process in psutil.Process().children(recursive=True)},
        "threads": {thread for thread in threading.enumerate() if thread.name != "stopping"},
        "handlers": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)],
        "os._exit": os._exit,
    }


def _left_behind(before: dict[str, Any]) -> list[str]:
    deadline = time.monotonic() + 5.0
    while (after := _surroundings()) != before and time.monotonic() < deadline:
        time.sleep(0.01)
    return [name for name in before if after[name] != before[name]]
