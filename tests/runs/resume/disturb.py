"""Runs to which something happens at a random moment: the console goes, a sink fails, a process of an environment dies.

Each must go on to its end, or end with one message and a whole checkpoint that can be gone on from.
`python tests/runs/resume/disturb.py --help` for a study with many; test_disturb.py runs one of each kind.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import dataclasses
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, cast

import gymnasium
import numpy as np
import psutil
from gymnasium.spaces import Box, Discrete

from esper.analysis.runs import read_events
from esper.runs.checkpoint.folder import checkpoints_in, load_checkpoint

DEADLINE = 120.0  # seconds; only a run that hangs needs as many, however busy the machine is
_UPDATES, _BATCH = 200, 32
_FLAGS = (
    *("ppo", "--env", "Disturbed-v0", "--preset", "none", "--compile", "off", "--num-envs", "2", "--num-steps", "16"),
    *("--hidden-sizes", "8", "--update-epochs", "1", "--num-minibatches", "1", "--no-picture", "--threads", "1"),
    *("--total-timesteps", str(_UPDATES * _BATCH), "--keep-checkpoints", "2"),
)
_RAISED: dict[str, Callable[[], BaseException]] = {
    "SystemExit": lambda: SystemExit(3),
    "GeneratorExit": GeneratorExit,
    "KeyboardInterrupt": KeyboardInterrupt,
    "StopIteration": StopIteration,
    "RecursionError": RecursionError,
    "ValueError": lambda: ValueError("a line\n" * 10_000),
}


class Disturbed(gymnasium.Env[Any, Any]):
    """Episodes of 8 steps, or `endless`. In `call` number `after`, `what` goes wrong."""

    observation_space = Box(-1, 1, (2,))
    action_space = Discrete(2)

    def __init__(self, *, call: str = "", what: str = "", after: int = 0, endless: bool = False) -> None:
        self._call, self._what, self._after, self._endless = call, what, after, endless
        self.age = 0

    def _goes_wrong(self, call: str) -> None:
        self._after -= call == self._call
        if call != self._call or self._after > 0:
            return
        if self._what == "os._exit":
            os._exit(7)
        while self._what == "hang":
            time.sleep(1000)
        raise _RAISED[self._what]()

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self._goes_wrong("reset")
        self.age = 0
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), {}

    def step(self, action: Any) -> Any:
        self._goes_wrong("step")
        time.sleep(0.0002)
        self.age += 1
        obs = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return obs, float(action), self.age >= 8 and not self._endless, False, {}

    def state_dict(self) -> Any:
        self._goes_wrong("state_dict")
        return {"age": self.age, "generator": self.np_random.bit_generator.state}

    def load_state_dict(self, state: Any) -> None:
        self.age = state["age"]
        self.np_random.bit_generator.state = state["generator"]

    def close(self) -> None:
        self._goes_wrong("close")


@dataclass(frozen=True, kw_only=True)
class Case:
    """`flags` and environment of a run, what `act` does to its process meanwhile, what `patch` does within it.

    `ends` are its exit status, and its status in the record.
    """

    ends: tuple[int, str]
    flags: tuple[str, ...] = ()
    env: dict[str, Any] = dataclasses.field(default_factory=dict)
    act: Callable[[BaseProcess, Path, random.Random], None] | None = None
    patch: Callable[[random.Random], None] | None = None
    output: str = "file"


def signalled(*numbers: signal.Signals, after: float = 0.0) -> Callable[[BaseProcess, Path, random.Random], None]:
    def act(process: BaseProcess, run_dir: Path, rng: random.Random) -> None:
        time.sleep(after)
        for number in numbers:
            os.kill(process.pid or 0, number)

    return act


def to_a_worker(number: signal.Signals) -> Callable[[BaseProcess, Path, random.Random], None]:
    def act(process: BaseProcess, run_dir: Path, rng: random.Random) -> None:
        rng.choice(psutil.Process(process.pid).children()).send_signal(number)

    return act


def stop_a_worker(process: BaseProcess, run_dir: Path, rng: random.Random) -> None:
    to_a_worker(signal.SIGSTOP)(process, run_dir, rng)
    time.sleep(0.3)
    os.kill(process.pid or 0, signal.SIGTERM)


def in_an_evaluation(process: BaseProcess, run_dir: Path, rng: random.Random) -> None:
    updates = -1
    # It has come to an evaluation, which lasts for ever.
    while (now := _updates(run_dir)) != updates or now == 0 or now % 2:
        updates = now
        time.sleep(0.5)
    os.kill(process.pid or 0, rng.choice([signal.SIGTERM, signal.SIGHUP, signal.SIGINT]))


def full_disk(rng: random.Random) -> None:
    from esper.telemetry import tensorboard

    left = [rng.randint(0, 100)]

    def write(file: Any, event: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")

    tensorboard.TensorBoardSink._write = staticmethod(write)  # type: ignore[method-assign]


def failing_sink(rng: random.Random) -> None:
    from esper.telemetry import console

    left, what = [rng.randint(0, 100)], rng.choice(["SystemExit", "GeneratorExit", "RecursionError", "ValueError"])

    def emit(self: Any, event: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise _RAISED[what]()

    console.ConsoleSink.emit = emit  # type: ignore[method-assign]


def hanging_sink(rng: random.Random) -> None:
    from esper.telemetry import console

    console.ConsoleSink.close = lambda self: time.sleep(1000)  # type: ignore[method-assign]


def raising(rng: random.Random) -> dict[str, Any]:
    """Not in the first two updates: a run that goes on makes the environment anew, and is to come so far."""
    call, after = rng.choice([("step", (60, 600)), ("reset", (12, 60)), ("state_dict", (8, 15))])
    return {"call": call, "what": rng.choice(list(_RAISED)), "after": rng.randint(*after)}


CASES: dict[str, Callable[[random.Random], Case]] = {
    "pipe closed": lambda rng: Case(ends=(0, "completed"), output="pipe"),
    "terminal closed": lambda rng: Case(ends=(0, "completed"), output="terminal"),
    "TensorBoard's disk full": lambda rng: Case(ends=(0, "completed"), patch=full_disk),
    "sink raises": lambda rng: Case(ends=(0, "completed"), patch=failing_sink),
    "sink hangs on close": lambda rng: Case(ends=(0, "completed"), patch=hanging_sink),
    "worker killed": lambda rng: Case(ends=(1, "failed"), flags=("--vector", "async"), act=to_a_worker(signal.SIGKILL)),
    "worker stopped, SIGTERM": lambda rng: Case(
        ends=(143, "interrupted"), flags=("--vector", "async"), act=stop_a_worker
    ),
    "SIGHUP twice": lambda rng: Case(ends=(129, "interrupted"), act=signalled(signal.SIGHUP, signal.SIGHUP)),
    "SIGTERM": lambda rng: Case(ends=(143, "interrupted"), act=signalled(signal.SIGTERM)),
    "signal in an evaluation": lambda rng: Case(
        ends=(-1, "interrupted"),
        flags=("--eval-every", "2", "--eval-episodes", "2"),
        env={"endless": True},
        act=in_an_evaluation,
    ),
    "step hangs, SIGTERM": lambda rng: Case(
        ends=(143, "interrupted"),
        flags=("--vector", rng.choice(["sync", "async"])),
        env={"call": "step", "what": "hang", "after": rng.randint(100, 1000)},
        act=signalled(signal.SIGTERM, after=1.5),
    ),
    "environment raises": lambda rng: Case(
        ends=(1, "failed"),
        flags=("--vector", rng.choice(["sync", "async"]), "--checkpoint-every", "5"),
        env=raising(rng),
    ),
    "environment's process exits": lambda rng: Case(
        ends=(1, "failed"),
        flags=("--vector", "async"),
        env={"call": "step", "what": "os._exit", "after": rng.randint(40, 1000)},
    ),
    "close goes wrong": lambda rng: Case(
        ends=(0, "completed"),
        flags=("--vector", "sync"),
        env={"call": "close", "what": rng.choice([*_RAISED, "os._exit", "hang"])},
    ),
}


def child(arguments: list[str], case: str, seed: int, out: str, err: str) -> None:
    """The run, in a process of its own."""
    for path, flags, descriptor in ((out, os.O_WRONLY | os.O_NOCTTY, 1), (err, os.O_WRONLY | os.O_CREAT, 2)):
        os.dup2(os.open(path, flags | (os.O_CREAT if out == path and "out.txt" in path else 0), 0o644), descriptor)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    # Otherwise that of this process, whose first child would be a server.
    multiprocessing.set_start_method("fork", force=True)
    from esper.envs import watched
    from esper.runs import record
    from esper.scripts.train import main
    from esper.system import stopping

    # Many seconds for people; here nothing needs them.
    stopping.SECONDS_AFTER_STOP = record.SECONDS_TO_CLOSE_A_SINK = watched.SECONDS_TO_CLOSE = 1.0
    rng = random.Random(seed)
    made = CASES[case](rng)
    if "--resume" not in arguments and made.patch is not None:
        made.patch(rng)
    gymnasium.register("Disturbed-v0", entry_point=cast(Any, Disturbed))
    raise SystemExit(main(arguments))


def _start(arguments: list[str], case: str, seed: int, folder: Path, out: str) -> BaseProcess:
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["esper.runs.run", "esper.telemetry.console", "esper.telemetry.tensorboard", "psutil"]
    )
    process: BaseProcess = context.Process(target=child, args=(arguments, case, seed, out, str(folder / "err.txt")))
    process.start()
    return process


def disturb(name: str, seed: int, folder: Path) -> list[str]:
    """Do what `name` says to a run in `folder`, and go on with it; what was wrong then."""
    rng = random.Random(seed)
    case, run_dir = CASES[name](rng), folder / "run"
    folder.mkdir(parents=True)
    out, ends = _output(case.output, folder)
    flags = [*_FLAGS, *case.flags, "--env-kwargs", json.dumps(case.env), "--run-dir", str(run_dir)]
    process = _start(flags, name, seed, folder, out)
    if ends:
        # A FIFO is opened by both ends at once.
        ends = [os.open(out, os.O_RDONLY)] if case.output == "pipe" else ends
        _wait_for_updates(process, run_dir, rng.randint(0, _UPDATES))
        for descriptor in ends:
            os.close(descriptor)
    elif case.act is not None:
        _wait_for_updates(process, run_dir, rng.randint(1, 30) if not case.env else 1)
        case.act(process, run_dir, rng)
    process.join(DEADLINE)
    if process.exitcode is None:
        for each in psutil.Process(process.pid).children(recursive=True):
            each.kill()
        process.kill()
        return ["hangs"]
    found = _judge(case, process.exitcode, run_dir, (folder / "err.txt").read_text())
    return found or _go_on(name, seed, folder, run_dir)


def _output(kind: str, folder: Path) -> tuple[str, list[int]]:
    """The path of what a run writes to, and whatever is to be closed in order to disturb it."""
    path = folder / ("out.txt" if kind == "file" else "out.fifo")
    if kind == "terminal":
        master, slave = os.openpty()
        name = os.ttyname(slave)
        return name, [master, slave]
    if kind == "pipe":
        os.mkfifo(path)
        return str(path), [-1]
    return str(path), []


def _judge(case: Case, status: int, run_dir: Path, err: str) -> list[str]:
    found = []
    expected, how = case.ends
    if status != expected and not (expected < 0 and status in (129, 130, 143)):
        found.append(f"exit status {status}")
    events = list(read_events(run_dir))
    if events[-1]["event"] != "run_finished" or events[-1]["status"] != how:
        found.append(f"the record ends with {events[-1]}")
    if "Traceback" in err or "Exception ignored" in err:
        found.append(err)
    if how == "failed" and (err.count("esper ppo: error:"), err.count("resume from it with")) != (1, 1):
        found.append(f"not one message: {err}")
    if len(err.splitlines()) > 6:
        found.append(f"many lines: {err}")
    newest = load_checkpoint(checkpoints_in(run_dir / "checkpoints")[0])["training"]["agent"]["train_steps"]
    if how != "failed" and newest != events[-1]["updates"]:
        found.append(f"the checkpoint is of update {newest}, the end of {events[-1]['updates']}")
    return found


def _go_on(name: str, seed: int, folder: Path, run_dir: Path) -> list[str]:
    """The run, gone on with for two updates where nothing disturbs it."""
    newest = load_checkpoint(checkpoints_in(run_dir / "checkpoints")[0])["training"]["agent"]["train_steps"]
    flags = ["ppo", "--resume", str(run_dir), "--total-timesteps", str((newest + 2) * _BATCH), "--no-picture"]
    # What goes wrong in this environment after some steps does so again, but not in two updates.
    process = _start([*flags, "--quiet", "--eval-every", "none"], name, seed, folder, str(folder / "out.txt"))
    process.join(DEADLINE)
    if process.exitcode is None:
        process.kill()
    finished = list(read_events(run_dir))[-1]
    wrong = process.exitcode != 0 or finished["updates"] != newest + 2
    return [f"does not go on: {process.exitcode} {(folder / 'err.txt').read_text()}"] if wrong else []


def _updates(run_dir: Path) -> int:
    path = run_dir / "events.jsonl"
    return path.read_bytes().count(b'"update_completed"') if path.exists() else 0


def _wait_for_updates(process: BaseProcess, run_dir: Path, number: int) -> None:
    deadline = time.monotonic() + DEADLINE
    while _updates(run_dir) < number and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.002)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", type=int, default=100, help="runs, of all kinds in turn")
    parser.add_argument("--kinds", nargs="*", default=list(CASES), choices=list(CASES), metavar="KIND")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    args = parser.parse_args()
    names = [args.kinds[number % len(args.kinds)] for number in range(args.runs)]
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:

        def one(number: int) -> list[str]:
            found = disturb(names[number], number, Path(folder) / str(number))
            print(f"{number} {names[number]}: {'; '.join(found) or 'fine'}", flush=True)
            return found

        results = list(pool.map(one, range(args.runs)))
    wrong = collections.Counter(name for name, found in zip(names, results, strict=True) if found)
    print(json.dumps({"runs": collections.Counter(names), "wrong": wrong}, indent=2))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
