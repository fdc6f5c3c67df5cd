"""The processes of a vector environment: which one dies or hangs, and their end."""

from __future__ import annotations

import contextlib
import logging
import signal
import time
from collections.abc import Collection, Iterable
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from gymnasium.vector import AsyncVectorEnv

from esper.system.stopping import Overdue

_log = logging.getLogger(__name__)

_SECONDS_TO_CLOSE = 5.0


def first_failure(env: AsyncVectorEnv, successes: Iterable[bool]) -> tuple[int, BaseException] | None:
    """The error of the failed process with the lowest index, and that index; None if all succeeded."""
    failures = [env.error_queue.get() for success in successes if not success]
    if not failures:
        return None
    index, kind, error, _ = min(failures, key=lambda failure: failure[0])
    return index, error if isinstance(error, BaseException) else kind(error)


def what_is_wrong(env: Any, error: BaseException) -> str:
    """Which process of `env` died, and how, or did not answer; `error` is what that raised here."""
    groups = _groups_of(env)
    if isinstance(error, EOFError | OSError):
        wait_for_deaths(env.processes)
    deaths = [
        f"the process of {in_words(group)} {_how_it_ended(process.exitcode)}"
        for group, process in zip(groups, env.processes, strict=True)
        if process.exitcode is not None
    ]
    if deaths or not isinstance(error, Overdue):
        return "; ".join(deaths)
    silent = [group for group, pipe in zip(groups, env.parent_pipes, strict=True) if not _has_answered(pipe)]
    indices = [str(index) for group in silent for index in group]
    if any(len(group) > 1 for group in silent):
        return f"one of the environments {', '.join(indices)} has not answered"
    return f"environment {', '.join(indices)} has not answered"


def _groups_of(env: Any) -> list[range]:
    """The environments of each process."""
    return getattr(env, "groups", None) or [range(index, index + 1) for index in range(env.num_envs)]


def in_words(group: range) -> str:
    """The environments of a process."""
    return f"environment {group[0]}" if len(group) == 1 else f"environments {group[0]} to {group[-1]}"


def wait_for_deaths(processes: Collection[BaseProcess]) -> None:
    """A process ends a moment after its pipe and its sentinel."""
    ended = wait([process.sentinel for process in processes], timeout=2.0)
    for process in processes:
        if process.sentinel in ended:
            process.join(1.0)


def _how_it_ended(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"


def _has_answered(pipe: Connection | None) -> bool:
    return pipe is None or pipe.closed or pipe.poll()


def close(env: Any) -> None:
    """Close a vector environment, and its processes if it has any."""
    if isinstance(env, AsyncVectorEnv):
        close_processes(env)
    else:
        env.close()


def close_processes(env: Any) -> None:
    """Give every process a few seconds to close its environment, then kill those that remain.

    `AsyncVectorEnv.close` raises if a process has died, and waits forever for one that hangs.
    """
    env.closed = True
    pipes: list[Any] = [pipe for pipe in env.parent_pipes if pipe is not None and not pipe.closed]
    alive = {process.sentinel: process for process in env.processes}
    try:
        for pipe in pipes:
            with contextlib.suppress(OSError):
                pipe.send(("close", None))
        deadline = time.monotonic() + _SECONDS_TO_CLOSE
        while alive and (left := deadline - time.monotonic()) > 0:
            for ready in wait([*alive, *pipes], left):
                if isinstance(ready, int):
                    del alive[ready]
                elif not _drained(ready):
                    pipes.remove(ready)
    finally:
        for group, process in zip(_groups_of(env), env.processes, strict=True):
            if process.sentinel not in alive:
                # It ends a moment after its sentinel.
                process.join(1.0)
            if process.is_alive():
                which = in_words(group)
                _log.warning("%s did not close within %g s; the process is killed", which, _SECONDS_TO_CLOSE)
                process.kill()
            process.join()


def _drained(pipe: Any) -> bool:
    """Discard one answer from `pipe`; returns whether more may come."""
    try:
        pipe.recv_bytes()
    except (EOFError, OSError):
        return False
    return True
