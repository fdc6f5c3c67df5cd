"""On a Ray cluster of several workers, one of which is killed. Needs the extra `ray`."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("ray")

import psutil
import ray
from test_sweep import make, updates

from esper.sweep.cluster import RayLauncher
from esper.sweep.launch import JobQueue, run_all
from esper.sweep.local import LocalLauncher
from esper.sweep.plan import Job
from esper.sweep.progress import progress_of

pytestmark = pytest.mark.filterwarnings("ignore")


def training() -> list[psutil.Process]:
    """The workers that train."""
    return [child for child in psutil.Process().children(recursive=True) if child.name().startswith("ray::_work")]


def test_a_killed_worker_costs_nothing_but_time(tmp_path: Path) -> None:
    jobs = make(tmp_path / "ray", seeds=2)
    queue, launcher = JobQueue(jobs), RayLauncher("local", cpus=1, gpus=0, jobs=len(jobs))
    killed: list[int] = []

    def kill_one(queue: JobQueue, ended: Job | None) -> None:
        if not killed and any(0 < progress_of(job).fraction < 0.8 for job in jobs):
            worker = training()[0]
            worker.kill()
            killed.append(worker.pid)

    try:
        run_all(queue, launcher, retries=2, should_stop=lambda: False, on_change=kill_one)
    finally:
        launcher.close()
    assert killed
    assert sum(queue.retries.values()) >= 1
    assert {outcome.status for outcome in queue.outcomes.values()} == {"completed"}

    local = make(tmp_path / "local", seeds=2)
    processes = LocalLauncher(2)
    run_all(JobQueue(local), processes, retries=0, should_stop=lambda: False, on_change=lambda queue, ended: None)
    processes.close()
    for here, there in zip(jobs, local, strict=True):
        assert updates(here.run_dir) == updates(there.run_dir)
        assert len(updates(here.run_dir)) == jobs[0].config.ppo.total_updates


def test_machines_that_do_not_see_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As on a machine where the path is on another disk: the token is not there.
    monkeypatch.setattr("esper.sweep.cluster.files.write_new", lambda path, data: None)
    jobs = make(tmp_path / "ray", total_timesteps=50_000)
    queue, launcher = JobQueue(jobs), RayLauncher("local", cpus=1, gpus=0, jobs=len(jobs))
    try:
        assert launcher.check(jobs) is None
        run_all(queue, launcher, retries=0, should_stop=lambda: False, on_change=lambda queue, ended: None)
    finally:
        launcher.close()
    assert {outcome.status for outcome in queue.outcomes.values()} == {"completed"}
    assert {progress_of(job).status for job in jobs} == {"completed"}
    assert all((job.run_dir / "policy.safetensors").exists() for job in jobs)


def test_stopping_leaves_checkpoints(tmp_path: Path) -> None:
    jobs = make(tmp_path, total_timesteps=20_000_000)
    queue, launcher = JobQueue(jobs), RayLauncher("local", cpus=1, gpus=0, jobs=len(jobs))
    # A task that is cancelled while it imports torch may end as failed.
    at_once = min(len(jobs), int(ray.cluster_resources()["CPU"]))
    try:
        run_all(
            queue,
            launcher,
            retries=0,
            should_stop=lambda: sum(progress_of(job).fraction > 0 for job in jobs) >= at_once,
            on_change=lambda queue, ended: None,
        )
    finally:
        launcher.close()
    assert {outcome.status for outcome in queue.outcomes.values()} == {"interrupted"}
    begun = [job for job in jobs if (job.run_dir / "checkpoints").exists()]
    assert begun
    for job in begun:
        assert b'"cause": "SIGINT"' in (job.run_dir / "events.jsonl").read_bytes()
