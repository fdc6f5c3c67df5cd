"""Functions as schedules in runs that go on: from the rates that are stored, or called again for a new horizon."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import differences
from test_resume import SMALL, cut_back, resume, train

from esper.analysis.runs import load_updates, read_events
from esper.runs.checkpoint.folder import checkpoints_in, load_checkpoint, save_checkpoint
from esper.runs.layers import Layer, resolve
from esper.runs.resume.point import ResumeError
from esper.runs.run import resume_run, run
from esper.scripts.train import main
from esper.settings.layers import SettingsError
from esper.storage.store import StoreError

MODULE = """
from pathlib import Path

def halves(total):
    with Path(__file__).with_name("calls").open("a") as file:
        file.write(f"{total}\\n")
    return lambda update: 8e-3 * 0.5 ** (4 * update // total)
"""
UPDATES = 8
HALVES = [8e-3, 8e-3, 4e-3, 4e-3, 2e-3, 2e-3, 1e-3, 1e-3]


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module `curves` on the path; what `halves` was called with since the last time this was asked for."""
    (tmp_path / "curves.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{':'.join(sys.path)}")

    def since() -> list[int]:
        path = tmp_path / "calls"
        found = [int(line) for line in path.read_text().split()] if path.exists() else []
        path.unlink(missing_ok=True)
        sys.modules.pop("curves", None)
        return found

    yield since
    sys.modules.pop("curves", None)


def rates(path: Path, group: str = "policy") -> list[float]:
    return list(load_updates(path)[f"lr/{group}"])


class TestImportPath:
    def test_is_called_once_for_a_run_and_not_at_all_to_go_on(self, tmp_path: Path, calls: Callable[[], Any]) -> None:
        whole = train(tmp_path / "whole", "--policy-lr-decay", "curves:halves", "--checkpoint-every", "1")
        assert calls() == [UPDATES]
        assert rates(whole) == HALVES
        assert set(load_updates(whole)["lr_phase/policy"]) == {"custom"}
        killed = cut_back(whole, tmp_path / "killed", 3)
        (tmp_path / "curves.py").unlink()
        assert resume(killed) == 0
        assert calls() == []
        assert rates(killed) == HALVES
        assert differences(killed, whole) == []

    def test_past_the_end_the_last_rate_stays(self, tmp_path: Path, calls: Callable[[], Any]) -> None:
        whole = train(tmp_path / "whole", "--lr-decay", "curves:halves")
        calls()
        assert resume(whole, "--total-timesteps", str(64 * (UPDATES + 2)), "--lr-decay", "curves:halves") == 0
        assert calls() == []
        assert rates(whole) == [*HALVES, 1e-3, 1e-3]

    @pytest.mark.parametrize(
        ("mode", "called", "expected"),
        [
            # 10 updates: 4 u // 10 is 2 from update 5 on, 3 from update 8 on.
            ("extend", 10, [2e-3, 2e-3, 2e-3, 1e-3, 1e-3]),
            ("restart", 5, [8e-3, 8e-3, 4e-3, 2e-3, 1e-3]),
        ],
    )
    def test_is_called_again_for_a_new_horizon_when_the_user_names_it(
        self,
        tmp_path: Path,
        calls: Callable[[], Any],
        capsys: pytest.CaptureFixture[str],
        mode: str,
        called: int,
        expected: list[float],
    ) -> None:
        whole = train(tmp_path / "whole", "--lr-decay", "curves:halves", "--checkpoint-every", "5")
        killed = cut_back(whole, tmp_path / "killed", 5)
        calls()
        flags = ("--resume-schedule", mode, "--total-timesteps", str(64 * 10))
        assert resume(killed, *flags) == 2
        assert "its policy_lr_decay imports 'curves'; if that is right, add --policy-lr-decay curves:halves or" in (
            capsys.readouterr().err
        )
        assert calls() == []
        assert resume(killed, *flags, "--lr-decay", "curves:halves") == 0
        assert calls()[-1] == called
        assert rates(killed) == [*HALVES[:5], *expected]
        # And on from there, with the table of the new horizon.
        again = cut_back(killed, tmp_path / "again", 5)
        (tmp_path / "curves.py").unlink()
        assert resume(again) == 0
        assert calls() == []
        assert rates(again) == rates(killed)

    def test_that_gives_way_to_a_shape_need_not_be_named(self, tmp_path: Path, calls: Callable[[], Any]) -> None:
        whole = train(tmp_path / "whole", "--lr-decay", "curves:halves")
        calls()
        shape = ("--lr", "8e-3", "--policy-lr-decay", "linear", "--value-lr-decay", "constant")
        longer = ("--resume-schedule", "restart", "--total-timesteps", str(64 * (UPDATES + 4)))
        assert resume(whole, *longer, *shape) == 0
        assert calls() == []
        assert rates(whole)[UPDATES:] == [8e-3, 6e-3, 4e-3, 2e-3]

    def test_trust_is_enough(self, tmp_path: Path, calls: Callable[[], Any]) -> None:
        whole = train(tmp_path / "whole", "--lr-decay", "curves:halves")
        calls()
        flags = ("--resume-schedule", "restart", "--total-timesteps", str(64 * 16))
        assert resume(whole, *flags, "--trust") == 0
        assert calls()[-1] == UPDATES
        assert rates(whole) == HALVES + HALVES

    def test_another_one_is_another_setting(
        self, tmp_path: Path, calls: Callable[[], Any], capsys: pytest.CaptureFixture[str]
    ) -> None:
        whole = train(tmp_path / "whole", "--lr-decay", "curves:halves")
        calls()
        assert resume(whole, "--total-timesteps", "1280", "--value-lr-decay", "curves:thirds") == 2
        err = capsys.readouterr().err
        assert "\n  value_lr_decay: curves:halves, now curves:thirds\n" in err
        assert "--resume-schedule extend or restart" in err
        assert calls() == []

    def test_a_run_that_has_no_checkpoint_yet_asks_for_it(
        self, tmp_path: Path, calls: Callable[[], Any], capsys: pytest.CaptureFixture[str]
    ) -> None:
        whole = train(tmp_path / "whole", "--lr-decay", "curves:halves")
        killed = tmp_path / "killed"
        killed.mkdir()
        (killed / "config.json").write_bytes((whole / "config.json").read_bytes())
        calls()
        assert resume(killed) == 2
        assert "its policy_lr_decay imports 'curves'" in capsys.readouterr().err
        assert calls() == []
        assert resume(killed, "--lr-decay", "curves:halves") == 0
        assert rates(killed) == HALVES

    def test_of_a_config_json_is_asked_for_and_named_by_the_command_that_is_printed(
        self, tmp_path: Path, calls: Callable[[], Any], capsys: pytest.CaptureFixture[str]
    ) -> None:
        flags = [flag for flag in SMALL if flag != "--quiet"]
        folder = ["--total-timesteps", "128", "--run-dir", str(tmp_path / "run")]
        assert main(["ppo", *flags, *folder, "--value-lr-decay", "curves:halves"]) == 0
        (printed,) = [line for line in capsys.readouterr().out.splitlines() if "config.json --seed 2" in line]
        command = printed.split()
        assert command[-2:] == ["--value-lr-decay", "curves:halves"]
        calls()
        with pytest.raises(SystemExit):
            main([*command[1:-2], "--run-dir", str(tmp_path / "other")])
        assert "config.json: its value_lr_decay imports 'curves'" in capsys.readouterr().err
        assert calls() == []
        assert main([*command[1:], "--run-dir", str(tmp_path / "other"), "--quiet"]) == 0
        assert rates(tmp_path / "other", "value") == rates(tmp_path / "run", "value")

    @pytest.mark.parametrize("tables", [None, {"policy_lr": torch.tensor([1.0, -1.0])}, {"policy_lr": 3}, {"x": 1}, []])
    def test_is_not_imported_for_a_checkpoint_that_hides_its_table(
        self, tmp_path: Path, calls: Callable[[], Any], capsys: pytest.CaptureFixture[str], tables: Any
    ) -> None:
        whole = train(tmp_path / "whole", "--policy-lr-decay", "curves:halves", updates=2)
        (newest, *_) = checkpoints_in(whole / "checkpoints")
        state = load_checkpoint(newest)
        del state["schedule"]["tables"]
        if tables is not None:
            state["schedule"]["tables"] = tables
        for path in checkpoints_in(whole / "checkpoints"):
            for file in path.iterdir():
                file.unlink()
            path.rmdir()
        save_checkpoint(newest, state)
        calls()
        assert resume(whole, "--total-timesteps", "256") == 2
        assert capsys.readouterr().err.count("\n") == 1
        assert calls() == []


def settings(folder: Path, total: int = UPDATES, **values: Any) -> Any:
    small = {"num_envs": 4, "num_steps": 16, "hidden_sizes": [8], "compile": "off", "quiet": True, "picture": False}
    given = {"tensorboard": False, "total_timesteps": 64 * total, "run_dir": str(folder), "checkpoint_every": "2"}
    return resolve([Layer(source="the test", values=small | given | values)]).config


def layer(**values: Any) -> list[Layer]:
    return [Layer(source="the test", values=values)]


class TestPython:
    """A function of Python, which no file can name."""

    def test_goes_on_in_another_process(self, tmp_path: Path) -> None:
        whole = run(settings(tmp_path / "whole", lr_decay=lambda update: 1e-3 / (1 + update))).run_dir
        killed = cut_back(whole, tmp_path / "killed", 4)
        command = [sys.executable, "-m", "esper.scripts.train", "ppo", "--resume", str(killed), "--quiet"]
        subprocess.run(command, check=True, timeout=300)
        assert rates(killed) == [1e-3 / (1 + update) for update in range(UPDATES)]
        assert differences(killed, whole) == []

    def test_is_custom_in_the_files_with_its_rates_and_the_path_that_it_has(self, tmp_path: Path) -> None:
        whole = run(settings(tmp_path / "whole", 3, policy_lr_decay=float, value_lr_decay=lambda update: 0.5)).run_dir
        config = json.loads((whole / "config.json").read_text())
        assert (config["policy_lr"], config["policy_lr_decay"], config["value_lr_decay"]) == (None, "custom", "custom")
        started = next(iter(read_events(whole)))
        assert started["config"]["policy_lr_decay"] == "custom"
        assert started["schedules"]["policy_lr"]["function"] == "builtins:float"
        assert started["schedules"]["value_lr"]["function"] is None
        stored = load_checkpoint(checkpoints_in(whole / "checkpoints")[0])["schedule"]
        assert {name: table.tolist() for name, table in stored["tables"].items()} == {
            "policy_lr": [0.0, 1.0, 2.0],
            "value_lr": [0.5, 0.5, 0.5],
        }

    @pytest.mark.parametrize("mode", ["extend", "restart"])
    def test_is_given_again_for_a_new_horizon(self, tmp_path: Path, mode: Any) -> None:
        whole = run(settings(tmp_path / "whole", 4, lr_decay=lambda update: 1e-3 / (1 + update))).run_dir
        longer = {"total_timesteps": 64 * 6, "quiet": True}
        with pytest.raises(SettingsError) as error:
            resume_run(whole, layer(**longer), mode=mode)
        assert "lr_decay = custom: stands for a function that was given in Python and is not stored; give it" in str(
            error.value
        )
        resume_run(whole, layer(**longer, lr_decay=lambda update: 1e-3 / (2 + update)), mode=mode)
        clock = {"extend": (4, 5), "restart": (0, 1)}[mode]
        assert rates(whole)[4:] == [1e-3 / (2 + update) for update in clock]

    def test_that_is_missing_is_named_by_the_path_that_it_had(self, tmp_path: Path) -> None:
        whole = run(settings(tmp_path / "whole", 2, policy_lr_decay=float, value_lr=1e-3)).run_dir
        longer = layer(total_timesteps=64 * 4, quiet=True)
        with pytest.raises(SettingsError, match=r"policy_lr_decay = custom: .*; give it again \(builtins:float\)"):
            resume_run(whole, longer, mode="extend")

    def test_given_again_to_continue_must_be_the_same(self, tmp_path: Path) -> None:
        whole = run(settings(tmp_path / "whole", 4, lr_decay=lambda update: 1e-3 / (1 + update))).run_dir
        killed = cut_back(whole, tmp_path / "killed", 2)
        with pytest.raises(ResumeError) as error:
            resume_run(killed, layer(lr_decay=lambda update: 1e-3 / (1 + update) if update < 3 else 0.0, quiet=True))
        assert "policy_lr_decay = custom: another function; for update 3 of its schedule 0.00025, now 0\n" in str(
            error.value
        )
        resume_run(killed, layer(lr_decay=lambda update: 1e-3 / (1 + update), quiet=True))
        assert differences(killed, whole) == []

    def test_gives_way_to_a_shape_with_a_new_horizon(self, tmp_path: Path) -> None:
        whole = run(settings(tmp_path / "whole", 4, lr_decay=lambda update: 1e-3)).run_dir
        resume_run(whole, layer(lr_decay="linear", lr=8e-3, total_timesteps=64 * 8, quiet=True), mode="restart")
        assert rates(whole)[4:] == [8e-3, 6e-3, 4e-3, 2e-3]

    def test_under_the_switch_the_base_rate_goes_on(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ESPER_LR_SCHEDULE", "off")
        whole = run(settings(tmp_path / "whole", 4, lr=2e-3, lr_decay=lambda update: 1e-3)).run_dir
        killed = cut_back(whole, tmp_path / "killed", 2)
        resume_run(killed, layer(quiet=True))
        assert rates(killed) == [2e-3] * 4
        monkeypatch.setenv("ESPER_LR_SCHEDULE", "on")
        with pytest.raises(ResumeError, match="the run was started with off"):
            resume_run(killed, layer(total_timesteps=64 * 8, quiet=True))

    def test_a_run_that_has_no_checkpoint_yet_says_what_it_lacks(self, tmp_path: Path) -> None:
        whole = run(settings(tmp_path / "whole", 2, lr_decay=lambda update: 1e-3)).run_dir
        killed = tmp_path / "killed"
        killed.mkdir()
        (killed / "config.json").write_bytes((whole / "config.json").read_bytes())
        with pytest.raises(
            StoreError, match=r"its policy_lr is a function from Python.*; .* call esper\.train as before"
        ):
            resume_run(killed, layer(quiet=True))

    def test_is_inspected_like_any_other(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        whole = run(settings(tmp_path / "whole", 2, lr_decay=lambda update: 1e-3)).run_dir
        assert main(["checkpoint", "inspect", str(whole)]) == 0
        assert "policy_lr    next 0.001, in custom, custom to 0.001" in capsys.readouterr().out
