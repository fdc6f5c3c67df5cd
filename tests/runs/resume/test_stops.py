"""Runs that end before their end: signals, the clock, faults, disks; and what is left of them."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from harness import differences
from launch import DEADLINE

from esper.analysis.runs import load_updates, read_events
from esper.runs.checkpoint.folder import checkpoints_in, load_checkpoint
from esper.scripts.train import main

SMALL = (
    *("--preset", "none", "--lr", "1e-3", "--compile", "off", "--num-envs", "2", "--num-steps", "16"),
    *("--hidden-sizes", "8", "--no-tensorboard", "--no-picture"),
)


def esper(*arguments: str | Path) -> int:
    try:
        return main(["ppo", *map(str, arguments)])
    except SystemExit as exit:
        return int(exit.code or 0)


@contextlib.contextmanager
def training(run_dir: Path, *flags: str) -> Iterator[subprocess.Popen[str]]:
    """A run in a process of its own, after its first updates."""
    command = [sys.executable, "-m", "esper.scripts.train", "ppo", *SMALL, "--run-dir", str(run_dir), *flags]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # These tests may be under nohup themselves.
    with subprocess.Popen(["env", "--default-signal=HUP", *command], **pipes) as process:
        wait_until(lambda: (run_dir / "events.jsonl").exists() and updates(run_dir) >= 3)
        yield process
        process.kill()


def updates(run_dir: Path) -> int:
    return (run_dir / "events.jsonl").read_text().count('"update_completed"')


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class TestSignals:
    @pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
    def test_the_first_one_leaves_a_checkpoint_and_says_how_to_go_on(
        self, tmp_path: Path, number: signal.Signals, status: int
    ) -> None:
        run = tmp_path / "run"
        with training(run, "--total-timesteps", "1e9", "--picture") as process:
            process.send_signal(number)
            out, err = process.communicate(timeout=DEADLINE)
        assert process.returncode == status
        assert f"stopped ({number.name}) after" in out
        assert f"go on    esper ppo --resume {run}\n" in out
        assert "once more stops at once" in err
        finished = list(read_events(run))[-1]
        assert (finished["status"], finished["cause"]) == ("interrupted", number.name)
        assert {"policy.safetensors", "training.png"} <= {path.name for path in run.iterdir()}
        newest = load_checkpoint(checkpoints_in(run / "checkpoints")[0])
        assert newest["training"]["agent"]["train_steps"] == updates(run)

    def test_a_stopped_run_ends_where_the_whole_run_ends(self, tmp_path: Path) -> None:
        quick = ("--update-epochs", "1", "--num-minibatches", "1")
        flags = ("--total-timesteps", str(32 * 300), "--lr-decay", "linear", *quick)
        assert esper(*SMALL, *flags, "--run-dir", tmp_path / "whole", "--quiet") == 0
        with training(tmp_path / "run", *flags) as process:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=DEADLINE)
        assert process.returncode == 143
        assert esper("--resume", tmp_path / "run", "--quiet", "--no-picture") == 0
        assert differences(tmp_path / "run", tmp_path / "whole") == []

    def test_the_second_one_stops_at_once_and_leaves_the_last_checkpoint_whole(self, tmp_path: Path) -> None:
        run = tmp_path / "run"
        # Updates of minutes: there is no waiting for the end of one.
        slow = ("--total-timesteps", "1e9", "--update-epochs", "1000000", "--checkpoint-every", "1")
        command = [sys.executable, "-m", "esper.scripts.train", "ppo", *SMALL, *slow, "--run-dir", str(run)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            wait_until(lambda: any(checkpoints_in(run / "checkpoints")))
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            assert process.stderr is not None
            process.stderr.readline()
            assert "stopping after this update" in process.stderr.readline()
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=DEADLINE)
        # Where the interrupt falls into an exec of text, as torch has many, CPython ends by the signal itself.
        assert process.returncode in (130, -signal.SIGINT)
        assert load_checkpoint(checkpoints_in(run / "checkpoints")[0])["training"]["agent"]["train_steps"] == 0

    def test_the_clock(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        run = tmp_path / "run"
        assert esper(*SMALL, "--total-timesteps", "1e9", "--max-minutes", "0.02", "--run-dir", run) == 0
        assert "stopped (max_minutes) after" in capsys.readouterr().out
        assert list(read_events(run))[-1]["status"] == "interrupted"
        newest = load_checkpoint(checkpoints_in(run / "checkpoints")[0])
        assert newest["training"]["agent"]["train_steps"] == updates(run) > 0


class Unspeakable(BaseException):
    def __str__(self) -> str:
        raise ZeroDivisionError


# What an environment raises, and what is said of it.
RAISED: dict[str, tuple[BaseException, str]] = {
    "raise": (ZeroDivisionError("off the track"), "ZeroDivisionError: off the track"),
    "exit": (SystemExit(3), "SystemExit: 3"),
    "generator": (GeneratorExit(), "GeneratorExit"),
    "interrupt": (KeyboardInterrupt(), "KeyboardInterrupt"),
    "stop": (StopIteration(), "StopIteration"),
    "warning": (UserWarning("slippery"), "UserWarning: slippery"),
    "unspeakable": (Unspeakable(), "Unspeakable: its text cannot be shown, ZeroDivisionError"),
    "long": (ValueError("a\n" * 10_000), f"ValueError: {'a ' * 250}..."),
}


class Faulty(gymnasium.Env[Any, Any]):
    """Episodes of 8 steps. From step `after` on, for `times` steps, `what` goes wrong: obs, reward, or it raises.

    What it raises, it raises in `call`.
    """

    observation_space = Box(-1, 1, (2,))
    action_space = Discrete(2)

    def __init__(self, *, what: str, after: int, times: int = 10**9, call: str = "step") -> None:
        self.what, self.after, self.times, self.call = what, after, times, call
        self.steps = self.age = 0
        self.maybe_raise("constructor")

    def maybe_raise(self, call: str) -> None:
        if call == self.call and self.what in RAISED and self.after <= self.steps < self.after + self.times:
            raise RAISED[self.what][0]

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.maybe_raise("reset")
        self.age = 0
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        self.age += 1
        wrong = self.after <= self.steps < self.after + self.times
        self.maybe_raise("step")
        obs = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        if wrong and self.what == "obs":
            obs[1] = np.nan
        reward = float("inf") if wrong and self.what == "reward" else 1.0
        return obs, reward, self.age >= 8, False, {}

    def state_dict(self) -> Any:
        self.maybe_raise("state_dict")
        return {"age": self.age}

    def load_state_dict(self, state: Any) -> None:
        self.age = state["age"]

    def close(self) -> None:
        self.maybe_raise("close")


@pytest.fixture(autouse=True)
def faulty() -> Iterator[None]:
    gymnasium.register("Faulty-v0", entry_point=cast(Any, Faulty))
    yield
    del gymnasium.registry["Faulty-v0"]


def faulty_flags(run: Path, what: str, after: int, times: int = 10**9, call: str = "step") -> list[str]:
    kwargs = f'{{"what": "{what}", "after": {after}, "times": {times}, "call": "{call}"}}'
    flags = ["--env", "Faulty-v0", "--env-kwargs", kwargs, "--total-timesteps", str(32 * 30)]
    return [*SMALL, *flags, "--run-dir", str(run), "--max-skipped-updates", "3"]


class TestFaults:
    @pytest.mark.parametrize(
        ("what", "after", "cause"),
        [
            ("obs", 35, "the observation of environment 0 was nan in step 3 of the rollout"),
            ("reward", 35, "the reward of environment 0 was inf in step 2 of the rollout"),
        ],
    )
    def test_after_some_in_a_row_the_run_stops_with_the_last_good_state(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str, after: int, cause: str
    ) -> None:
        run = tmp_path / "run"
        assert esper(*faulty_flags(run, what, after), "--checkpoint-every", "1") == 1
        err = capsys.readouterr().err
        assert "3 updates in a row were undone" in err
        assert "check the environment's observations and rewards, --lr, --max-grad-norm" in err
        events = [event for event in read_events(run) if event["event"] != "checkpoint_saved"]
        # 16 steps a rollout: two updates are good, the third sees step 35.
        names = [event["event"] for event in events]
        skips = ["update_skipped", "anomaly_detected", "update_skipped", "update_skipped"]
        assert names == ["run_started", *["update_completed"] * 2, *skips, "run_finished"]
        assert events[3]["cause"] == cause
        assert events[-1]["status"] == "diverged"
        checkpoints = {int(path.name): load_checkpoint(path) for path in checkpoints_in(run / "checkpoints")}
        assert sorted(checkpoints) == [3, 4, 5]
        agent = checkpoints[5]["training"]["agent"]
        assert (agent["train_steps"], checkpoints[5]["training"]["undone"]) == (5, 3)
        for name, tensor in agent["network"].items():
            assert tensor.isfinite().all()
            assert tensor.equal(checkpoints[3]["training"]["agent"]["network"][name])

    def test_fewer_than_that_are_skipped_and_training_goes_on(self, tmp_path: Path) -> None:
        run = tmp_path / "run"
        assert esper(*faulty_flags(run, "reward", 35, times=20), "--quiet") == 0
        skipped = [event for event in read_events(run) if event["event"] == "update_skipped"]
        assert [event["update"] for event in skipped] == [2, 3]
        finished = list(read_events(run))[-1]
        assert (finished["updates"], finished["updates_undone"]) == (30, 2)

    def test_undone_updates_tick_so_that_the_last_one_has_the_last_rate(self, tmp_path: Path) -> None:
        run = tmp_path / "run"
        assert esper(*faulty_flags(run, "reward", 35, times=20), "--lr", "1e-3", "--lr-decay", "linear") == 0
        updates = load_updates(run)
        assert updates["update"].tolist() == [0, 1, *range(4, 30)]
        # Linear from 1e-3 at update 0 to 0 at update 30: 1/30 is left for the last one.
        assert updates["lr/policy"][-1] == pytest.approx(1e-3 / 30)
        assert updates["lr/policy"][2] == pytest.approx(1e-3 * 26 / 30)

    def test_restart_of_a_finished_run_with_undone_updates_has_nothing_to_do(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = tmp_path / "run"
        assert esper(*faulty_flags(run, "reward", 35, times=20), "--quiet") == 0
        for mode in ("restart", "extend"):
            assert esper("--resume", run, "--resume-schedule", mode) == 2
            assert f"the run has done 960 of them, so there is nothing to {mode}; give more" in capsys.readouterr().err

    def test_an_environment_that_raises_is_named_with_the_step(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run, env = tmp_path / "run", f"{__name__}:Faulty-v0"
        assert esper(*faulty_flags(run, "raise", 37), "--env", env, "--checkpoint-every", "1") == 1
        err = capsys.readouterr().err
        # Step 37 is the fifth of the third rollout; 2 rollouts of 2 x 16 steps and 4 x 2 steps came before it.
        assert "environment 0 raised in a step: ZeroDivisionError: off the track (" in err
        assert "test_stops.py, line " in err
        assert " (update 2, step 4 of 16, env step 72)\n" in err
        assert f"the last checkpoint is {run}/checkpoints/00000002; resume from it with  " in err
        # Without --env it would be refused.
        assert f"esper ppo --resume {run} --env {env}\n" in err
        finished = list(read_events(run))[-1]
        assert (finished["event"], finished["status"]) == ("run_finished", "failed")
        assert "off the track" in finished["cause"]

    @pytest.mark.parametrize("vector", ["sync", "async"])
    @pytest.mark.parametrize(
        ("what", "call", "says"),
        [
            *((what, "step", "in a step") for what in RAISED if what != "raise"),
            ("exit", "reset", "on reset"),
            ("exit", "state_dict", "in state_dict"),
        ],
    )
    def test_whatever_it_raises_ends_in_one_message(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str, call: str, says: str, vector: str
    ) -> None:
        run = tmp_path / "run"
        flags = [*faulty_flags(run, what, 37, call=call), "--vector", vector]
        assert esper(*flags, "--checkpoint-every", "1", "--quiet") == 1
        message, left = capsys.readouterr().err.splitlines()
        # In processes of their own, any copy may be the first.
        assert re.match(rf"esper ppo: error: environment [01] raised {says}: {re.escape(RAISED[what][1])}", message)
        assert left.startswith(f"the last checkpoint is {run}/checkpoints/00000002; resume from it with")
        finished = list(read_events(run))[-1]
        assert (finished["event"], finished["status"]) == ("run_finished", "failed")
        assert f"esper ppo: error: {finished['cause']}" == message

    def test_a_constructor_that_exits(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert esper(*faulty_flags(tmp_path / "run", "exit", 0, call="constructor")) == 2
        assert "Faulty-v0: raised in its constructor: SystemExit: 3 (" in capsys.readouterr().err

    def test_a_close_that_raises_is_said_once_for_every_copy_and_changes_nothing(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = tmp_path / "run"
        assert esper(*faulty_flags(run, "exit", 0, call="close")) == 0
        said = [record.getMessage() for record in caplog.records if "on close" in record.getMessage()]
        assert [line.partition(" (")[0] for line in said] == [
            f"environment {index} raised on close: SystemExit: 3" for index in (0, 1)
        ]
        assert "finished after 30 updates" in capsys.readouterr().out
        assert list(read_events(run))[-1]["status"] == "completed"

    def test_a_folder_that_vanishes(self, tmp_path: Path) -> None:
        run = tmp_path / "run"
        with training(run, "--total-timesteps", "1e9", "--checkpoint-every", "0.005m") as process:
            run.rename(tmp_path / "elsewhere")
            for path in (tmp_path / "elsewhere").iterdir():
                if path.is_file():
                    path.unlink()
            _, err = process.communicate(timeout=DEADLINE)
        assert process.returncode == 1
        assert "esper ppo: error: " in err
        assert "Traceback" not in err
        assert load_checkpoint(checkpoints_in(tmp_path / "elsewhere" / "checkpoints")[0])


def tmpfs(folder: Path, size: str) -> list[str]:
    """The command that runs what follows it with a file system of `size` at `folder`."""
    mount = f'mount -t tmpfs -o size={size} tmpfs {folder} && exec "$0" "$@"'
    return ["unshare", "--mount", *(() if os.getuid() == 0 else ("--map-root-user", "--user")), "sh", "-c", mount]


def can_mount(folder: Path) -> bool:
    try:
        return subprocess.run([*tmpfs(folder, "1m"), "true"], check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


class TestFullDisk:
    """On a real file system of a few hundred kilobytes, which the run fills by itself."""

    @pytest.mark.parametrize("size", ["400k", "450k"])
    def test_ends_with_a_clear_error_and_a_whole_checkpoint(self, tmp_path: Path, size: str) -> None:
        disk = tmp_path / "disk"
        disk.mkdir()
        if not can_mount(disk):
            pytest.skip("this machine does not let its users mount a tmpfs")
        run, saved = disk / "run", tmp_path / "saved"
        esper_ppo = f"{sys.executable} -m esper.scripts.train ppo"
        flags = "--total-timesteps 1e9 --checkpoint-every 1 --hidden-sizes 64,64 --keep-checkpoints 2"
        script = f"{esper_ppo} {' '.join(SMALL)} {flags} --run-dir {run}; echo $? > {saved}.status; cp -r {run} {saved}"
        command = [*tmpfs(disk, size), "sh", "-c", script]
        result = subprocess.run(command, check=True, capture_output=True, text=True, timeout=DEADLINE)
        assert Path(f"{saved}.status").read_text() == "1\n", result.stderr
        assert "No space left on device" in result.stderr
        assert f"resume from it with  esper ppo --resume {run}" in result.stderr
        assert "Traceback" not in result.stderr
        newest = load_checkpoint(checkpoints_in(saved / "checkpoints")[0])
        more = str(32 * (newest["training"]["agent"]["train_steps"] + 5))
        # On a disk with room, the run goes on from there.
        assert esper("--resume", saved, "--quiet", "--no-picture", "--total-timesteps", more) == 0
        assert load_checkpoint(checkpoints_in(saved / "checkpoints")[0])["training"]["agent"][
            "train_steps"
        ] * 32 == int(more)
