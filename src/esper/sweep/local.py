"""Runs as processes on this machine, one each."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

from esper.storage import files
from esper.sweep.job import Outcome, do, refusal
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
        self._checking: BaseProcess | None = None
        self._stopping = False

    def check(self, jobs: Sequence[Job]) -> str | None:
        self._checking, connection = self._process(_check, list(jobs), name="check")
        try:
            refused: str | None = connection.recv()
        except EOFError:
            refused = f"the process that made the environments {_how_it_ended(self._checking)}"
        connection.close()
        self._checking.join()
        return refused

    def start(self, job: Job) -> None:
        self._children.append(_Child(job, *self._process(_run, job, name=job.name)))

    def ended(self, seconds: float) -> list[tuple[Job, Outcome]]:
        # The pipe is closed when the process ends. Its sentinel tells that of the process that forked it, too.
        gone = wait([child.connection for child in self._children], timeout=seconds)
        found = [child for child in self._children if child.connection in gone]
        self._children = [child for child in self._children if child not in found]
        return [(child.job, self._outcome(child)) for child in found]

    def stop(self) -> None:
        self._stopping = True
        for child in self._children:
            child.process.terminate()

    def cancel(self, job: Job) -> None:
        for child in self._children:
            if child.job is job:
                child.process.terminate()

    def close(self) -> None:
        checking = [] if self._checking is None else [self._checking]
        for process in [*checking, *(child.process for child in self._children)]:
            process.kill()
            process.join()

    def _process(self, target: Callable[..., None], *arguments: Any, name: str) -> tuple[BaseProcess, Connection]:
        """A process that calls `target` with `arguments` and a connection, whose other end is returned."""
        with _ctrl_c_blocked():
            try:
                return self._begin(target, *arguments, name=name)
            except (OSError, EOFError):
                # The process that forks was killed; the next one starts another.
                return self._begin(target, *arguments, name=name)

    def _begin(self, target: Callable[..., None], *arguments: Any, name: str) -> tuple[BaseProcess, Connection]:
        mine, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(target=target, args=(*arguments, theirs), name=name)
        try:
            process.start()
        finally:
            theirs.close()
        return process, mine

    def _outcome(self, child: _Child) -> Outcome:
        try:
            outcome: Outcome = child.connection.recv()
            child.process.join()
        except EOFError:
            child.process.join()
            cause = f"its process {_how_it_ended(child.process)}; {log_of(child.job)}"
            # A run that has not begun yet does not handle the signal.
            stopped = self._stopping and child.process.exitcode == -signal.SIGTERM
            outcome = Outcome(status="interrupted") if stopped else Outcome(status="failed", cause=cause)
        child.connection.close()
        return outcome


def log_of(job: Job) -> Path:
    """The log of `job`, if it is not empty."""
    return job.run_dir.with_name(f"{job.run_dir.name}.log")


def _how_it_ended(process: BaseProcess) -> str:
    process.join()
    code = process.exitcode or 0
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"


@contextlib.contextmanager
def _ctrl_c_blocked() -> Iterator[None]:
    """Ctrl-C waits in this process, and in those that are started: a terminal sends it to all of them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _leave_the_terminal() -> None:
    """The sweep handles Ctrl-C, and then requests its runs to stop."""
    os.setpgrp()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_stop_when_the_sweep_is_gone, daemon=True).start()


def _check(jobs: Sequence[Job], connection: Connection) -> None:
    _leave_the_terminal()
    _write_to(os.open(os.devnull, os.O_WRONLY))
    connection.send(refusal(jobs))


def _run(job: Job, connection: Connection) -> None:
    _leave_the_terminal()
    log = log_of(job)
    try:
        descriptor = files.open_in_place(log, create=True)
    except OSError as error:
        connection.send(Outcome(status="refused", cause=files.why(error)))
        return
    os.lseek(descriptor, 0, os.SEEK_END)
    _write_to(descriptor)
    try:
        outcome = do(job)
    except Exception as error:
        traceback.print_exc()
        outcome = Outcome(status="failed", cause=f"{type(error).__name__}: {error}; {log}")
    connection.send(outcome)
    sys.stdout.flush()
    if not os.fstat(1).st_size:
        files.remove(log)


def _write_to(descriptor: int) -> None:
    """Standard output and error go to `descriptor`."""
    for stream in (1, 2):
        os.dup2(descriptor, stream)


def _stop_when_the_sweep_is_gone() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
