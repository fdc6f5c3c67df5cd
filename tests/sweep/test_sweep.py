"""Sweeps that are killed, stopped and gone on with end where undisturbed runs end."""

from __future__ import annotations

import json
import multiprocessing.forkserver
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from launch import DEADLINE

from esper.analysis.runs import read_events
from esper.runs.layers import Layer
from esper.runs.run import run
from esper.scripts.train import main
from esper.sweep.launch import JobQueue, run_all
from esper.sweep.local import LocalLauncher, log_of
from esper.sweep.plan import Job, make_jobs, make_sweep
from esper.sweep.progress import progress_of

SETTINGS = {"total_timesteps": 300_000, "checkpoint_every": 3, "tensorboard": False, "picture": False, "quiet": True}
ARMS = {"constant": {}, "cosine": {"lr_decay": "cosine", "lr_warmup_frac": 0.1}}
SMALL = ["--env", "torch/CartPole-v1", "--total-timesteps", "4096"]


def make(folder: Path, seeds: int = 1, **settings: Any) -> list[Job]:
    tables = {"folder": str(folder), "seeds": seeds, "arms": ARMS, "environments": {"torch/CartPole-v1": {}}}
    jobs = make_jobs(make_sweep(tables, "x"), SETTINGS | {"threads": 1} | settings, Layer(source="flag", values={}))
    for job in jobs:
        job.run_dir.parent.mkdir(parents=True, exist_ok=True)
    return jobs


def updates(run_dir: Path) -> list[dict[str, Any]]:
    """What was learned, without what the clock says."""
    timed = ("time", "steps_per_second")
    return [
        {name: value for name, value in event.items() if name not in timed}
        for event in read_events(run_dir)
        if event["event"] == "update_completed"
    ]


def alone(job: Job, folder: Path) -> list[dict[str, Any]]:
    """The updates of the same run without a sweep."""
    (copy,) = [each for each in make(folder) if each.arm == job.arm]
    return updates(run(copy.config).run_dir)


class TestLocal:
    def test_a_killed_run_goes_on_and_ends_where_it_would_have_ended(self, tmp_path: Path) -> None:
        jobs = make(tmp_path / "sweep")
        launcher, queue = LocalLauncher(2), JobQueue(jobs)
        killed: list[Job] = []

        def kill_one(queue: JobQueue, ended: Job | None) -> None:
            for child in launcher._children:
                if not killed and progress_of(child.job).fraction > 0:
                    child.process.kill()
                    killed.append(child.job)

        run_all(queue, launcher, retries=1, should_stop=lambda: False, on_change=kill_one)
        launcher.close()
        assert {outcome.status for outcome in queue.outcomes.values()} == {"completed"}
        assert queue.retries == {killed[0].name: 1}
        assert [event["event"] for event in read_events(killed[0].run_dir)].count("run_resumed") == 1
        for job in jobs:
            assert updates(job.run_dir) == alone(job, tmp_path / "alone")
        assert not any(log_of(job).exists() for job in jobs)

    def test_a_run_that_keeps_failing_is_given_up_and_the_others_are_not(self, tmp_path: Path) -> None:
        good, bad = make(tmp_path, total_timesteps=4096)
        # Not empty, and without a config: no run can begin there, and none go on.
        bad.run_dir.mkdir()
        (bad.run_dir / "something").touch()
        queue, launcher = JobQueue([bad, good]), LocalLauncher(1)
        run_all(queue, launcher, retries=2, should_stop=lambda: False, on_change=lambda queue, ended: None)
        launcher.close()
        assert queue.outcomes[good.name].status == "completed"
        assert queue.outcomes[bad.name].status == "refused"
        assert "has files in it" in str(queue.outcomes[bad.name].cause)

    def test_a_process_that_dies_each_time(self, tmp_path: Path) -> None:
        job = make(tmp_path)[0]
        queue, launcher = JobQueue([job]), LocalLauncher(1)

        def kill(queue: JobQueue, ended: Job | None) -> None:
            for child in launcher._children:
                child.process.kill()

        run_all(queue, launcher, retries=1, should_stop=lambda: False, on_change=kill)
        launcher.close()
        assert queue.outcomes[job.name].status == "failed"
        assert "killed by SIGKILL" in str(queue.outcomes[job.name].cause)
        assert queue.retries[job.name] == 1

    def test_the_process_that_forks_is_killed(self, tmp_path: Path) -> None:
        jobs = make(tmp_path, seeds=2)
        launcher, queue = LocalLauncher(2), JobQueue(jobs)
        killed: list[int] = []

        def kill_once(queue: JobQueue, ended: Job | None) -> None:
            if not killed and any(progress_of(job).fraction > 0 for job in queue.running):
                killed.append(multiprocessing.forkserver._forkserver._forkserver_pid)  # type: ignore[attr-defined]
                os.kill(killed[0], signal.SIGKILL)

        run_all(queue, launcher, retries=0, should_stop=lambda: False, on_change=kill_once)
        launcher.close()
        assert killed
        assert {outcome.status for outcome in queue.outcomes.values()} == {"completed"}

    def test_a_run_that_is_stopped_before_it_begins(self, tmp_path: Path) -> None:
        launcher = LocalLauncher(1)
        launcher.start(make(tmp_path)[0])
        launcher.stop()
        ((_, outcome),) = launcher.ended(DEADLINE)
        launcher.close()
        assert outcome.status == "interrupted"


def start(folder: Path, steps: int, *flags: str, **variables: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "esper.scripts.train", "sweep", "--env", "torch/CartPole-v1", "--seeds", "2"]
    command += ["--total-timesteps", str(steps), "--workers", "2", "--output", str(folder), *flags]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, **variables},
    )


def wait_until_both_run(folder: Path) -> None:
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        records = list(folder.glob("*/*/seed-*/events.jsonl"))
        if len(records) == 2 and all(b"update_completed" in record.read_bytes() for record in records):
            return
        time.sleep(0.05)
    raise AssertionError("the runs did not begin")


class TestStops:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_leaves_checkpoints_and_the_same_command_goes_on(
        self, tmp_path: Path, number: signal.Signals
    ) -> None:
        sweep = start(tmp_path, 400_000)
        wait_until_both_run(tmp_path)
        sweep.send_signal(number)
        out, _ = sweep.communicate(timeout=DEADLINE)
        assert sweep.returncode == 128 + number
        assert "0 of 2 runs are complete" in out
        assert "the same command resumes the sweep" in out
        for record in tmp_path.glob("*/*/seed-*/events.jsonl"):
            last = json.loads(record.read_text().splitlines()[-1])
            assert (last["event"], last["status"]) == ("run_finished", "interrupted")
        again = start(tmp_path, 400_000)
        out, _ = again.communicate(timeout=DEADLINE)
        assert again.returncode == 0
        assert "2 of 2 runs are complete" in out

    def test_ctrl_c_of_a_terminal_while_it_is_checked(self, tmp_path: Path) -> None:
        (tmp_path / "slow_to_import.py").write_text(
            f"import pathlib, time\npathlib.Path({str(tmp_path / 'began')!r}).touch()\ntime.sleep(600)\n"
        )
        flags = ("--env", "slow_to_import:X-v0", "--preset", "none")
        sweep = start(tmp_path / "runs", 1000, *flags, PYTHONPATH=os.pathsep.join([str(tmp_path), *sys.path]))
        deadline = time.monotonic() + DEADLINE
        while not (tmp_path / "began").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        # A terminal sends it to all processes.
        os.killpg(sweep.pid, signal.SIGINT)
        out, _ = sweep.communicate(timeout=DEADLINE)
        assert (sweep.returncode, out) == (
            130,
            "esper sweep: stopped at once; everything written before is complete\n",
        )
        assert not (tmp_path / "runs").exists()

    def test_runs_stop_when_the_sweep_is_killed(self, tmp_path: Path) -> None:
        sweep = start(tmp_path, 50_000_000)
        wait_until_both_run(tmp_path)
        sweep.kill()
        records = list(tmp_path.glob("*/*/seed-*/events.jsonl"))
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline and not all(b'"run_finished"' in record.read_bytes() for record in records):
            time.sleep(0.1)
        for record in records:
            assert json.loads(record.read_text().splitlines()[-1])["cause"] == "SIGTERM"
        sweep.communicate()


class TestCommand:
    def test_runs_that_are_complete_are_not_run_again(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        arms = ["--arm", "constant:", "--arm", "cosine: --lr-decay cosine --lr-warmup-frac 0.1"]
        command = ["sweep", *SMALL, *arms, "--output", str(tmp_path)]
        assert main([*command, "--seeds", "1"]) == 0
        before = {path: os.stat(path).st_mtime_ns for path in tmp_path.rglob("events.jsonl")}
        assert len(before) == 2
        capsys.readouterr()
        assert main([*command, "--seeds", "2"]) == 0
        out = capsys.readouterr().out
        assert "4 runs, 2 of them completed before" in out
        assert "4 of 4 runs are complete" in out
        assert "final_return" in out
        assert {path: os.stat(path).st_mtime_ns for path in before} == before
        assert len(list(tmp_path.rglob("events.jsonl"))) == 4
        assert main([*command, "--seeds", "3", "--dry-run"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "torch-CartPole-v1/constant/seed-1  completed  100%"
        assert lines[-1] == "torch-CartPole-v1/cosine/seed-3  new  0%"

    def test_a_folder_with_runs_of_other_settings(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["sweep", *SMALL, "--output", str(tmp_path)]) == 0
        with pytest.raises(SystemExit) as stop:
            main(["sweep", *SMALL, "--output", str(tmp_path), "--gamma", "0.9"])
        assert stop.value.code == 2
        assert "seed-1 exists already, with other settings: gamma 0.99, now 0.9" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("folder", "reason"),
        [("/proc/x", "cannot be written"), ("file", "Not a directory"), ("file/x", "Not a directory")],
    )
    def test_a_folder_that_cannot_be_made(
        self, tmp_path: Path, folder: str, reason: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(SystemExit) as stop:
            main(["sweep", *SMALL, "--output", str(tmp_path / folder)])
        assert stop.value.code == 2
        assert reason in capsys.readouterr().err

    def test_other_files_in_the_folder_of_a_run(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        other = tmp_path / "torch-CartPole-v1" / "default" / "seed-2" / "notes.txt"
        other.parent.mkdir(parents=True)
        other.touch()
        with pytest.raises(SystemExit):
            main(["sweep", *SMALL, "--output", str(tmp_path), "--seeds", "2"])
        assert "seed-2: has files in it" in capsys.readouterr().err
        assert not (other.parent.parent / "seed-1").exists()

    def test_a_file_and_flags_above_it(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "two.toml"
        path.write_text(
            '[arms.a]\n[arms.b]\nlr_decay = "linear"\n[environments.Cart]\nenv = "torch/CartPole-v1"\nseeds = 3\n'
            '[environments."torch/Pendulum-v1"]\n'
        )
        assert main(["sweep", "--config", str(path), "--only", "Cart", "--seeds", "2", "--dry-run"]) == 0
        lines = capsys.readouterr().out.split("\n")
        assert [line.split()[0] for line in lines if line] == [
            *("Cart/a/seed-1", "Cart/b/seed-1", "Cart/a/seed-2", "Cart/b/seed-2")
        ]
        # By its name in the file, or by that of its folder.
        for name in ("torch/Pendulum-v1", "torch-Pendulum-v1"):
            assert main(["sweep", "--config", str(path), "--only", name, "--arm", "c:", "--dry-run"]) == 0
            assert capsys.readouterr().out.startswith("torch-Pendulum-v1/c/seed-1 ")
        assert main(["sweep", "--config", str(path), "--arm", "c:", "--dry-run"]) == 0
        assert [line.split("/")[:2] for line in capsys.readouterr().out.splitlines()] == [["Cart", "c"]] * 3 + [
            ["torch-Pendulum-v1", "c"]
        ]

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            ([], "--output: give the folder"),
            (["--output", "x", "--seeds", "0"], "seeds = 0"),
            (["--output", "x", "--workers", "0"], "--workers 0: must be at least 1"),
            (["--output", "x", "--retries", "-1"], "--retries -1: must be at least 0"),
            (["--output", "x", "--arm", "a: --lr-deacy cosine"], "unknown argument --lr-deacy; did you mean"),
            (["--output", "x", "--arm", "a: --lr-decay cosin"], "did you mean 'cosine'"),
            (["--output", "x", "--arm", "a: --lr '1"], "No closing quotation"),
            (["--output", "x", "--arm", "a: --seed 3"], "arms.a: seed = 3: each run has its own: seeds"),
            (["--output", "x", "--arm", "a: --run-dir y"], "arms.a: run_dir = y: each run has its own: folder"),
            (["--output", "x", "--arm", "a: --env Acrobot-v1"], "arms.a: env = Acrobot-v1: an arm is compared within"),
            (["--output", "x", "--seed", "3"], "--seed 3: each run has its own: seeds"),
            (["--output", "x", "--run-dir", "y"], "--run-dir y: each run has its own"),
            (["--output", "x", "--envs", "CartPole-v1,Acrobt-v1"], "did you mean 'Acrobot-v1'"),
            (["--output", "x", "--env", "CartPole-v1", "--env-kwargs", '{"no": 1}'], "CartPole-v1 refuses them"),
            (["--output", "x", "--env", "CartPole-v1", "--encoder", "nature"], "encoder = nature"),
            (["--output", "x" * 300], "File name too long"),
            (["--output", "x", "--arm", "a/b:"], "'a/b': a name has letters"),
            (["--output", "x", "--only", "Cart"], "--only Cart: must be of CartPole-v1"),
            (["--output", "x", "--envs", "A,B", "--env", "C"], "--env: the sweep has several environments"),
            (["--output", "x", "--arm", "a:", "--arm", "a: --lr 1"], "arm a is given twice"),
            (["--output", "x", "--envs", "A,A"], "environment A is given twice"),
            (["--output", "x", "--ray", "--workers", "2"], "--workers: is for this machine"),
            (["--output", "x", "--gpus-per-run", "1"], "--gpus-per-run 1: needs --ray"),
            (["--config", "nothing.toml"], "nothing.toml: No such file"),
        ],
    )
    def test_bad_input(self, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as stop:
            main(["sweep", *flags, "--dry-run"])
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
