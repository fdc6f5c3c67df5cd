"""Runs that are killed with SIGKILL at random moments and resumed, against the same runs left alone.

`python tests/runs/resume/harness.py --help` for a study with many kills; test_kills.py runs a few of them.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import random
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from launch import DEADLINE, Launch, Started, forked, in_a_new_process

from esper.analysis.runs import repeatable_events
from esper.runs.checkpoint.folder import checkpoints_in, load_checkpoint

_SMALL = (
    *("--preset", "none", "--compile", "off", "--num-envs", "4", "--num-steps", "16", "--total-timesteps", "1280"),
    *("--hidden-sizes", "16", "--update-epochs", "2", "--checkpoint-every", "1", "--no-tensorboard", "--no-picture"),
    *("--lr", "1e-3", "--lr-warmup-frac", "0.1", "--lr-decay", "cosine", "--value-lr-decay", "linear", "--quiet"),
)


# Its own folder is where the module is that registers it.
_MIXED = ("--env", "mixed_env:Mixed-v0")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A run by its flags; `again` are those that a resume needs, too.

    `then` are the flags of a second start that goes on with it under other schedules.
    """

    flags: tuple[str, ...]
    again: tuple[str, ...] = ()
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
    "memory": Case(flags=("--env", "CartPoleNoVel-v1", "--lstm-size", "8", "--num-minibatches", "2")),
    "memory, masks": Case(
        flags=(
            *(*_MIXED, "--env-kwargs", '{"masked": true, "actions": "multi_discrete"}', "--lstm-size", "4"),
            *("--normalize-observations", "--normalize-rewards", "--num-minibatches", "2"),
        ),
        again=_MIXED,
    ),
    "faults, memory": Case(
        flags=(*_MIXED, "--env-kwargs", '{"fault": "observation"}', "--lstm-size", "4", "--num-minibatches", "2"),
        again=_MIXED,
    ),
    "convolutions": Case(flags=("--env", "MinAtar/Breakout-v1", "--encoder", "small")),
    "mujoco, processes": Case(
        flags=("--env", "HalfCheetah-v4", "--vector", "async", "--normalize-observations", "--normalize-rewards"),
    ),
    "feedback": Case(flags=("--lr-kl-target", "0.001", "--checkpoint-every", "2")),
    "feedback, kernels": Case(
        flags=(
            *("--compile", "native", "--lr-kl-target", "0.001", "--policy-lr-kl-every", "minibatch"),
            *("--env", "torch/CartPole-v1"),
        )
    ),
    "evaluation": Case(flags=("--eval-every", "2", "--eval-episodes", "3")),
    "debug telemetry": Case(flags=("--telemetry", "debug", "--snapshot-every", "3", "--compile", "native")),
    "kernels": Case(flags=("--compile", "native", "--env", "torch/CartPole-v1", "--normalize-observations")),
    "compiled": Case(flags=("--compile", "torch")),
    "continue": Case(flags=(), then=("--total-timesteps", "1920")),
    "extend": Case(flags=(), then=("--resume-schedule", "extend", "--total-timesteps", "1920")),
    "restart": Case(flags=(), then=("--resume-schedule", "restart", "--total-timesteps", "1920", "--lr", "2e-3")),
}


@dataclass(kw_only=True)
class Outcome:
    """What became of one killed run: how often it was killed, when, and how it differs from the one left alone.

    It is `lost` when it did not come to its end, or began again although it had a checkpoint, or set one aside.
    """

    case: str
    kills: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    lost: str | None = None


def run_alone(case: Case, run_dir: Path, launch: Launch = in_a_new_process) -> None:
    """The run as it is when nothing happens to it."""
    _command(case, run_dir, launch).wait_for_success()
    if case.then:
        _resume(case, case.then, run_dir, launch).wait_for_success()


def run_with_kills(
    name: str, run_dir: Path, kills: int, rng: random.Random, launch: Launch = in_a_new_process
) -> Outcome:
    """The same with `kills` kills, spread over its starts."""
    case, outcome = CASES[name], Outcome(case=name)
    try:
        for stage in ("first", "then") if case.then else ("first",):
            share = kills // 2 if case.then else kills
            while True:
                newest = _newest(run_dir)
                process = _start(case, stage, run_dir, launch)
                moment = _kill_at_random(process, run_dir, rng) if share > 0 else None
                if moment is None:
                    process.wait_for_success()
                _check_way(run_dir, newest, finished=moment is None)
                if moment is None:
                    break
                share -= 1
                outcome.kills.append(moment)
    except AssertionError as error:
        outcome.lost = str(error)
    return outcome


def _newest(run_dir: Path) -> int | None:
    """After how many updates the newest checkpoint was written."""
    found = checkpoints_in(run_dir / "checkpoints")
    return int(found[0].name[:8]) if found else None


def _check_way(run_dir: Path, newest: int | None, *, finished: bool) -> None:
    """Hold a start of a run with checkpoint `newest` to having gone on there, as far as it came."""
    assert not list(run_dir.rglob("*.broken")), "a checkpoint was set aside"
    if newest is None:
        return
    now = _newest(run_dir)
    assert now is not None, "its checkpoints are gone"
    assert now >= newest, f"its newest checkpoint was {newest} and is {now}"
    resumed = _last_resume(run_dir)
    # A process that is killed while it starts leaves no event, and the one before may be dropped with others.
    assert resumed is not None or not finished, "it began again"
    assert resumed is None or resumed["update"] >= newest or not finished, f"it went on at {resumed}, not at {newest}"
    first = next((e["update"] for e in _whole_events(run_dir) if e["event"] == "update_completed"), 0)
    assert first == 0, f"its record begins with update {first}"


def _last_resume(run_dir: Path) -> dict[str, Any] | None:
    return next((e for e in reversed(_whole_events(run_dir)) if e["event"] == "run_resumed"), None)


def _whole_events(run_dir: Path) -> list[dict[str, Any]]:
    """The events of a record, but for a line that was being written."""
    path = run_dir / "events.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def differences(run_dir: Path, alone: Path) -> list[str]:
    """Where two finished runs differ: parameters, moments, generators, environments, schedules, rates, events."""
    found = list(_differing(load_checkpoint(checkpoints_in(run_dir / "checkpoints")[0]),
                            load_checkpoint(checkpoints_in(alone / "checkpoints")[0])))  # fmt: skip
    records = [
        [event for event in repeatable_events(folder) if event["event"] != "run_resumed"] for folder in (run_dir, alone)
    ]
    if records[0] != records[1]:
        found.append("events")
    for name in ("policy.safetensors", "best/policy.safetensors"):
        files = [folder / name for folder in (run_dir, alone)]
        if len({file.read_bytes() if file.exists() else None for file in files}) > 1:
            found.append(name)
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


def _command(case: Case, run_dir: Path, launch: Launch) -> Started:
    return launch((*_SMALL, *case.flags, "--run-dir", str(run_dir)))


def _resume(case: Case, flags: tuple[str, ...], run_dir: Path, launch: Launch) -> Started:
    return launch(("--resume", str(run_dir), *case.again, *flags, "--quiet"))


def _start(case: Case, stage: str, run_dir: Path, launch: Launch) -> Started:
    """What a user would type now: the first command, or the second one, until it has taken effect; then --resume."""
    if stage == "first":
        begun = (run_dir / "config.json").exists()
        return _resume(case, (), run_dir, launch) if begun else _command(case, run_dir, launch)
    total = int(case.then[case.then.index("--total-timesteps") + 1])
    newest = checkpoints_in(run_dir / "checkpoints")[0]
    in_effect = load_checkpoint(newest)["config"]["total_timesteps"] == total
    return _resume(case, () if in_effect else case.then, run_dir, launch)


def _kill_at_random(process: Started, run_dir: Path, rng: random.Random) -> str | None:
    """Kill `process` at a random moment; says which kind of moment, or None when it ended before that."""
    moment = rng.choice(["start-up", "training", "training", "checkpoint", "checkpoint"])
    delay, growth, skip = rng.uniform(0, process.start_up), rng.randint(1, 6), rng.randint(0, 4)
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
            process.wait()
            return moment
        time.sleep(0 if moment == "checkpoint" else 0.001)
    return None  # it ended before that; whoever waits for it sees how


def _lines(run_dir: Path) -> int:
    path = run_dir / "events.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def study(folder: Path, names: list[str], repeats: int, kills: int, jobs: int, launch: Launch) -> list[Outcome]:
    """`repeats` runs of every case with `kills` kills each, `jobs` at a time."""
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        list(pool.map(lambda name: run_alone(CASES[name], folder / name / "alone", launch), names))

        def one(item: tuple[str, int]) -> Outcome:
            name, repeat = item
            run_dir = folder / name / f"killed-{repeat}"
            outcome = run_with_kills(name, run_dir, kills, random.Random(f"{name} {repeat}"), launch)
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
    parser.add_argument("--forked", action="store_true", help="from a process that has imported everything: quicker")
    parser.add_argument("--output", type=Path, help="JSON file of the results")
    args = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        launch = forked if args.forked else in_a_new_process
        outcomes = study(Path(folder), args.cases, args.repeats, args.kills, args.jobs, launch)
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
