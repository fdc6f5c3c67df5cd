"""Runs in processes of their own: started as a user starts them, or forked from one that has imported everything."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Protocol, TypeAlias

DEADLINE = 300.0  # seconds to wait for a process; only one that hangs needs as many, however busy the machine is


class Started(Protocol):
    """A run in a process of its own; `start_up` seconds is about how long it takes to begin."""

    pid: int
    start_up: float

    def poll(self) -> int | None:
        """The exit status; None while it runs."""
        ...

    def wait(self) -> int:
        """The exit status, when it has ended."""
        ...

    def wait_for_success(self) -> None:
        """Wait for status 0."""
        ...


# Starts `esper ppo` with these flags.
Launch: TypeAlias = Callable[[tuple[str, ...]], Started]


class _NewProcess(subprocess.Popen[str]):
    start_up = 3.5

    def __init__(self, flags: tuple[str, ...]) -> None:
        command = [sys.executable, "-m", "esper.scripts.train", "ppo", *flags]
        path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        # To a file, as a pipe that nobody reads would fill up.
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        env = os.environ | {"PYTHONPATH": path.rstrip(os.pathsep)}
        super().__init__(command, stdout=subprocess.DEVNULL, stderr=self._errors, env=env)

    def wait_for_success(self) -> None:
        self.wait(timeout=DEADLINE)
        self._errors.seek(0)
        assert self.returncode == 0, f"{self.args!r}: {self.returncode}: {self._errors.read()}"


def in_a_new_process(flags: tuple[str, ...]) -> Started:
    """As a user does."""
    return _NewProcess(flags)


def forkserver() -> ForkServerContext:
    """Processes from one that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    # Also what torch.func imports at its first use.
    context.set_forkserver_preload(["esper.runs.run", "esper.scripts.train", "torch._dynamo", "mixed_env"])
    return context


class _Forked:
    """A copy of a process that has imported everything: a few seconds less for each start."""

    start_up = 0.2

    def __init__(self, flags: tuple[str, ...]) -> None:
        self._flags = flags
        self._process = forkserver().Process(target=_run_esper, args=(flags,))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> int:
        self._process.join(DEADLINE)
        assert self._process.exitcode is not None, "hangs"
        return self._process.exitcode

    def wait_for_success(self) -> None:
        status = self.wait()
        assert status == 0, f"{' '.join(self._flags)}: {status}"


def forked(flags: tuple[str, ...]) -> Started:
    """From a process that has imported everything."""
    return _Forked(flags)


def _run_esper(flags: tuple[str, ...]) -> None:
    from esper.scripts.train import main as esper

    sys.exit(esper(["ppo", *flags]))
