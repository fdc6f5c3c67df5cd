"""Runs as processes on this machine, one each."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

from esper.storage import files
from esper.sweep.job import Outcome, do
from esper.sweep.plan import Job


class _Child(NamedTuple):
    job: Job
    process: BaseProcess
    connection: Connection


class LocalLauncher:
    """Starts a process for every run. Its output goes to a `.log` file beside its folder."""

    def __init__(self, workers: int) -> None:
        self.slots = workers
        # Forked from a process that has only imported torch: fast, and no state is shared.
        self._context: Any = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([__name__])
        self._children: list[_Child] = []

    def start(self, job: Job) -> None:
        mine, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_child, args=(job, theirs), name=job.name)
        process.start()
        theirs.close()
        self._children.append(_Child(job, process, mine))

    def ended(self, seconds: float) -> list[tuple[Job, Outcome]]:
        gone = wait([child.process.sentinel for child in self._children], timeout=seconds)
        found = [child for child in self._children if child.process.sentinel in gone]
        self._children = [child for child in self._children if child not in found]
        return [(child.job, _outcome(child)) for child in found]

    def stop(self) -> None:
        for child in self._children:
            child.process.terminate()

    def cancel(self, job: Job) -> None:
        for child in self._children:
            if child.job is job:
                child.process.terminate()

    def close(self) -> None:
        for child in self._children:
            child.process.kill()
            child.process.join()


def log_of(job: Job) -> Path:
    """The log of `job`, if it is not empty."""
    return job.run_dir.with_name(f"{job.run_dir.name}.log")


def _outcome(child: _Child) -> Outcome:
    child.process.join()
    try:
        outcome: Outcome = child.connection.recv()
    except EOFError:
        code = child.process.exitcode or 0
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"
        outcome = Outcome(status="failed", cause=f"its process was {how}; {log_of(child.job)}")
    child.connection.close()
    return outcome


def _child(job: Job, connection: Connection) -> None:
    # The sweep handles Ctrl-C, and then requests its runs to stop.
    os.setpgrp()
    log = log_of(job)
    try:
        descriptor = files.open_in_place(log, create=True)
    except OSError as error:
        connection.send(Outcome(status="refused", cause=files.why(error)))
        return
    os.lseek(descriptor, 0, os.SEEK_END)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    threading.Thread(target=_stop_when_the_sweep_is_gone, daemon=True).start()
    try:
        outcome = do(job)
    except Exception as error:
        traceback.print_exc()
        outcome = Outcome(status="failed", cause=f"{type(error).__name__}: {error}; {log}")
    connection.send(outcome)
    sys.stdout.flush()
    if not os.fstat(1).st_size:
        files.remove(log)


def _stop_when_the_sweep_is_gone() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
