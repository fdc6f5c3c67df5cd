"""The worker processes of an `AsyncVectorEnv`: start, errors of one that dies or hangs, end."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterable
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeGuard

from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from gymnasium.vector.async_vector_env import _async_worker

from esper.envs.base import EnvError
from esper.envs.subenvs import SubEnv, check_same_spaces, in_constructor
from esper.settings.options import ConfigError
from esper.system.errors import is_ctrl_c
from esper.system.seeding import integer_seed, seeded_globals, set_global_state
from esper.system.stopping import Overdue

_log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
_SECONDS_TO_CLOSE = 5.0


def is_of_subenvs(env: Any) -> TypeGuard[SyncVectorEnv | AsyncVectorEnv]:
    """Whether `env` steps `SubEnv`s one by one; False for a native vector environment."""
    if isinstance(env, SyncVectorEnv):
        return all(type(each) is SubEnv for each in env.envs)
    return isinstance(env, AsyncVectorEnv) and getattr(env.worker, "func", None) is worker


def worker(index: int, make: Callable[[], SubEnv], *rest: Any, seed: int | None) -> None:
    """Gymnasium's worker of an `AsyncVectorEnv`, adapted to runs. `seed` is for constructors.

    Ctrl-C reaches every process of a terminal, and other signals every process of a job. The run then finishes its
    update, so workers must outlive the signal; but they must end when the run is killed.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _die_with_parent()
    if seed is not None:
        set_global_state(seeded_globals(integer_seed(seed, f"process {index}")))
    pipe, _, _, errors = rest[:4]
    try:
        # The first command checks that its spaces are those of environment 0.
        _, (_, *spaces) = pipe.recv()
        env = make()
        env.generators.alone = True
        check_same_spaces(env, *spaces)
    except BaseException as error:
        errors.put((index, EnvError, in_constructor(index, error), ""))
        pipe.send((None, False))
        return
    # The pipe is broken: the parent is gone, and no error can be reported.
    with contextlib.suppress(OSError):
        pipe.send(((True, True), True))
        _async_worker(index, lambda: env, *rest)


def raise_one(env: AsyncVectorEnv, successes: Iterable[bool]) -> None:
    """In place of `AsyncVectorEnv._raise_if_errors`, which prints a traceback for every process."""
    if failure := first_failure(env, successes):
        raise failure[1]


def first_failure(env: AsyncVectorEnv, successes: Iterable[bool]) -> tuple[int, BaseException] | None:
    """The error of the failed process with the lowest index, and that index; None if all succeeded."""
    failures = [env.error_queue.get() for success in successes if not success]
    if not failures:
        return None
    index, kind, error, _ = min(failures, key=lambda failure: failure[0])
    return index, error if isinstance(error, BaseException) else kind(error)


def what_is_wrong(env: AsyncVectorEnv, error: BaseException) -> str:
    """Which process died, and how, or did not answer; `error` is what that raised here."""
    if isinstance(error, EOFError | OSError):
        _wait_for_deaths(env.processes)
    deaths = [
        f"the process of environment {index} {_how(process.exitcode)}"
        for index, process in enumerate(env.processes)
        if process.exitcode is not None
    ]
    if deaths:
        return "; ".join(deaths)
    silent = [str(index) for index, pipe in enumerate(env.parent_pipes) if not _has_answered(pipe)]
    return f"environment {', '.join(silent)} has not answered" if isinstance(error, Overdue) else ""


def _wait_for_deaths(processes: Collection[BaseProcess]) -> None:
    """A process ends a moment after its pipe and its sentinel."""
    ended = wait([process.sentinel for process in processes], timeout=2.0)
    for process in processes:
        if process.sentinel in ended:
            process.join(1.0)


def _how(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"


def _has_answered(pipe: Connection | None) -> bool:
    return pipe is None or pipe.closed or pipe.poll()


def not_made(error: BaseException, made: int, num_envs: int, others: set[BaseProcess]) -> EnvError | None:
    """What to raise in place of `error`, when `made` environments exist; None means `error` itself.

    Ends all processes except `others`: they and the parent would wait for each other.
    """
    processes = set(multiprocessing.active_children()) - others
    one_died = bool(processes) and isinstance(error, EOFError | ConnectionError)
    if one_died and len(processes) == num_envs:
        _wait_for_deaths(processes)
    alive = {int(process.name.rpartition("-")[2]) for process in processes if process.exitcode is None}
    for process in processes:
        process.kill()
        process.join()
    if one_died:
        died = ", ".join(str(index) for index in range(num_envs) if index not in alive)
        return EnvError(f"the process of environment {died} has died in its constructor")
    settings = isinstance(error, ConfigError) and error.name != "space"
    if 0 < made < num_envs and not (settings or is_ctrl_c(error)):
        # The settings are not at fault: other environments were made with them.
        return EnvError(in_constructor(made, error))
    return None


def close(env: Any) -> None:
    """Close a vector environment, and its processes if it has any."""
    if isinstance(env, AsyncVectorEnv):
        close_processes(env)
    else:
        env.close()


def close_processes(env: AsyncVectorEnv) -> None:
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
        for index, process in enumerate(env.processes):
            if process.sentinel not in alive:
                # It ends a moment after its sentinel.
                process.join(1.0)
            if process.is_alive():
                _log.warning(
                    "environment %d did not close within %g s; its process is killed", index, _SECONDS_TO_CLOSE
                )
                process.kill()
            process.join()


def _drained(pipe: Any) -> bool:
    """Discard one answer from `pipe`; returns whether more may come."""
    try:
        pipe.recv_bytes()
    except (EOFError, OSError):
        return False
    return True


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
