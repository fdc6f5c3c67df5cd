"""`--resume` as a user meets it: what goes on, what may change, what is refused."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import gymnasium
import numpy as np
import pytest
import torch
from harness import differences

from esper import schedules
from esper.analysis.runs import load_updates, read_events
from esper.runs.checkpoint.folder import checkpoints_in, load_checkpoint, save_checkpoint
from esper.runs.folder import open_run_folder
from esper.runs.resume.point import find_resume_point
from esper.scripts.train import main
from esper.simic import ScheduleConfig, make_schedule

SMALL = (
    *("--preset", "none", "--lr", "1e-3", "--compile", "off", "--quiet", "--no-tensorboard", "--no-picture"),
    *("--num-envs", "4", "--num-steps", "16", "--hidden-sizes", "8", "--keep-checkpoints", "99"),
)
COSINE = ("--lr-warmup-steps", "3", "--lr-decay", "cosine", "--value-lr", "2e-3", "--lr-min-ratio", "0.1")
UPDATES = 8


def train(run_dir: Path, *flags: str, updates: int = UPDATES) -> Path:
    assert main(["ppo", *SMALL, "--total-timesteps", str(64 * updates), "--run-dir", str(run_dir), *flags]) == 0
    return run_dir


def resume(path: Path, *flags: str) -> int:
    try:
        return main(["ppo", "--resume", str(path), "--quiet", "--no-picture", *flags])
    except SystemExit as exit:
        return int(exit.code or 0)


def cut_back(run_dir: Path, copy: Path, number: int) -> Path:
    """A copy of a run as if it had been killed after `number` updates and a few more, without a checkpoint of those."""
    shutil.copytree(run_dir, copy)
    for path in checkpoints_in(copy / "checkpoints"):
        if int(path.name[:8]) > number:
            shutil.rmtree(path)
    position = load_checkpoint(checkpoints_in(copy / "checkpoints")[0])["events_bytes"]
    record = (copy / "events.jsonl").read_bytes()
    more = record[position:].splitlines(keepends=True)
    (copy / "events.jsonl").write_bytes(record[:position] + b"".join(more[:3]) + b'{"event": "update_comp')
    return copy


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with a checkpoint after every update."""
    return train(tmp_path_factory.mktemp("runs") / "run", *COSINE, "--checkpoint-every", "1")


class TestContinue:
    @pytest.mark.parametrize("number", [0, 1, 5, UPDATES])
    def test_ends_where_the_whole_run_ends(self, run: Path, tmp_path: Path, number: int) -> None:
        killed = cut_back(run, tmp_path / "killed", number)
        assert resume(killed) == 0
        assert differences(killed, run) == []

    def test_the_record_goes_on_without_a_gap_a_duplicate_or_a_torn_line(self, run: Path, tmp_path: Path) -> None:
        killed = cut_back(run, tmp_path / "killed", 3)
        resume(killed)
        events = [event for event in read_events(killed) if event["event"] != "checkpoint_saved"]
        names = [event["event"] for event in events]
        assert names == [
            *("run_started", *["update_completed"] * 3),
            *("run_resumed", *["update_completed"] * (UPDATES - 3), "run_finished"),
        ]
        assert load_updates(killed)["update"].tolist() == list(range(UPDATES))
        resumed = events[4]
        assert (resumed["update"], resumed["env_steps"], resumed["exact_resume"]) == (3, 192, True)
        assert resumed["lr"] == resumed["lr_before"]
        assert resumed["changed"] == {}

    def test_a_run_killed_before_its_first_checkpoint_begins_anew(
        self, run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        killed = tmp_path / "killed"
        killed.mkdir()
        shutil.copy(run / "config.json", killed)
        (killed / "events.jsonl").write_text('{"event": "run_sta')
        assert resume(killed) == 0
        assert "was stopped before its first checkpoint: it restarts" in caplog.text
        assert differences(killed, run) == []

    def test_a_finished_run_is_left_as_it_is(self, run: Path, tmp_path: Path) -> None:
        copy = tmp_path / "copy"
        shutil.copytree(run, copy)
        assert resume(copy) == 0
        assert differences(copy, run) == []

    def test_past_the_horizon_the_rates_stay_at_the_floor(self, run: Path, tmp_path: Path) -> None:
        copy = tmp_path / "copy"
        shutil.copytree(run, copy)
        assert resume(copy, "--total-timesteps", str(64 * (UPDATES + 2))) == 0
        updates = load_updates(copy)
        # Floors: 0.1 * 1e-3 and 0.1 * 2e-3.
        assert updates["lr/policy"][-2:].tolist() == pytest.approx([1e-4] * 2)
        assert updates["lr/value"][-2:].tolist() == pytest.approx([2e-4] * 2)
        assert updates["lr_phase/policy"][-2:].tolist() == ["floor"] * 2


class Fork(gymnasium.Env[Any, Any]):
    """Two choices of three; in step n of an episode of 5 the values n modulo 3 are not allowed."""

    observation_space = gymnasium.spaces.Box(0, 9, (1,))
    action_space = gymnasium.spaces.MultiDiscrete([3, 3])

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.steps = 0
        return self._obs(), {"action_mask": self._mask()}

    def step(self, action: Any) -> Any:
        assert self.steps % 3 not in action
        self.steps += 1
        return self._obs(), float(action[0] == 2), self.steps == 5, False, {"action_mask": self._mask()}

    def _obs(self) -> Any:
        return np.array([self.steps], dtype=np.float32)

    def _mask(self) -> Any:
        return np.tile(np.arange(3) != self.steps % 3, 2)

    def state_dict(self) -> Any:
        return {"steps": self.steps}

    def load_state_dict(self, state: Any) -> None:
        self.steps = state["steps"]


def test_action_masks_go_on_across_the_end_of_an_episode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gymnasium.envs.registration, "registry", dict(gymnasium.registry))
    gymnasium.register("Fork-v0", entry_point=cast(Any, Fork))
    # A checkpoint after 3 rollouts of 16 steps is within an episode, one after 5 between two.
    whole = train(tmp_path / "whole", "--env", "Fork-v0", "--checkpoint-every", "1", updates=7)
    for number in (3, 5):
        killed = cut_back(whole, tmp_path / f"killed-{number}", number)
        assert resume(killed) == 0
        assert differences(killed, whole) == []


SHAPES: dict[str, dict[str, Any]] = {
    "constant": {},
    "linear": {},
    "cosine": {"min_ratio": 0.2, "warmup_shape": "cosine", "warmup_start_ratio": 0.1},
    "polynomial": {"power": 3.0},
    "exponential": {"min_ratio": 0.01},
    "step": {"step_size": 2, "gamma": 0.5},
    "multistep": {"milestones": (2, 3), "gamma": 0.1},
    "inverse_sqrt": {"timescale": 3},
    "wsd": {"decay_frac": 0.5, "wsd_shape": "1-sqrt"},
    "cosine_restarts": {"cycles": 2, "cycle_decay": 0.5},
    "triangular": {"cycles": 2, "cycle_decay": 0.5, "min_ratio": 0.1},
    "piecewise": {"points": ((0, 1e-3), (3, 1e-4), (5, 5e-4))},
}


def test_every_shape_is_in_the_table() -> None:
    assert set(SHAPES) == set(schedules.SHAPES)


@pytest.mark.parametrize("decay", list(SHAPES))
def test_rates_go_on_without_a_jump_for_every_shape(decay: str, tmp_path: Path) -> None:
    parameters = {"peak": 1e-3, **SHAPES[decay]}
    flags = ["--lr-decay", decay]
    if schedules.SHAPES[decay].no_warmup is None:
        parameters["warmup_steps"] = 1
        flags += ["--lr-warmup-steps", "1"]
    schedule = make_schedule(ScheduleConfig(decay=decay, **parameters), 6)
    for name, value in SHAPES[decay].items():
        text = value
        if isinstance(value, tuple):
            text = ",".join(":".join(map(str, v)) if isinstance(v, tuple) else str(v) for v in value)
        flags += [f"--lr-{name.replace('_', '-')}", str(text)]
    if decay == "piecewise":
        flags += ["--lr", "1e-3"]
    whole = train(tmp_path / "whole", *flags, "--checkpoint-every", "2", updates=6)
    killed = cut_back(whole, tmp_path / "killed", 2)
    assert resume(killed) == 0
    for group in ("policy", "value"):
        trace = load_updates(killed)[f"lr/{group}"].tolist()
        assert trace == load_updates(whole)[f"lr/{group}"].tolist()
        assert trace == [schedule(update) for update in range(6)]
    assert differences(killed, whole) == []


class TestModes:
    def test_extend_spans_the_new_total_and_tells_of_the_jump(
        self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        killed = cut_back(run, tmp_path / "killed", 4)
        flags = ["--resume-schedule", "extend", "--total-timesteps", str(64 * 16)]
        assert main(["ppo", "--resume", str(killed), *flags]) == 0
        before = make_schedule(ScheduleConfig(peak=1e-3, warmup_steps=3, decay="cosine", min_ratio=0.1), UPDATES)
        after = make_schedule(ScheduleConfig(peak=1e-3, warmup_steps=3, decay="cosine", min_ratio=0.1), 16)
        trace = load_updates(killed)["lr/policy"].tolist()
        assert trace == [before(update) for update in range(4)] + [after(update) for update in range(4, 16)]
        resumed = next(event for event in read_events(killed) if event["event"] == "run_resumed")
        assert (resumed["lr_before"]["policy"], resumed["lr"]["policy"]) == (before(4), after(4))
        assert resumed["changed"] == {"total_timesteps": [64 * UPDATES, 64 * 16]}
        assert f"lr/policy jumps: {before(4):.4g}, now {after(4):.4g}" in capsys.readouterr().out

    def test_restart_begins_again_at_update_0_of_the_rest(self, run: Path, tmp_path: Path) -> None:
        killed = cut_back(run, tmp_path / "killed", 2)
        assert resume(killed, "--resume-schedule", "restart", "--policy-lr", "5e-3") == 0
        policy = make_schedule(ScheduleConfig(peak=5e-3, warmup_steps=3, decay="cosine", min_ratio=0.1), UPDATES - 2)
        value = make_schedule(ScheduleConfig(peak=2e-3, warmup_steps=3, decay="cosine", min_ratio=0.1), UPDATES - 2)
        updates = load_updates(killed)
        assert updates["lr/policy"][2:].tolist() == [policy(update) for update in range(UPDATES - 2)]
        assert updates["lr/value"][2:].tolist() == [value(update) for update in range(UPDATES - 2)]

    @pytest.mark.parametrize("mode", ["extend", "restart"])
    def test_a_new_horizon_outlives_another_resume(self, run: Path, tmp_path: Path, mode: str) -> None:
        flags = ["--resume-schedule", mode, "--total-timesteps", str(64 * 12)]
        whole, killed = cut_back(run, tmp_path / "whole", 4), tmp_path / "killed"
        assert resume(whole, *flags) == 0
        shutil.copytree(whole, killed)
        for path in checkpoints_in(killed / "checkpoints"):
            if int(path.name[:8]) > 7 or path.name == "00000004":
                shutil.rmtree(path)
        assert resume(killed) == 0
        assert load_updates(killed)["lr/policy"].tolist() == load_updates(whole)["lr/policy"].tolist()
        assert differences(killed, whole) == []

    @pytest.mark.parametrize("mode", ["extend", "restart"])
    def test_with_nothing_left_to_do(self, run: Path, capsys: pytest.CaptureFixture[str], mode: str) -> None:
        before = files_in(run)
        assert resume(run, "--resume-schedule", mode, "--lr", "5e-4") == 2
        assert f"the run has done 512 of them, so there is nothing to {mode}; give more" in capsys.readouterr().err
        assert files_in(run) == before

    def test_less_than_what_is_done(self, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert resume(run, "--total-timesteps", "256") == 2
        assert "total_timesteps 256: the run has done 512 of them, so there is nothing to continue" in (
            capsys.readouterr().err
        )


class TestWhatMayChange:
    def test_every_difference_that_may_not_is_listed(self, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        before = (run / "events.jsonl").read_bytes()
        assert resume(run, "--lr", "5e-3", "--gamma", "0.9", "--seed", "7", "--threads", "2") == 2
        err = capsys.readouterr().err
        for line in (
            "gamma: 0.99, now 0.9",
            "seed: 1, now 7",
            "policy_lr: 0.001, now 0.005",
            "value_lr: 0.002, now 0.005",
        ):
            assert f"\n  {line}\n" in err
        assert "threads" not in err
        assert "schedules may change with --resume-schedule extend or restart" in err
        assert (run / "events.jsonl").read_bytes() == before

    @pytest.mark.parametrize("mode", ["extend", "restart"])
    def test_what_is_no_schedule_may_not_change_in_any_mode(
        self, run: Path, capsys: pytest.CaptureFixture[str], mode: str
    ) -> None:
        assert resume(run, "--resume-schedule", mode, "--gae-lambda", "0.5", "--lr", "1") == 2
        err = capsys.readouterr().err
        assert "gae_lambda: 0.95, now 0.5" in err
        assert "policy_lr" not in err

    def test_settings_that_are_the_same_may_be_given(self, run: Path, tmp_path: Path) -> None:
        killed = cut_back(run, tmp_path / "killed", 5)
        assert resume(killed, *COSINE, "--config", str(run / "config.json"), "--compile", "off") == 0
        assert differences(killed, run) == []

    @pytest.mark.parametrize(("mode", "status"), [("continue", 2), ("extend", 0)])
    def test_the_switch(
        self,
        run: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        mode: str,
        status: int,
    ) -> None:
        killed = cut_back(run, tmp_path / "killed", 5)
        monkeypatch.setenv("ESPER_LR_SCHEDULE", "off")
        assert resume(killed, "--resume-schedule", mode) == status
        if status:
            assert "ESPER_LR_SCHEDULE=off: the run was started with on" in capsys.readouterr().err
        else:
            assert set(load_updates(killed)["lr/policy"][5:].tolist()) == {1e-3}

    @pytest.mark.parametrize(("before", "now"), [("on", "off"), ("off", "on"), ("off", None)])
    def test_the_switch_names_the_command_that_changes_it_and_what_jumps(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        before: str,
        now: str | None,
    ) -> None:
        def switch(value: str | None) -> None:
            monkeypatch.delenv("ESPER_LR_SCHEDULE", raising=False)
            if value is not None:
                monkeypatch.setenv("ESPER_LR_SCHEDULE", value)

        switch(before)
        flags = ["--lr-decay", "linear", "--value-lr", "2e-3", "--checkpoint-every", "6"]
        folder = cut_back(train(tmp_path / "whole", *flags), tmp_path / "a run", 6)
        switch(now)
        assert resume(folder) == 2
        err = capsys.readouterr().err
        # Update 6 of 8: a quarter is left of 1e-3, and of 2e-3.
        linear, constant = ("0.00025", "0.0005"), ("0.001", "0.002")
        old, new = (linear, constant) if before == "on" else (constant, linear)
        assert "the rates of the next update, 6:" in err
        assert f"\n  lr/policy {old[0]}, now {new[0]}\n" in err
        assert f"\n  lr/value {old[1]}, now {new[1]}\n" in err
        as_it_was, changed = re.findall(r"ESPER_LR_SCHEDULE=.* esper ppo .*", err)
        assert shlex.split(as_it_was) == [f"ESPER_LR_SCHEDULE={before}", "esper", "ppo", "--resume", str(folder)]
        for command, rate in ((changed, new[0]), (as_it_was, old[0])):
            copy = tmp_path / f"copy {rate}"
            shutil.copytree(folder, copy)
            assignment, _, *arguments = shlex.split(command.replace(str(folder), str(copy)))
            switch(assignment.partition("=")[2])
            assert main([*arguments, "--quiet", "--no-picture"]) == 0
            assert load_updates(copy)["lr/policy"][6] == pytest.approx(float(rate))

    def test_the_switch_names_the_checkpoint_where_the_run_has_a_newer_one(
        self, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("ESPER_LR_SCHEDULE", "off")
        checkpoint = run / "checkpoints" / "00000003"
        assert resume(checkpoint, "--run-dir", str(tmp_path / "other")) == 2
        assert f"--resume {checkpoint} --resume-schedule extend\n" in capsys.readouterr().err
        assert not (tmp_path / "other").exists()

    def test_an_error_of_the_schedule_names_the_flag_that_was_typed(
        self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        killed = cut_back(run, tmp_path / "killed", 5)
        # It fits into the run's 8 updates, but not into the 3 that are left.
        assert resume(killed, "--resume-schedule", "restart", "--lr-warmup-steps", "4") == 2
        assert "error: --lr-warmup-steps 4: warmup (4 updates)" in capsys.readouterr().err

    def test_one_that_was_typed_when_the_run_began_is_named_as_it_was(
        self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        killed = cut_back(run, tmp_path / "killed", 5)
        assert resume(killed, "--resume-schedule", "restart") == 2
        assert "checkpoints/00000005: lr_warmup_steps = 3: warmup (3 updates)" in capsys.readouterr().err


class TestWhereFrom:
    def test_a_broken_checkpoint_gives_way_to_the_one_before_it(
        self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        killed = cut_back(run, tmp_path / "killed", 5)
        (killed / "checkpoints" / "00000005" / "state.json").write_text("{}")
        assert main(["ppo", "--resume", str(killed)]) == 0
        out = capsys.readouterr().out
        assert "broken, and set aside: " in out
        assert "00000005/state.json: does not have its original size and checksum" in out
        assert "00000004, after 256 env steps" in out
        assert (killed / "checkpoints" / "00000005.broken").is_dir()
        assert differences(killed, run) == []

    def test_so_does_a_file_by_the_name_of_a_checkpoint(
        self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        killed = cut_back(run, tmp_path / "killed", 7)
        (killed / "checkpoints" / "00000099").write_text("a note")
        assert main(["ppo", "--resume", str(killed)]) == 0
        assert "broken, and set aside: " in capsys.readouterr().out
        assert (killed / "checkpoints" / "00000099.broken").read_text() == "a note"
        assert differences(killed, run) == []

    @pytest.mark.parametrize("what", ["structure", "settings", "schema", "link", "pipe", "environment"])
    def test_one_that_is_whole_but_cannot_be_read_stops_the_resume(
        self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
    ) -> None:
        """It may hold what the one before it does not; so nothing is renamed, written or dropped."""
        killed = cut_back(run, tmp_path / "killed", 5)
        newest = killed / "checkpoints" / "00000005"
        match what:
            case "structure":
                tamper(newest, lambda state: state["training"].pop("collector"))
            case "settings":
                tamper(newest, lambda state: state["config"].update(gama=7))
            case "environment":
                tamper(newest, lambda state: state["training"].update(environment={}))
            case "schema":
                manifest = json.loads((newest / "manifest.json").read_text())
                (newest / "manifest.json").write_text(json.dumps(manifest | {"schema": 99}))
            case _:
                (newest / "state.json").unlink()
                if what == "pipe":
                    os.mkfifo(newest / "state.json")
                else:
                    (newest / "state.json").symlink_to(run / "checkpoints" / "00000005" / "state.json")
        before = files_in(killed)
        assert resume(killed) == 2
        message = {
            "structure": "00000005: training lacks collector",
            "settings": "00000005: gama = 7: is no setting",
            "schema": "00000005/manifest.json: schema 99 is newer than the 2 that this version reads; upgrade",
            "link": "00000005/state.json: is a link",
            "pipe": "00000005/state.json: not a file",
            "environment": "00000005: 'resetting'",
        }[what]
        err = capsys.readouterr().err
        assert message in err
        assert err.count("\n") == 1
        assert files_in(killed) == before

    def test_none_is_whole(self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        killed = cut_back(run, tmp_path / "killed", 1)
        for path in checkpoints_in(killed / "checkpoints"):
            (path / "state.json").unlink()
        assert resume(killed) == 2
        err = capsys.readouterr().err
        assert "none of its checkpoints is complete" in err
        assert "00000001/state.json" in err
        assert "00000000/state.json" in err

    def test_naming_a_broken_one_is_an_error(
        self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        killed = cut_back(run, tmp_path / "killed", 5)
        (killed / "checkpoints" / "00000005" / "state.json").write_text("{}")
        before = (killed / "events.jsonl").read_bytes()
        assert resume(killed / "checkpoints" / "00000005") == 2
        assert "00000005/state.json: does not have its original size and checksum" in capsys.readouterr().err
        assert (killed / "events.jsonl").read_bytes() == before

    def test_the_newest_checkpoint_by_its_name(self, run: Path, tmp_path: Path) -> None:
        killed = cut_back(run, tmp_path / "killed", 5)
        assert resume(killed / "checkpoints" / "00000005") == 0
        assert differences(killed, run) == []

    def test_an_older_one_needs_another_folder(
        self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
        older = run / "checkpoints" / "00000003"
        assert resume(older) == 2
        assert "00000008 is newer, and would be overwritten; resume in another folder with --run-dir" in (
            capsys.readouterr().err
        )
        assert resume(older, "--run-dir", str(tmp_path / "fork")) == 0
        assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
        events = [event["event"] for event in read_events(tmp_path / "fork")]
        assert events[:2] == ["run_started", "run_resumed"]
        assert load_updates(tmp_path / "fork")["update"].tolist() == list(range(3, UPDATES))
        assert differences_of_state(tmp_path / "fork", run) == []

    def test_a_checkpoint_without_its_run(self, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        shutil.copytree(run / "checkpoints" / "00000006", tmp_path / "mine")
        monkeypatch.chdir(tmp_path)
        assert resume(tmp_path / "mine") == 0
        (fork,) = (tmp_path / "runs" / "CartPole-v1").iterdir()
        assert differences_of_state(fork, run) == []

    @pytest.mark.parametrize("name", ["nowhere", "empty", "file", "checkpoints/00000001"])
    def test_nothing_there(self, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
        (tmp_path / "empty").mkdir()
        (tmp_path / "file").touch()
        assert resume(tmp_path / name) == 2
        err = capsys.readouterr().err
        assert str(tmp_path / name) in err
        assert err.count("\n") == 1

    def test_a_record_that_is_not_the_checkpoints(
        self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        killed = cut_back(run, tmp_path / "killed", 5)
        (killed / "events.jsonl").write_text("{}\n")
        assert resume(killed, "--checkpoint-every", "7") == 2
        assert (killed / "config.json").read_text() == (run / "config.json").read_text()
        err = capsys.readouterr().err
        assert "events.jsonl: has 3 bytes, and no line that ends at byte" in err
        assert err.endswith("resume in another folder with --run-dir\n")
        assert (killed / "events.jsonl").read_text() == "{}\n"

    def test_a_link_out_of_the_run(self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        killed = cut_back(run, tmp_path / "killed", 0)
        shutil.rmtree(killed / "checkpoints" / "00000000")
        (killed / "checkpoints" / "00000004").symlink_to(run / "checkpoints" / "00000004")
        assert resume(killed) == 2
        assert "00000004: is a link" in capsys.readouterr().err


def files_in(folder: Path) -> dict[str, bytes | None]:
    """Every file below `folder`, and what is in it."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if path.name != ".lock"
    }


def differences_of_state(run_dir: Path, other: Path) -> list[str]:
    return [name for name in differences(run_dir, other) if name not in ("events", "config/run_dir")]


def tamper(checkpoint: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what is in a checkpoint, and sign it again."""
    state = load_checkpoint(checkpoint)
    change(state)
    shutil.rmtree(checkpoint)
    save_checkpoint(checkpoint, state)


def _put(*path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(state: dict[str, Any]) -> None:
        for name in path[:-1]:
            state = state[name]
        state[path[-1]] = value(state[path[-1]]) if callable(value) else value

    return change


AGENT = ("training", "agent")
WEIGHT = (*AGENT, "network", "actor.0.weight")
TAMPERED: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "missing": (lambda s: s.pop("training"), "state lacks training"),
    "extra": (lambda s: s.update(more=1), "state has the unknown more"),
    "shape": (_put(*WEIGHT, value=lambda w: w[:, :2].clone()), r"actor.0.weight has shape [8, 2], not [8, 4]"),
    "dtype": (_put(*WEIGHT, value=lambda w: w.double()), "has dtype torch.float64, not torch.float32"),
    "nan": (_put(*WEIGHT, value=lambda w: w * float("nan")), "actor.0.weight has values that are not finite"),
    "moments": (
        _put(*AGENT, "optimizer", "exp_avg_sq", "policy", value=lambda m: m / 0),
        "optimizer/exp_avg_sq/policy has values that are not finite",
    ),
    "clock": (_put(*AGENT, "train_steps", value=4), "a rate would jump"),
    "rate": (_put("schedule", "next", "policy_lr", value=0.5), "a rate would jump: next/policy_lr: 0.5, now 0.000"),
    "horizon": (_put("schedule", "updates", value=100), "a rate would jump"),
    "horizon type": (_put("schedule", "updates", value="8"), "spans '8' updates"),
    "counts": (_put("training", "episodes", value=-3), "do not fit together"),
    "undone": (_put("training", "undone", value=6), "do not fit together"),
    "generator": (_put(*AGENT, "generators", "actions", value=torch.zeros(3).byte()), "generator actions: "),
    "numpy generator": (_put(*AGENT, "ignored_rows", value={"bit_generator": "MT19937"}), "state must be for a PCG64"),
    "environment": (_put("training", "environment", value=[]), "training/environment must be a mapping or null"),
    "environment's inside": (_put("training", "environment", "copies", value={}), "state of 0 layers"),
    "position": (_put("events_bytes", value=-1), "events_bytes is -1, less than 0"),
    "setting": (_put("config", "gamma", value=7), "gamma = 7: must be at least 0 and at most 1"),
    "unknown setting": (lambda s: s["config"].update(gama=7), "gama = 7: is no setting; did you mean 'gamma'"),
    "no settings": (_put("config", value=3), "must be the settings of the run"),
}  # fmt: skip


@pytest.mark.parametrize("fault", list(TAMPERED))
def test_a_tampered_checkpoint_is_refused(
    fault: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, message = TAMPERED[fault]
    killed = cut_back(run, tmp_path / "killed", 5)
    checkpoint = killed / "checkpoints" / "00000005"
    tamper(checkpoint, change)
    assert resume(checkpoint) == 2
    err = capsys.readouterr().err
    assert str(checkpoint) in err
    assert message in err
    assert not (checkpoint.parent / "00000006").exists()


class TestRecord:
    """`events.jsonl` is read before anything is written."""

    @pytest.mark.parametrize(
        "damage",
        ["nul", "cut", "no event", "number", "text", "list", "null", "lacking", "evaluation", "start"],
    )
    def test_a_damaged_line_before_the_checkpoint_stops_the_resume(
        self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
    ) -> None:
        killed = cut_back(run, tmp_path / "killed", 5)
        lines = (killed / "events.jsonl").read_bytes().splitlines(keepends=True)
        size = len(lines[3])
        lines[3] = {
            "nul": b"\0" * (size - 1) + b"\n",
            "cut": lines[3][: size // 2].ljust(size - 1) + b"\n",
            "no event": b"{}".ljust(size - 1) + b"\n",
            "number": b'{"event":5}'.ljust(size - 1) + b"\n",
            "text": b'{"event":"update_completed","value_loss":"x"}'.ljust(size - 1) + b"\n",
            "list": b'{"event":"update_completed","entropy":[]}'.ljust(size - 1) + b"\n",
            "null": b'{"event":"update_completed","ratio_max":null}'.ljust(size - 1) + b"\n",
            "lacking": b'{"event":"update_completed"}'.ljust(size - 1) + b"\n",
            "evaluation": b'{"event":"evaluation_completed","eval_return_mean":1}'.ljust(size - 1) + b"\n",
            "start": b'{"event":"run_started"}'.ljust(size - 1) + b"\n",
        }[damage]
        (killed / "events.jsonl").write_bytes(b"".join(lines))
        before = files_in(killed)
        assert resume(killed, "--tensorboard") == 2
        err = capsys.readouterr().err
        assert re.search(r"events\.jsonl: line 4( is n|: )", err)
        assert err.endswith("resume in another folder with --run-dir\n")
        assert err.count("\n") == 1
        assert files_in(killed) == before
        assert resume(killed, "--run-dir", str(tmp_path / "new")) == 0
        assert differences_of_state(tmp_path / "new", run) == []

    def test_a_record_that_is_gone(self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        killed = cut_back(run, tmp_path / "killed", 5)
        (killed / "events.jsonl").unlink()
        before = files_in(killed)
        assert resume(killed) == 2
        assert "events.jsonl: No such file or directory; resume in another folder" in capsys.readouterr().err
        assert files_in(killed) == before


class TestWhatIsShownGoesOn:
    def test_telemetry_and_sinks_are_those_of_the_run(self, tmp_path: Path) -> None:
        flags = ("--telemetry", "debug", "--snapshot-every", "2", "--checkpoint-every", "1")
        whole = train(tmp_path / "whole", *flags, updates=5)
        killed = cut_back(whole, tmp_path / "killed", 2)
        assert main(["ppo", "--resume", str(killed), "--quiet"]) == 0
        names = [event["event"] for event in read_events(killed)]
        assert names.count("debug_snapshot") == 5
        assert names.count("analytics_snapshot") == 2
        assert not (killed / "tensorboard").exists()
        assert not (killed / "training.png").exists()

    def test_and_may_be_changed(self, tmp_path: Path) -> None:
        killed = cut_back(train(tmp_path / "whole", "--checkpoint-every", "1", updates=4), tmp_path / "killed", 2)
        assert main(["ppo", "--resume", str(killed), "--quiet", "--tensorboard", "--telemetry", "minimal"]) == 0
        assert (killed / "tensorboard").is_dir()
        resumed = next(event for event in read_events(killed) if event["event"] == "run_resumed")
        assert resumed["changed"] == {"telemetry": ["normal", "minimal"], "tensorboard": [False, True]}


class TestPastTheHorizon:
    @pytest.mark.parametrize("number", [3, UPDATES])
    def test_is_said_with_the_rates_and_the_way_out(
        self, run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, number: int
    ) -> None:
        killed = cut_back(run, tmp_path / "killed", number)
        assert resume(killed, "--total-timesteps", str(64 * (UPDATES + 2))) == 0
        (message,) = [record.getMessage() for record in caplog.records]
        assert message.startswith(f"the schedules end with update {UPDATES - 1} of the {UPDATES + 2} updates; after ")
        assert "after that: policy_lr 0.0001, value_lr 0.0002; --resume-schedule extend " in message

    def test_what_goes_on_to_fall_is_said_as_it_falls(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        flags = ("--lr-decay", "step", "--lr-step-size", "2", "--lr-gamma", "0.5", "--clip-coef-decay", "linear")
        whole = train(tmp_path / "whole", *flags, updates=3)
        assert resume(whole, "--total-timesteps", str(64 * 6)) == 0
        (message,) = [record.getMessage() for record in caplog.records if "schedules end" in record.getMessage()]
        # Drops at 2, 4: 1e-3 / 2 at update 3, 1e-3 / 4 at update 5.
        assert "policy_lr 0.0005 to 0.00025, value_lr 0.0005 to 0.00025, clip_coef 0;" in message
        rates = load_updates(whole)["lr/policy"]
        assert rates[[3, 5]].tolist() == [0.0005, 0.00025]

    @pytest.mark.parametrize("flags", [("--resume-schedule", "extend"), ("--resume-schedule", "restart"), ()])
    def test_is_not_said_where_it_does_not_happen(
        self, run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, flags: tuple[str, ...]
    ) -> None:
        killed = cut_back(run, tmp_path / "killed", 3)
        more = ("--total-timesteps", str(64 * (UPDATES + 2))) if flags else ()
        assert resume(killed, *flags, *more) == 0
        assert caplog.records == []

    def test_nor_of_constant_rates(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        whole = train(tmp_path / "whole", updates=2)
        assert resume(whole, "--total-timesteps", str(64 * 3)) == 0
        assert caplog.records == []


SHARED = np.arange(3.0)


class Odd(gymnasium.Env[Any, Any]):
    """Episodes of 5 steps; its state holds what `held` says beside the step."""

    observation_space = gymnasium.spaces.Box(0, 9, (1,))
    action_space = gymnasium.spaces.Discrete(2)
    held: Any = None

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.steps = np.int64(0)
        self.array = np.zeros(3)
        return np.zeros(1, dtype=np.float32), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        self.array += 1
        return np.array([self.steps], dtype=np.float32), float(self.array[0]), bool(self.steps == 5), False, {}

    def state_dict(self) -> Any:
        # The array itself: it changes while the checkpoint is being written.
        return {"steps": self.steps, "array": self.array, "held": self.held}

    def load_state_dict(self, state: Any) -> None:
        if state["held"] == "refuse":
            raise KeyError("not mine")
        assert type(state["held"]) is type(self.held)
        assert type(state["steps"]) is np.int64
        self.steps, self.array = state["steps"], state["array"]


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> type[Odd]:
    monkeypatch.setattr(gymnasium.envs.registration, "registry", dict(gymnasium.registry))
    monkeypatch.setattr(Odd, "held", None)
    gymnasium.register("Odd-v0", entry_point=cast(Any, Odd))
    return Odd


class TestStatesOfEnvironments:
    @pytest.mark.parametrize(
        "held",
        [
            *(np.int64(3), float("inf"), float("nan"), np.float32(0.5), np.bool_(True), "text"),
            *({"a": SHARED, "b": SHARED}, {"a": np.arange(3, dtype=">f4")}, {"a": np.arange(6.0)[::-2]}),
        ],
    )
    def test_scalars_come_back_as_what_they_were(self, odd: type[Odd], tmp_path: Path, held: Any) -> None:
        odd.held = held
        whole = train(tmp_path / "whole", "--env", "Odd-v0", "--checkpoint-every", "1", updates=3)
        killed = cut_back(whole, tmp_path / "killed", 1)
        assert resume(killed) == 0
        assert [name for name in differences(killed, whole) if not name.endswith("held") or held == held] == []

    @pytest.mark.parametrize("vector", ["sync", "async"])
    @pytest.mark.parametrize(
        ("held", "message"),
        [
            (object(), "the state_dict() of Odd-v0 cannot be stored: copies/0/env/1/held is <object object at"),
            ({1: 2}, "the state_dict() of Odd-v0 cannot be stored: copies/0/env/1/held/1 is no name"),
            (np.array(["x"]), "copies/0/env/1/held is an array of <U1; it must be of numbers or booleans"),
            (np.zeros(2, dtype=np.complex128), "copies/0/env/1/held is an array of complex128; it must be of numbers"),
            (torch.zeros(2, dtype=torch.bfloat16), "copies/0/env/1/held is a torch.strided tensor of torch.bfloat16"),
        ],
        ids=["object", "name", "dtype", "complex", "bfloat16"],
    )
    def test_what_cannot_be_stored_ends_the_run_by_name(
        self,
        odd: type[Odd],
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        held: Any,
        message: str,
        vector: str,
    ) -> None:
        odd.held = held
        run_dir = tmp_path / "run"
        flags = ("--env", "Odd-v0", "--vector", vector, "--total-timesteps", "128", "--run-dir", str(run_dir))
        with pytest.raises(SystemExit) as exit:
            main(["ppo", *SMALL, *flags])
        assert exit.value.code == 1
        err = capsys.readouterr().err
        assert message in err
        assert "Traceback" not in err
        assert list(read_events(run_dir))[-1]["status"] == "failed"

    @pytest.mark.filterwarnings("ignore")  # Gymnasium reports a worker's error as a warning too.
    @pytest.mark.parametrize("vector", ["sync", "async"])
    def test_one_that_does_not_go_on_is_named_and_nothing_is_lost(
        self, odd: type[Odd], tmp_path: Path, capsys: pytest.CaptureFixture[str], vector: str
    ) -> None:
        odd.held = "refuse"
        flags = ("--env", "Odd-v0", "--vector", vector, "--checkpoint-every", "1")
        killed = cut_back(train(tmp_path / "whole", *flags, updates=3), tmp_path / "killed", 2)
        before = files_in(killed)
        assert resume(killed) == 2
        err = capsys.readouterr().err
        assert re.search(r"00000002: environment \d cannot be restored: KeyError: 'not mine'", err)
        assert "--fresh-episodes begins new episodes" in err
        assert files_in(killed) == before
        assert resume(killed, "--fresh-episodes") == 0


def test_a_rollout_of_one_step_where_resetting_takes_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--vector", "native", "--lstm-size", "8", "--num-steps", "1", "--num-minibatches", "1")
    with pytest.raises(SystemExit) as exit:
        train(tmp_path / "run", *flags)
    assert exit.value.code == 2
    err = capsys.readouterr().err
    assert "--num-steps 1: must be at least 2 where environments use a step to reset" in err
    assert not (tmp_path / "run").exists()


class Greedy(gymnasium.Env[Any, Any]):
    observation_space = gymnasium.spaces.Box(0, 9, (1,))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self) -> None:
        raise MemoryError


def test_memory_that_is_not_there_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gymnasium.envs.registration, "registry", dict(gymnasium.registry))
    gymnasium.register("Greedy-v0", entry_point=cast(Any, Greedy))
    with pytest.raises(SystemExit) as exit:
        train(tmp_path / "run", "--env", "Greedy-v0")
    assert exit.value.code == 1
    err = capsys.readouterr().err
    assert err.endswith("more memory than there is: MemoryError\n")
    assert err.count("\n") == 1


class TestEnvironmentsWithoutState:
    @pytest.mark.parametrize(
        ("package", "flags"), [("Box2D", ("--env", "LunarLander-v3")), ("envpool", ("--vector", "envpool"))]
    )
    def test_begin_fresh_episodes_and_say_so(
        self, package: str, flags: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        pytest.importorskip(package)
        whole = train(tmp_path / "run", *flags, "--checkpoint-every", "1", updates=3)
        killed = cut_back(whole, tmp_path / "killed", 1)
        capsys.readouterr()
        assert main(["ppo", "--resume", str(killed)]) == 0
        assert capsys.readouterr().out.count("the environments begin fresh episodes (seed ") == 1
        resumed = next(event for event in read_events(killed) if event["event"] == "run_resumed")
        assert resumed["exact_resume"] is False
        assert resumed["env_seed"] > 0
        assert load_checkpoint(killed / "checkpoints" / "00000002")["exact_resume"] is False
        assert load_updates(killed)["update"].tolist() == [0, 1, 2]
        again = cut_back(whole, tmp_path / "again", 1)
        assert resume(again) == 0
        assert differences(again, killed) == []

    def test_can_be_asked_for(self, run: Path, tmp_path: Path) -> None:
        killed = cut_back(run, tmp_path / "killed", 5)
        assert resume(killed, "--fresh-episodes") == 0
        resumed = next(event for event in read_events(killed) if event["event"] == "run_resumed")
        assert resumed["exact_resume"] is False
        assert "events" in differences(killed, run)


def test_another_name_for_a_phase_is_no_jump(run: Path, tmp_path: Path) -> None:
    killed = cut_back(run, tmp_path / "killed", 5)
    tamper(checkpoints_in(killed / "checkpoints")[0], _put("schedule", "next_phase", "policy_lr", value="falling"))
    assert resume(killed) == 0
    assert differences(killed, run) == []


class TestOneAtATime:
    def test_a_folder_in_use_is_refused_before_kernels_are_compiled(
        self, run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = open_run_folder(run)
        with monkeypatch.context() as patch:
            patch.delattr("esper.runs.run.PPOAgent")
            assert resume(run) == 2
        assert "is in use by another process that trains in it" in capsys.readouterr().err
        folder.close()
        assert resume(run) == 0

    def test_a_folder_that_cannot_be_locked(
        self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        killed = cut_back(run, tmp_path / "killed", 5)
        (killed / ".lock").unlink()
        (killed / ".lock").mkdir()
        assert resume(killed) == 2
        assert ".lock: not a file, but a folder" in capsys.readouterr().err


class TestModules:
    def test_a_checkpoint_cannot_import_a_module_by_itself(
        self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        killed = cut_back(run, tmp_path / "killed", 5)
        for path in checkpoints_in(killed / "checkpoints"):
            tamper(path, lambda state: state["config"].update(env="some_module:CartPole-v1"))
        assert resume(killed) == 2
        assert "imports 'some_module'; if that is right, add --env some_module:CartPole-v1" in capsys.readouterr().err
        assert resume(killed, "--env", "some_module:CartPole-v1") == 2
        assert "some_module cannot be imported: No module named 'some_module'" in capsys.readouterr().err

    def test_an_environment_of_a_module_goes_on_when_it_is_named(self, tmp_path: Path) -> None:
        env = ("--env", "gymnasium.envs.classic_control:CartPole-v1")
        whole = train(tmp_path / "whole", *env, "--checkpoint-every", "1", updates=2)
        killed = cut_back(whole, tmp_path / "killed", 1)
        assert resume(killed, *env) == 0
        assert differences(killed, whole) == []


class TestFlags:
    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (["--resume-schedule", "extend"], "--resume-schedule extend: needs --resume"),
            (["--fresh-episodes"], "--fresh-episodes: needs --resume"),
            (["--resume", "x", "--resume-schedule", "extnd"], "must be one of continue, extend, restart"),
            (["--resume", "x", "--preset", "none"], "error: --preset none: does not go with --resume"),
            (["--resume", "x", "--print-config"], "error: --print-config: does not go with --resume"),
            (["--checkpoint-every", "5s"], "--checkpoint-every 5s: must be updates, at least 1, or minutes"),
            (["--keep-checkpoints", "0"], "--keep-checkpoints 0: must be at least 1"),
            (["--max-minutes", "0"], "--max-minutes 0: must be greater than 0"),
        ],
    )
    def test_bad_ones(self, capsys: pytest.CaptureFixture[str], flags: list[str], message: str) -> None:
        with pytest.raises(SystemExit) as exit:
            main(["ppo", *flags])
        assert exit.value.code == 2
        assert message in capsys.readouterr().err


class TestInspect:
    def test_tells_what_is_in_it(self, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["checkpoint", "inspect", str(run / "checkpoints" / "00000005"), "--json"]) == 0
        facts = json.loads(capsys.readouterr().out)
        policy = make_schedule(ScheduleConfig(peak=1e-3, warmup_steps=3, decay="cosine", min_ratio=0.1), UPDATES)
        assert facts["schedules"]["policy_lr"]["next"] == policy(5)
        assert facts["schedules"]["policy_lr"]["phase"] == "decay"
        assert (facts["update"], facts["env_steps"], facts["env"]) == (5, 320, "CartPole-v1")
        # Actor: 4 * 8 + 8 + 8 * 2 + 2 = 58; critic: 4 * 8 + 8 + 8 + 1 = 49.
        assert facts["numbers"] == 107
        assert (facts["whole"], facts["exact_resume"]) == (True, True)

    def test_of_a_run_takes_the_newest_whole_one(
        self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        killed = cut_back(run, tmp_path / "killed", 5)
        (killed / "checkpoints" / "00000005" / "manifest.json").unlink()
        assert main(["checkpoint", "inspect", str(killed)]) == 0
        out = capsys.readouterr().out
        assert "00000004: complete\n" in out
        assert "broken       " in out

    def test_of_a_broken_one_is_an_error(self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        killed = cut_back(run, tmp_path / "killed", 5)
        checkpoint = killed / "checkpoints" / "00000005"
        (checkpoint / "state.json").write_text("{}")
        with pytest.raises(SystemExit) as exit:
            main(["checkpoint", "inspect", str(checkpoint)])
        assert exit.value.code == 2
        assert "broken: " in capsys.readouterr().err


def test_a_finished_run_can_be_found(run: Path) -> None:
    point = find_resume_point(run)
    assert point.checkpoint == run / "checkpoints" / "00000008"
    assert point.config.ppo.total_timesteps == 64 * UPDATES
