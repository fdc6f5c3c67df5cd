"""Every feature with every other, stopped at a random update and resumed: the end is that of the run left alone.

`python tests/runs/resume/combinations.py --help` for more than the tests do. A new feature is a line in `factors.py`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mixed_env
from covering import Row
from exported import check_exported
from factors import MORE_UPDATES, UPDATES, named_again, rows, settings_of, to_begin_with
from harness import differences
from received import check_received, kept_in

from esper.analysis.runs import read_events
from esper.runs.checkpoint.folder import checkpoints_in
from esper.runs.config import RunConfig
from esper.runs.layers import Layer, resolve
from esper.runs.resume.rules import Mode
from esper.runs.run import resume_run, run
from esper.runs.seeds import configs_of, run_each
from esper.telemetry.events import Event, Sink, UpdateCompleted, UpdateSkipped

# A checkpoint that is being written has a name of its own until it is whole.
_LEFT = shutil.ignore_patterns(".*.tmp", ".lock")


class EndAt:
    """A sink that ends the run in `run_dir` at the event of update `update`, in the `run`-th run that has one.

    By a signal, or as if it were killed: the folder is kept as it is when there is a checkpoint of more than `updates`,
    which a busy machine may still be writing, and `put_back` later.
    """

    def __init__(self, update: int, how: str, run_dir: Path, updates: int, *, run: int = 1) -> None:
        self._update, self._how, self._run_dir, self._updates = update, how, run_dir, updates
        self._run, self._seen = run, 0
        self._kept = run_dir.with_name(f"{run_dir.name}, as killed")

    def emit(self, event: Event) -> None:
        if isinstance(event, UpdateCompleted | UpdateSkipped) and event.update == self._update:
            self._seen += 1
            if self._seen != self._run:
                return
            if self._how == "killed":
                deadline = time.monotonic() + 60
                while self._newest() <= self._updates and time.monotonic() < deadline:
                    time.sleep(0.01)
                shutil.copytree(self._run_dir, self._kept, symlinks=True, ignore=_LEFT)
            else:
                os.kill(os.getpid(), signal.SIGTERM)

    def close(self) -> None: ...

    def _newest(self) -> int:
        return int(checkpoints_in(self._run_dir / "checkpoints")[0].name[:8])

    def put_back(self) -> None:
        if self._how == "killed":
            shutil.rmtree(self._run_dir)
            self._kept.rename(self._run_dir)


def check(row: Row, folder: Path, rng: random.Random) -> None:
    """Hold a run of `row` that is ended and resumed to the same run left alone: its way, and its end.

    Raises:
        AssertionError: naming what is different.
    """
    settings = settings_of(row) | {"checkpoint_every": rng.randint(1, 3)}
    alone, disturbed = folder / "alone", folder / "disturbed"
    settings |= _begun_with(row, folder / "other")
    with kept_in(alone):
        run(_config(settings, alone))

    def begin(sinks: Sequence[Sink]) -> None:
        run(_config(settings, disturbed), sinks)
        # A resume reads it no more.
        shutil.rmtree(folder / "other", ignore_errors=True)

    _end_and_resume(begin, disturbed, range(UPDATES), row, rng)
    _compare(disturbed, alone, UPDATES)
    if row["resume"] != "plain":
        mode: Mode = row["resume"]  # type: ignore[assignment]
        # A function is named again, as a new horizon calls it again.
        named = {name: settings[name] for name in ("lr_decay",) if ":" in settings.get(name, "")}
        values = {
            "total_timesteps": settings["num_envs"] * settings["num_steps"] * MORE_UPDATES,
            "quiet": True,
            **named,
            **named_again(row),
        }
        more = [Layer(source="more", values=values)]
        # Only its newest state: what is before it has been compared.
        given = _given(settings["env"])
        with kept_in(alone):
            resume_run(alone, more, mode=mode, given=given)
        _end_and_resume(
            lambda sinks: resume_run(disturbed, more, mode=mode, given=given, sinks=lambda config: sinks),
            disturbed,
            range(UPDATES, MORE_UPDATES),
            row,
            rng,
        )
        _compare(disturbed, alone, MORE_UPDATES)
    if row["export"] != "none":
        check_exported(disturbed, row, settings.get("env_kwargs", {}))


def check_seeds(row: Row, folder: Path, rng: random.Random) -> None:
    """Hold two seeds in one call, which a signal ends in the second and the same call completes, to a run of each.

    Raises:
        AssertionError: naming what is different.
    """
    settings = settings_of(row) | {"checkpoint_every": rng.randint(1, 3)} | _begun_with(row, folder / "other")
    together = configs_of(_config(settings, folder / "together"), (1, 2))
    ending = EndAt(rng.randrange(UPDATES - 1), "signal", folder, 0, run=2)
    with kept_in(folder):
        begun = list(run_each(together, sinks=[ending]))
        ended = list(run_each(together))
    assert [result.cause for _, result in begun] == [None, "SIGTERM"]
    assert [result.train.status for _, result in ended] == ["completed", "completed"]
    for config in together:
        check_received(Path(str(config.run_dir)))
        alone = folder / f"alone-{config.seed}"
        with kept_in(folder):
            run(_config(settings | {"seed": config.seed}, alone))
        found = differences(Path(str(config.run_dir)), alone)
        assert found == [], f"seed {config.seed} is different: {found}"


def _begun_with(row: Row, other: Path) -> dict[str, Any]:
    """The setting that names what a run of `row` begins with, which is trained in `other` for two updates."""
    if row["begun with"] == "random weights":
        return {}
    settings = settings_of(to_begin_with(row))
    steps = 2 * settings["num_envs"] * settings["num_steps"]
    run(_config({**settings, "total_timesteps": steps, "seed": 7}, other))
    if row["begun with"] == "policy":
        shutil.rmtree(other / "checkpoints")
    return {"init_from": str(other)}


def _config(settings: Mapping[str, Any], run_dir: Path) -> RunConfig:
    config = resolve([Layer(source="row", values={**settings, "run_dir": str(run_dir)})]).config
    environment = dataclasses.replace(config.environment, given=_given(config.environment.env))
    return dataclasses.replace(config, environment=environment)


def _given(env: str) -> type[mixed_env.Mixed] | None:
    """What is passed from Python for `env`."""
    return mixed_env.Mixed if env == "<Mixed>" else None


def _end_and_resume(start: Any, run_dir: Path, span: range, row: Row, rng: random.Random) -> None:
    """Start, end at a random update of `span`, and resume; it must go on at its newest checkpoint."""
    end = rng.randrange(span.start + 3, span.stop - 1) if span.stop - span.start > 4 else span.start + 2
    before = _events(run_dir, "run_resumed") if (run_dir / "events.jsonl").exists() else []
    ending = EndAt(end, row["end"], run_dir, span.start)
    with kept_in(run_dir):
        start([ending])
    ending.put_back()
    newest = checkpoints_in(run_dir / "checkpoints")[0]
    if row["end"] == "signal":
        assert int(newest.name[:8]) == end + 1, f"stopped after update {end}, the newest checkpoint is {newest.name}"
    env = str(json.loads((run_dir / "config.json").read_text())["env"])
    again = [Layer(source="again", values={"quiet": True, **named_again(row)})]
    with kept_in(run_dir):
        resume_run(run_dir, again, given=_given(env))
    resumed = _events(run_dir, "run_resumed")[len(before) :][-1]
    assert resumed["update"] == int(newest.name[:8]) > span.start, f"resumed at {resumed['update']}, not {newest.name}"
    assert resumed["checkpoint"] == str(newest)
    assert (resumed["broken"], resumed["exact_resume"], resumed["changed"]) == ([], True, {})
    assert resumed["lr"] == resumed["lr_before"]


def _compare(disturbed: Path, alone: Path, updates: int) -> None:
    assert not list(disturbed.rglob("*.broken")), "a checkpoint was set aside"
    for run_dir in (disturbed, alone):
        check_received(run_dir)
        names = [event["event"] for event in read_events(run_dir)]
        assert names.count("run_started") == 1
        assert (names[0], names[-1]) == ("run_started", "run_finished")
        recorded = [e["update"] for e in read_events(run_dir) if e["event"] in ("update_completed", "update_skipped")]
        skipped = [event["update"] for event in _events(run_dir, "update_skipped")]
        finished = _events(run_dir, "run_finished")[-1]
        assert (finished["updates"], finished["updates_undone"]) == (updates, len(skipped))
        # Without telemetry only those that were skipped are recorded.
        assert recorded in (list(range(updates)), skipped)
    found = differences(disturbed, alone)
    assert found == [], f"different: {found}"
    videos = [{path.name: path.read_bytes() for path in folder.glob("videos/*")} for folder in (disturbed, alone)]
    assert videos[0] == videos[1], "other videos"
    every = json.loads((alone / "config.json").read_text())["record_every"]
    due = range(every, updates + 1, every) if every else ()
    assert sorted(Path(name).stem for name in videos[0]) == [f"update-{number:05}" for number in due]
    best = [(folder / "best" / "policy.safetensors") for folder in (disturbed, alone)]
    assert best[0].exists() == best[1].exists()
    assert not best[0].exists() or best[0].read_bytes() == best[1].read_bytes(), "another best policy"


def _events(run_dir: Path, name: str) -> list[dict[str, Any]]:
    return [event for event in read_events(run_dir) if event["event"] == name]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--strength", type=int, default=2, help="so many factors meet with all of their levels")
    parser.add_argument("--seed", type=int, default=0, help="of the updates at which runs are ended")
    parser.add_argument("--rows", type=int, help="only so many rows")
    parser.add_argument("--from", dest="first", type=int, default=0, help="the first of these rows, counted from 0")
    parser.add_argument("--seeds", action="store_true", help="two seeds in one program in place of one run")
    parser.add_argument("--compiled", action="store_true", help="torch.compile too, half a minute a row")
    args = parser.parse_args()
    without = {} if args.compiled else {"engine": ("torch",)}
    # Each run of the program would need a place of its own.
    without |= {"sinks": ("MLflow",)} if args.seeds else {}
    every = list(enumerate(rows(args.strength, without=without)))[args.first :][: args.rows]
    started, failed = time.monotonic(), 0
    for index, row in every:
        folder = Path(tempfile.mkdtemp())
        try:
            (check_seeds if args.seeds else check)(row, folder, random.Random(f"{args.seed} {index}"))
        except Exception as error:
            failed += 1
            print(f"row {index}: {dict(row)}: {type(error).__name__}: {error}", flush=True)
        shutil.rmtree(folder)
    print(f"{len(every)} rows, {failed} failed, {(time.monotonic() - started) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
