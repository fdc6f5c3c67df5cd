"""The threads that help in the kernels: they stay, and belong to the thread that calls."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from test_native import after_an_update, make_agent
from torch import Tensor

from esper.simic import RuntimeConfig

TASKS = Path("/proc/self/task")

pytestmark = pytest.mark.skipif(not TASKS.exists(), reason="reads Linux' list of threads")


def updated(threads: int) -> list[Tensor]:
    runtime = RuntimeConfig(compile="native", threads=threads)
    # 1,024 rows in a minibatch: work for eight.
    metrics, state = after_an_update(make_agent("native", num_steps=128, num_minibatches=1, runtime=runtime))
    return [metrics, *state]


def equal(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return all(a.equal(b) for a, b in zip(ours, theirs, strict=True))


def tasks() -> set[int]:
    return set(map(int, os.listdir(TASKS)))


def test_helpers_stay_and_leave_signals_to_the_caller() -> None:
    with ThreadPoolExecutor(1) as caller:
        caller.submit(updated, 1).result()
        before = tasks()
        caller.submit(updated, 3).result()
        helpers = tasks() - before
        caller.submit(updated, 3).result()
        assert (len(helpers), tasks() - before) == (2, helpers)
        for helper in helpers:
            status = dict(line.split(":\t", 1) for line in (TASKS / str(helper) / "status").read_text().splitlines())
            assert int(status["SigBlk"], 16) & 1 << (signal.SIGINT - 1)
    deadline = time.monotonic() + 60  # Python calls a thread ended a little before it is
    while tasks() & helpers:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_threads_that_call_at_once_have_helpers_of_their_own() -> None:
    expected = updated(1)
    with ThreadPoolExecutor(3) as callers:
        found = list(callers.map(updated, [3] * 12))
    assert all(equal(each, expected) for each in found)


def forked() -> None:
    """Run by the test below: an update, and then the same in a process that was forked with its helpers asleep."""
    torch.set_num_threads(1)  # those of torch do not survive a fork
    expected = updated(3)
    # It ends as a program does, and not as children of multiprocessing do, which call no destructors.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # from Python 3.12 on: there are other threads
        child = os.fork()
    if not child:
        sys.exit(0 if equal(updated(3), expected) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert equal(updated(3), expected)


def test_a_forked_process_has_helpers_of_its_own() -> None:
    # A process of its own: what pytest has open is not to be ended twice.
    program = f"import sys; sys.path[:0] = {sys.path!r}; import test_team; test_team.forked()"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, cwd=Path(__file__).parent)
