"""What is shown of a sweep while it runs."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from esper.runs.begun import Progress
from esper.runs.layers import Layer
from esper.scripts.overview import Overview
from esper.sweep.job import Outcome
from esper.sweep.launch import JobQueue
from esper.sweep.plan import Job, make_jobs, make_sweep


def make(folder: Path) -> list[Job]:
    """Two runs of a thousand steps in each of two environments."""
    tables = {"folder": str(folder), "seeds": 2, "environments": {"A": {"env": "CartPole-v1"}, "B": {"env": "X-v1"}}}
    layer = Layer(source="flag", values={"total_timesteps": 1000, "num_envs": 1, "num_steps": 100})
    return make_jobs(make_sweep(tables, "x"), {}, layer)


def test_time_left_is_by_the_speed_of_each_environment(tmp_path: Path) -> None:
    jobs = make(tmp_path)
    overview, queue = Overview(jobs, 2, quiet=True), JobQueue([])
    assert overview._time_left(queue) == "-"
    # 1,000 steps in 10 s, and 250 in 25 s.
    overview._progress[jobs[0].name] = Progress(status="completed", fraction=1.0)
    overview._progress[jobs[2].name] = Progress(status="begun", fraction=0.25)
    overview._seconds.update({jobs[0].name: 10.0, jobs[2].name: 25.0})
    queue.running = [jobs[2]]
    # 1,000 at 100 a second, 750 and 1,000 at 10 a second, one after the other.
    assert overview._time_left(queue) == "0:03:05"


def test_a_run_that_goes_on_from_before_is_not_faster_than_nothing(tmp_path: Path) -> None:
    """Its record had come to 800 steps when it was killed; it goes on from a checkpoint at 100, and is now at 300."""
    job, *_ = make(tmp_path)
    job.run_dir.mkdir(parents=True)
    record = job.run_dir / "events.jsonl"
    record.write_text('{"event": "update_completed", "env_steps": 800}\n')
    overview, queue = Overview([job], 1, quiet=True), JobQueue([])
    queue.running = [job]
    for steps in (100, 300):
        record.write_text(f'{{"event": "update_completed", "env_steps": {steps}}}\n')
        overview._looked -= 10
        overview.show(queue, None)
    overview._seconds[job.name] = 20.0
    # 200 steps in 20 s, and 700 to go.
    assert overview._time_left(queue) == "0:01:10"


def test_lines_where_there_is_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = make(tmp_path)
    queue = JobQueue([])
    queue.outcomes[jobs[0].name] = Outcome(status="failed", cause="it broke")
    with Overview(jobs, 2, quiet=False) as overview:
        overview.show(queue, jobs[0])
    assert capsys.readouterr().out.splitlines() == [
        "4 runs, 0 of them completed before, 2 at a time",
        "0/4  A/default/seed-1 failed: it broke",
    ]


def test_what_runs_is_seen_where_not_all_arms_fit(tmp_path: Path) -> None:
    arms: dict[str, dict[str, str]] = {f"arm-{number:03}": {} for number in range(200)}
    tables = {"folder": str(tmp_path), "arms": arms, "environments": {"A": {"env": "CartPole-v1"}}}
    jobs = make_jobs(make_sweep(tables, "x"), {}, Layer(source="flag", values={"total_timesteps": 1000}))
    overview, queue = Overview(jobs, 1, quiet=True), JobQueue([])
    overview._console = Console(width=100, height=24, record=True, file=io.StringIO())
    for job in jobs[:150]:
        overview._progress[job.name] = Progress(status="completed", fraction=1.0)
    overview._progress[jobs[180].name] = Progress(status="begun", fraction=0.5)
    queue.running = [jobs[180]]
    queue.outcomes[jobs[190].name] = Outcome(status="failed", cause="it broke")
    overview._console.print(overview._table(queue))
    lines = overview._console.export_text().splitlines()
    assert len(lines) <= 23
    assert "arm-180" in lines[1]
    assert "1 running" in lines[1]
    assert "arm-190" in lines[2]
    assert "1 failed" in lines[2]
    assert lines[-1].strip() == "and 180 more arms, 150 of them complete"
