"""Runs that are killed with SIGKILL at random moments and resumed, against the same runs left alone.

`python tests/resume/harness.py --help` for a study with many kills; tests/resume/test_kills.py runs a few of them.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from esper.analysis.runs import repeatable_events
from esper.checkpoint.folder import checkpoints_in, load_checkpoint

DEADLINE = 300.0  # seconds to wait for a process; only one that hangs needs as many, however busy the machine is
_SMALL = (
    *("--preset", "none", "--compile", "off", "--num-envs", "4", "--num-steps", "16", "--total-timesteps", "2560"),
    *("--hidden-sizes", "16", "--update-epochs", "2", "--checkpoint-every", "1", "--no-tensorboard", "--no-picture"),
    *("--lr", "1e-3", "--lr-warmup-frac", "0.1", "--lr-decay", "cosine", "--value-lr-decay", "linear", "--quiet"),
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A run by its flags; `then` are the flags of a second start that goes on with it under other schedules."""

    flags: tuple[str, ...]
    then: tuple[str, ...] = ()


CASES = {
    "discrete": Case(flags=("--checkpoint-every", "3")),
    "normalized": Case(flags=("--normalize-observations", "--normalize-rewards", "--target-kl", "0.001")),
    "box, shared trunk": Case(
        flags=(
            *("--env", "Pendulum-v1", "--normalize-observations", "--normalize-rewards", "--shared-trunk"),
            *("--shared-lr", "min", "--policy-lr-delay", "3"),
        )
    ),
    "mujoco": Case(flags=("--env", "HalfCheetah-v4", "--normalize-observations", "--checkpoint-every", "2")),
    "processes": Case(flags=("--env", "Acrobot-v1", "--vector", "async")),
    "torch environment": Case(flags=("--env", "torch/Acrobot-v1", "--normalize-rewards")),
    "memory": Case(
        flags=("--env", "CartPoleNoVel-v1", "--lstm-size", "8", "--num-minibatches", "2", "--total-timesteps", "1280")
    ),
    "kernels": Case(flags=("--compile", "native", "--env", "torch/CartPole-v1", "--normalize-observations")),
    "compiled": Case(flags=("--compile", "torch")),
    "continue": Case(flags=(), then=("--total-timesteps", "3840")),
    "extend": Case(flags=(), then=("--resume-schedule", "extend", "--total-timesteps", "3840")),
    "restart": Case(flags=(), then=("--resume-schedule", "restart", "--total-timesteps", "3840", "--lr", "2e-3")),
}


@dataclass(kw_only=True)
class Outcome:
    """What became of one killed run: how often it was killed, when, and how it differs from the one left alone."""

    case: str
    kills: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    lost: str | None = None


def run_alone(case: Case, run_dir: Path) -> None:
    """The run as it is when nothing happens to it."""
    _command(case.flags, run_dir).wait_for_success()
    if case.then:
        _resume(case.then, run_dir).wait_for_success()


def run_with_kills(name: str, run_dir: Path, kills: int, rng: random.Random) -> Outcome:
    """The same with `kills` kills, spread over its starts."""
    case, outcome = CASES[name], Outcome(case=name)
    try:
        for stage in ("first", "then") if case.then else ("first",):
            share = kills // 2 if case.then else kills
            while True:
                process = _start(case, stage, run_dir)
                moment = _kill_at_random(process, run_dir, rng) if share > 0 else None
                if moment is None:
                    process.wait_for_success()
                    break
                share -= 1
                outcome.kills.append(moment)
    except AssertionError as error:
        outcome.lost = str(error)
    return outcome


def differences(run_dir: Path, alone: Path) -> list[str]:
    """Where two finished runs differ: parameters, moments, generators, environments, schedules, rates, events."""
    found = list(_differing(load_checkpoint(checkpoints_in(run_dir / "checkpoints")[0]),
                            load_checkpoint(checkpoints_in(alone / "checkpoints")[0])))  # fmt: skip
    records = [
        [event for event in repeatable_events(folder) if event["event"] != "run_resumed"] for folder in (run_dir, alone)
    ]
    if records[0] != records[1]:
        found.append("events")
    if (run_dir / "policy.safetensors").read_bytes() != (alone / "policy.safetensors").read_bytes():
        found.append("policy.safetensors")
    return found


def _differing(tree: Any, other: Any, path: str = "") -> Iterator[str]:
    if path == "events_bytes":  # The record of a resumed run has an event more for each resume.
        return
    if isinstance(tree, Mapping) and isinstance(other, Mapping) and set(tree) == set(other):
        for name in tree:
            yield from _differing(tree[name], other[name], f"{path}/{name}".strip("/"))
    elif isinstance(tree, torch.Tensor) and isinstance(other, torch.Tensor):
        if not (tree.dtype == other.dtype and tree.equal(other)):
            yield path
    elif tree != other:
        yield path


class _Process(subprocess.Popen[str]):
    def __init__(self, arguments: tuple[str, ...]) -> None:
        command = [sys.executable, "-m", "esper.scripts.train", "ppo", *arguments]
        super().__init__(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def wait_for_success(self) -> None:
        _, err = self.communicate(timeout=DEADLINE)
        assert self.returncode == 0, f"{' '.join(map(str, self.args))}: {self.returncode}: {err}"


def _command(flags: tuple[str, ...], run_dir: Path) -> _Process:
    return _Process((*_SMALL, *flags, "--run-dir", str(run_dir)))


def _resume(flags: tuple[str, ...], run_dir: Path) -> _Process:
    return _Process(("--resume", str(run_dir), *flags, "--quiet", "--no-picture"))


def _start(case: Case, stage: str, run_dir: Path) -> _Process:
    """What a user would type now: the first command, or the second one, until it has taken effect; then --resume."""
    if stage == "first":
        return _resume((), run_dir) if (run_dir / "config.json").exists() else _command(case.flags, run_dir)
    total = int(case.then[case.then.index("--total-timesteps") + 1])
    newest = checkpoints_in(run_dir / "checkpoints")[0]
    in_effect = load_checkpoint(newest)["config"]["total_timesteps"] == total
    return _resume(() if in_effect else case.then, run_dir)


def _kill_at_random(process: _Process, run_dir: Path, rng: random.Random) -> str | None:
    """Kill `process` at a random moment; says which kind of moment, or None when it ended before that."""
    moment = rng.choice(["start-up", "training", "training", "checkpoint", "checkpoint"])
    delay, growth, skip = rng.uniform(0, 3.5), rng.randint(1, 6), rng.randint(0, 6)
    started, lines, seen = time.monotonic(), _lines(run_dir), False
    while process.poll() is None:
        assert time.monotonic() - started < DEADLINE, "hangs"
        if moment == "start-up":
            hit = time.monotonic() - started > delay
        elif moment == "training":
            hit = _lines(run_dir) >= lines + growth
        else:
            writing = any((run_dir / "checkpoints").glob(".*.tmp"))
            skip -= writing and not seen
            seen, hit = writing, writing and skip < 0
        if hit:
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()
            return moment
        time.sleep(0 if moment == "checkpoint" else 0.001)
    process.communicate()
    return None if process.returncode == 0 else _fail(process)


def _fail(process: _Process) -> None:
    raise AssertionError(f"{' '.join(map(str, process.args))}: ended by itself with {process.returncode}")


def _lines(run_dir: Path) -> int:
    path = run_dir / "events.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def study(folder: Path, names: list[str], repeats: int, kills: int, jobs: int) -> list[Outcome]:
    """`repeats` runs of every case with `kills` kills each, `jobs` at a time."""
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        list(pool.map(lambda name: run_alone(CASES[name], folder / name / "alone"), names))

        def one(item: tuple[str, int]) -> Outcome:
            name, repeat = item
            run_dir = folder / name / f"killed-{repeat}"
            outcome = run_with_kills(name, run_dir, kills, random.Random(f"{name} {repeat}"))
            if outcome.lost is None:
                outcome.differences = differences(run_dir, folder / name / "alone")
            print(f"{name} {repeat}: {len(outcome.kills)} kills, {outcome.lost or outcome.differences or 'identical'}")
            return outcome

        return list(pool.map(one, [(name, repeat) for repeat in range(repeats) for name in names]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--repeats", type=int, default=5, help="killed runs of each case")
    parser.add_argument("--kills", type=int, default=6, help="kills of each run")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--output", type=Path, help="JSON file of the results")
    args = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        outcomes = study(Path(folder), args.cases, args.repeats, args.kills, args.jobs)
    moments = [moment for outcome in outcomes for moment in outcome.kills]
    result = {
        "runs": len(outcomes),
        "kills": {"all": len(moments), **{moment: moments.count(moment) for moment in sorted(set(moments))}},
        "kills_by_case": {name: sum(len(o.kills) for o in outcomes if o.case == name) for name in args.cases},
        "lost_runs": [f"{outcome.case}: {outcome.lost}" for outcome in outcomes if outcome.lost],
        "different_runs": [f"{outcome.case}: {outcome.differences}" for outcome in outcomes if outcome.differences],
        "minutes": round((time.monotonic() - started) / 60, 1),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if args.output:
        args.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
