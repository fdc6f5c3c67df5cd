"""What is put around every copy of a Gymnasium environment: its number in errors, its state, its signals."""

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

import gymnasium
from gymnasium.spaces import Space
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from gymnasium.vector.async_vector_env import _async_worker

from esper.envs import limits, masks
from esper.envs.actions import actions_of, check_mask
from esper.envs.base import EnvError, StateTree
from esper.envs.generators import Generators
from esper.envs.rules import BrokenRule, as_frame
from esper.envs.snapshot import capture_all, restore_all
from esper.envs.success import success_of
from esper.settings.options import ConfigError
from esper.system.errors import describe_with_place, is_ctrl_c
from esper.system.seeding import integer_seed, seeded_globals, set_global_state
from esper.system.stopping import Overdue

_log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
_SECONDS_TO_CLOSE = 5.0


class Copy(gymnasium.Wrapper[Any, Any, Any, Any]):
    """One of several copies. `copy_index`, `pending_state` and `masked` are set from outside, by `VectorEnv.set_attr`.

    Observations, arrays, are the caller's to keep where an episode ends; others last until any copy is stepped again.
    Infos are empty: what nobody uses need not fit that of the other copies, nor travel between processes. Only where
    copies are `masked`, "action_mask" in every info, but for that of an episode's end, is what is allowed next, as
    booleans; and that of an end has what `success_of` gives.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self.copy_index = 0
        self.pending_state: StateTree = {}
        self.generators = Generators(env)
        # Where masks are found; None as long as nobody has asked, or of actions that have none.
        self.masked: tuple[str, ...] | None = None
        self._last: Any = None  # the observation that the environment returned last, itself

    def step(self, action: Any) -> Any:
        try:
            obs, reward, terminated, truncated, info = self.env.step(action)
            ended = terminated or truncated
            last, self._last = self._last, obs
            if ended or obs is last or obs.base is not None:
                # It is to be kept, or the environment may go on to write into it.
                obs = obs.copy()
            used = success_of(info) if ended else {}
            if self.masked or (self.masked is not None and "action_mask" in info):
                used = {**used, **self._mask_of(info, ended=ended)}
            return obs, reward, terminated, truncated, used
        except EnvError:
            raise
        except BaseException as error:
            raise self._failed("in a step", error) from error

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        try:
            if seed is not None:
                self.generators.seed(seed)
            obs, info = self.env.reset(seed=seed, options=options)
            self._last = obs
            return obs.copy(), self._mask_of(info, ended=False)
        except EnvError:
            raise
        except BaseException as error:
            raise self._failed("on reset", error) from error

    def find_masks(self) -> tuple[tuple[str, ...], list[str]]:
        """Where a reset comes with action masks, and what looks like one and is none.

        The first copy answers for all; the others are not reset.
        """
        if self.copy_index:
            return (), []
        try:
            self.generators.seed(0)
            info = self.env.reset(seed=0)[1]
            sources = masks.sources_of(self.env, info)
            return sources, masks.unused(self.env, info, sources)
        except BaseException as error:
            raise self._failed("on reset", error) from error

    @property
    def time_limit(self) -> int | None:
        return limits.time_limit(self.env)

    def _mask_of(self, info: dict[str, Any], *, ended: bool) -> dict[str, Any]:
        """What is used of `info` for actions."""
        if not self.masked:
            if self.masked is not None and info.get("action_mask") is not None:
                raise EnvError(f"environment {self.copy_index} gave an action mask; the first reset came without one")
            return {}
        if ended:
            # Nobody acts on it, and often nothing is allowed there.
            return {}
        mask = masks.published(self.env, info, self.masked)
        if mask is None:
            raise EnvError(f"environment {self.copy_index} gave no action mask; the first reset came with one")
        try:
            return {"action_mask": check_mask(mask, actions_of(self.action_space))}
        except ValueError as error:
            raise EnvError(f"the action mask of environment {self.copy_index} {error}") from None

    def capture_state(self) -> StateTree | None:
        try:
            return capture_all(self.env, self.generators)
        except BaseException as error:
            raise self._failed("in state_dict", error) from error

    def restore_pending_state(self) -> None:
        try:
            restore_all(self.env, self.generators, self.pending_state)
        except BaseException as error:
            why = str(self._failed("in load_state_dict", error)).partition(": ")[2]
            raise ValueError(
                f"environment {self.copy_index} does not go on from its state: {why}; --fresh-episodes begins new ones"
            ) from error

    def render(self) -> Any:
        try:
            return as_frame(self.env.render())
        except BaseException as error:
            raise self._failed("in render", error) from error

    def close(self) -> None:
        """Whatever it raises is said, and no more: the other copies are to be closed too."""
        try:
            self.env.close()
        except Overdue:
            raise
        except BaseException as error:
            _log.warning("%s", self._failed("on close", error))

    def _failed(self, call: str, error: BaseException) -> EnvError:
        """What to raise in place of `error`, whatever that is, but for Ctrl-C."""
        if is_ctrl_c(error):
            raise error
        if isinstance(error, BrokenRule):
            return EnvError(f"environment {self.copy_index} breaks Gymnasium's rules: {error}")
        return EnvError(f"environment {self.copy_index} raised {call}: {describe_with_place(error)}")


def is_of_copies(env: Any) -> TypeGuard[SyncVectorEnv | AsyncVectorEnv]:
    """Whether `env` is of ours: of `Copy`s that it steps one by one, and not as arrays by itself."""
    if isinstance(env, SyncVectorEnv):
        return all(type(copy) is Copy for copy in env.envs)
    return isinstance(env, AsyncVectorEnv) and getattr(env.worker, "func", None) is worker


def worker(index: int, make: Callable[[], Copy], *rest: Any, seed: int | None) -> None:
    """Gymnasium's worker of an `AsyncVectorEnv`, for a process of a run. `seed` is that of constructors.

    Ctrl-C reaches every process of a terminal, and other signals all of a job. The run then wants to finish its update,
    so the workers must live on; but not longer than the run, should that be killed.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _die_with_parent()
    if seed is not None:
        set_global_state(seeded_globals(integer_seed(seed, f"process {index}")))
    pipe, _, _, errors = rest[:4]
    try:
        # What is asked first is whether its spaces are those of copy 0.
        _, (_, *spaces) = pipe.recv()
        env = make()
        env.generators.alone = True
        check_same_spaces(env, *spaces)
    except BaseException as error:
        errors.put((index, EnvError, in_constructor(index, error), ""))
        pipe.send((None, False))
        return
    # Of the pipe: whoever made it is gone, and cannot be told.
    with contextlib.suppress(OSError):
        pipe.send(((True, True), True))
        _async_worker(index, lambda: env, *rest)


def check_same_spaces(env: gymnasium.Env[Any, Any], *spaces: Space[Any]) -> None:
    """Hold the observation and the action space of a copy to those of the first one.

    Raises:
        BrokenRule: when they are others.
    """
    for name, space, first in zip(
        ("observation", "action"), (env.observation_space, env.action_space), spaces, strict=True
    ):
        if space != first:
            raise BrokenRule(f"its {name} space is {space}; that of environment 0 is {first}")


def in_constructor(index: int, error: BaseException) -> str:
    """What to say of `error`, which came of making copy number `index`."""
    if isinstance(error, BrokenRule):
        return f"environment {index} breaks Gymnasium's rules: {error}"
    if isinstance(error, ConfigError):
        return f"environment {index}: {error.allowed}"
    return f"environment {index} raised in its constructor: {describe_with_place(error)}"


def raise_one(env: AsyncVectorEnv, successes: Iterable[bool]) -> None:
    """In place of `AsyncVectorEnv._raise_if_errors`, which prints a traceback for every process."""
    if failure := first_failure(env, successes):
        raise failure[1]


def first_failure(env: AsyncVectorEnv, successes: Iterable[bool]) -> tuple[int, BaseException] | None:
    """What went wrong in the process of the lowest number, with that number; None where all were successes."""
    failures = [env.error_queue.get() for success in successes if not success]
    if not failures:
        return None
    index, kind, error, _ = min(failures, key=lambda failure: failure[0])
    return index, error if isinstance(error, BaseException) else kind(error)


def what_is_wrong(env: AsyncVectorEnv, error: BaseException) -> str:
    """Which process has died, and how, or has not answered; what came of it here is `error`."""
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
    """The end of its pipe, and then that of its sentinel, come a moment before that of a process."""
    ended = wait([process.sentinel for process in processes], timeout=2.0)
    for process in processes:
        if process.sentinel in ended:
            process.join(1.0)


def _how(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"


def _has_answered(pipe: Connection | None) -> bool:
    return pipe is None or pipe.closed or pipe.poll()


def not_made(error: BaseException, made: int, num_envs: int, others: set[BaseProcess]) -> EnvError | None:
    """What to raise in place of `error`, after which `made` copies are there; None for that itself.

    Processes, but for `others`, end: they would wait for whoever made them, and he for them.
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
        # Not the settings, with which others could be made.
        return EnvError(in_constructor(made, error))
    return None


def close(env: Any) -> None:
    """Close a vector environment, with its processes if it has some."""
    if isinstance(env, AsyncVectorEnv):
        close_processes(env)
    else:
        env.close()


def close_processes(env: AsyncVectorEnv) -> None:
    """Let every process close its environment, for a few seconds; then kill what is left.

    `AsyncVectorEnv.close` raises where one has died, and waits for ever for one that hangs.
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
                # It ends a moment after its sentinel says so.
                process.join(1.0)
            if process.is_alive():
                _log.warning(
                    "environment %d did not close within %g s; its process is killed", index, _SECONDS_TO_CLOSE
                )
                process.kill()
            process.join()


def _drained(pipe: Any) -> bool:
    """Take an answer that nobody waits for any more from `pipe`; whether others may come."""
    try:
        pipe.recv_bytes()
    except (EOFError, OSError):
        return False
    return True


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
