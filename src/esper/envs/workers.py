"""Environments that are stepped in worker processes, several in each, with observations in shared memory."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import CloudpickleWrapper, batch_space
from numpy.typing import NDArray

from esper.envs.base import BoolArray, EnvError
from esper.envs.processes import close_processes, in_words, wait_for_deaths
from esper.envs.subenvs import SubEnv, check_same_spaces, in_constructor
from esper.system.errors import describe_with_place
from esper.system.seeding import integer_seed, seeded_globals, set_global_state

_PR_SET_PDEATHSIG = 1
# Most steps need no objects: the message for a step, and the answer without infos, which are not pickled.
_STEP = _EMPTY = b""
_Info = tuple[int, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class _Block:
    """An array in shared memory; a process that gets it makes its own view."""

    memory: Any
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, context: Any, shape: tuple[int, ...], dtype: Any) -> _Block:
        dtype = np.dtype(dtype)
        size = int(np.prod(shape)) * dtype.itemsize
        return cls(memory=context.RawArray("B", max(size, 1)), shape=shape, dtype=dtype)

    def view(self) -> NDArray[Any]:
        return np.frombuffer(self.memory, self.dtype, int(np.prod(self.shape))).reshape(self.shape)


@dataclass(frozen=True, kw_only=True)
class _Blocks:
    """What a step takes and gives, of all environments."""

    actions: _Block
    obs: _Block
    reward: _Block
    terminated: _Block
    truncated: _Block


class WorkerVectorEnv(gymnasium.vector.VectorEnv[Any, NDArray[Any], NDArray[Any]]):
    """`SubEnv`s in processes, `groups` of neighbours, that reset in the step that ends an episode.

    A step is a message to each process, which steps its environments one by one, and an answer. Observations are
    valid until the next step. Only infos travel as objects, and most steps have none.
    """

    def __init__(self, makers: Sequence[Callable[[], SubEnv]], *, workers: int, seed: int | None) -> None:
        self.num_envs = len(makers)
        self.groups = [range(self.num_envs)[rows[0] : rows[-1] + 1] for rows in _split(self.num_envs, workers)]
        self.processes: list[Any] = []
        self.parent_pipes: list[Connection] = []
        self._take_spaces(makers[0]())
        self.closed = False  # before it, garbage collection has nothing to close
        context: Any = multiprocessing.get_context()
        rows = (self.num_envs,)
        blocks = _Blocks(
            actions=_Block.of(context, self.action_space.shape or (), self.action_space.dtype),
            obs=_Block.of(context, self.observation_space.shape or (), self.observation_space.dtype),
            reward=_Block.of(context, rows, np.float64),
            terminated=_Block.of(context, rows, np.bool_),
            truncated=_Block.of(context, rows, np.bool_),
        )
        self._actions, self._obs = blocks.actions.view(), blocks.obs.view()
        self._reward = blocks.reward.view()
        self._terminated, self._truncated = blocks.terminated.view(), blocks.truncated.view()
        try:
            for group in self.groups:
                self._start(context, group, makers, blocks, seed)
            self._receive()
        except BaseException as error:
            self.closed = True
            self._kill(error)
            raise

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Environment k is reset with `seed` + k, or with number k of several."""
        if seed is None or isinstance(seed, int):
            seeds = [None if seed is None else seed + k for k in range(self.num_envs)]
        else:
            seeds = list(seed)
        infos = self._together(self._ask("reset", (seeds, options)))
        return self._obs, infos

    def step(self, actions: NDArray[Any]) -> tuple[Any, NDArray[np.float64], BoolArray, BoolArray, dict[str, Any]]:
        self._actions[...] = actions
        for pipe in self.parent_pipes:
            pipe.send_bytes(_STEP)
        infos = self._together(self._receive())
        return self._obs, self._reward.copy(), self._terminated.copy(), self._truncated.copy(), infos

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The attribute `name` of each environment, or what it returns where it is a method."""
        return tuple(value for values in self._ask("call", (name, args, kwargs)) for value in values)

    def get_attr(self, name: str) -> tuple[Any, ...]:
        return self.call(name)

    def set_attr(self, name: str, values: Any) -> None:
        """A list or tuple has a value for each environment."""
        each = values if isinstance(values, list | tuple) else [values] * self.num_envs
        for pipe, group in zip(self.parent_pipes, self.groups, strict=True):
            pipe.send(("set_attr", (name, [each[index] for index in group])))
        self._receive()

    def close_extras(self, **_: Any) -> None:
        close_processes(self)

    def _take_spaces(self, env: SubEnv) -> None:
        """The spaces of `env`, which is closed."""
        self.metadata = {**env.metadata, "autoreset_mode": AutoresetMode.SAME_STEP}
        self.single_observation_space, self.single_action_space = env.observation_space, env.action_space
        self.observation_space = batch_space(env.observation_space, self.num_envs)
        self.action_space = batch_space(env.action_space, self.num_envs)
        env.close()

    def _start(self, context: Any, group: range, makers: Any, blocks: _Blocks, seed: int | None) -> None:
        ours, theirs = context.Pipe()
        spaces = self.single_observation_space, self.single_action_space
        # Its type is for one; it pickles lambdas where processes are not forked.
        own = CloudpickleWrapper([makers[index] for index in group])  # type: ignore[arg-type]
        name = f"Worker-{len(self.processes)}"
        process = context.Process(
            target=_work, name=name, args=(group, own, spaces, seed, theirs, ours, blocks), daemon=True
        )
        process.start()
        theirs.close()
        self.processes.append(process)
        self.parent_pipes.append(ours)

    def _ask(self, command: str, data: Any) -> list[Any]:
        for pipe in self.parent_pipes:
            pipe.send((command, data))
        return self._receive()

    def _receive(self) -> list[Any]:
        """The answer of each process; raises the error of the environment with the lowest index."""
        answers = [_received(pipe) for pipe in self.parent_pipes]
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return answers

    def _together(self, answers: Sequence[Sequence[_Info] | None]) -> dict[str, Any]:
        """The infos of single environments in Gymnasium's format."""
        infos: dict[str, Any] = {}
        for answer in answers:
            for index, info in answer or ():
                infos = self._add_info(infos, info, index)
        return infos

    def _kill(self, error: BaseException) -> None:
        """End all processes as one could not be started; they and this one would wait for each other.

        Raises:
            EnvError: when one has died.
        """
        if isinstance(error, EOFError | ConnectionError):
            wait_for_deaths(self.processes)
        dead = [group for group, process in zip(self.groups, self.processes, strict=False) if not process.is_alive()]
        for process in self.processes:
            process.kill()
            process.join()
        if isinstance(error, EOFError | ConnectionError):
            died = ", ".join(in_words(group) for group in dead)
            raise EnvError(f"the process of {died} has died in its constructor") from error


def _split(number: int, parts: int) -> list[NDArray[Any]]:
    return np.array_split(np.arange(number), min(parts, number))


class _Worker:
    """The environments of `group` in this process."""

    def __init__(self, group: range, envs: Sequence[SubEnv], blocks: _Blocks) -> None:
        self._group, self._envs = group, envs
        self._actions, self._obs = blocks.actions.view(), blocks.obs.view()
        self._reward = blocks.reward.view()
        self._terminated, self._truncated = blocks.terminated.view(), blocks.truncated.view()

    def reset(self, data: tuple[Sequence[int | None], dict[str, Any] | None]) -> list[_Info]:
        seeds, options = data
        infos = []
        for index, env in zip(self._group, self._envs, strict=True):
            obs, info = env.reset(seed=seeds[index], options=options)
            self._obs[index] = obs
            if info:
                infos.append((index, info))
        return infos

    def step(self) -> list[_Info]:
        infos: list[_Info] = []
        for index, env in zip(self._group, self._envs, strict=True):
            # A copy: the environment may keep it.
            obs, reward, terminated, truncated, info = env.step(self._actions[index].copy())
            if terminated or truncated:
                infos.append((index, {"final_obs": obs, "final_info": info}))
                obs, info = env.reset()
            self._obs[index] = obs
            self._reward[index], self._terminated[index], self._truncated[index] = reward, terminated, truncated
            if info:
                infos.append((index, info))
        return infos

    def call(self, data: tuple[str, tuple[Any, ...], dict[str, Any]]) -> list[Any]:
        name, args, kwargs = data
        values = [env.get_wrapper_attr(name) for env in self._envs]
        return [value(*args, **kwargs) if callable(value) else value for value in values]

    def set_attr(self, data: tuple[str, Sequence[Any]]) -> None:
        name, values = data
        for env, value in zip(self._envs, values, strict=True):
            env.set_wrapper_attr(name, value)

    def close(self, _: None) -> None:
        for env in self._envs:
            env.close()


def _work(
    group: range, makers: Any, spaces: Any, seed: int | None, pipe: Connection, parents: Connection, blocks: _Blocks
) -> None:
    """Make environments, and do what the parent process asks for. `seed` is for constructors.

    Ctrl-C reaches every process of a terminal, and other signals every process of a job. The run then finishes its
    update, so workers must outlive the signal; but they must end when the run is killed.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _die_with_parent()
    parents.close()
    # The pipe is broken: the parent is gone, and no error can be reported.
    with contextlib.suppress(OSError, EOFError):
        try:
            worker = _Worker(group, _made(group, makers.fn, spaces, seed), blocks)
        except EnvError as error:
            pipe.send(error)
            return
        pipe.send(None)
        command = "step"
        while command != "close":
            command, *data = _received(pipe) or ("step",)
            try:
                answer = getattr(worker, command)(*data)
            except BaseException as error:
                answer = _portable(error)
            if answer:
                pipe.send(answer)
            else:
                pipe.send_bytes(_EMPTY)


def _received(pipe: Connection) -> Any:
    message = pipe.recv_bytes()
    return ForkingPickler.loads(message) if message else None


def _made(group: range, makers: Sequence[Callable[[], SubEnv]], spaces: Any, seed: int | None) -> list[SubEnv]:
    envs = []
    for index, make in zip(group, makers, strict=True):
        try:
            if seed is not None:
                set_global_state(seeded_globals(integer_seed(seed, f"process {index}")))
            env = make()
            env.generators.alone = True
            check_same_spaces(env, *spaces)
        except BaseException as error:
            raise EnvError(in_constructor(index, error)) from None
        envs.append(env)
    return envs


def _portable(error: BaseException) -> BaseException:
    """`error`, or another one with its text if its type may not survive the way, with its traceback as a note."""
    sent = error if type(error) in (EnvError, ValueError) else RuntimeError(describe_with_place(error))
    sent.add_note(f"In the worker process:\n{''.join(traceback.format_exception(error))}")
    return sent


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
