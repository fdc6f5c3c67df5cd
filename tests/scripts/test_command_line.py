"""The commands as a user types them: what they print, where they write, how they fail."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from safetensors.torch import load_file

from esper import __version__
from esper.analysis.runs import load_updates, read_events, repeatable_events
from esper.runs.folder import open_run_folder
from esper.runs.layers import Layer, file_layer, resolve
from esper.runs.presets import load_presets, preset_values
from esper.schedules import ScheduleConfig, make_schedule
from esper.scripts.train import main

SMALL = [
    *("--preset", "none", "--lr", "1e-3", "--compile", "off"),
    *("--num-envs", "4", "--num-steps", "16", "--total-timesteps", "640"),
]
UPDATES = 10


def esper(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """Exit status, standard output, standard error."""
    try:
        status = main([str(argument) for argument in arguments])
    except SystemExit as exit:
        status = int(exit.code or 0)
    out, err = capsys.readouterr()
    return status, out, err


def train(run_dir: Path, *flags: str) -> Path:
    assert main(["ppo", *SMALL, "--quiet", "--run-dir", str(run_dir), *flags]) == 0
    return run_dir


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    return train(
        folder, "--lr-warmup-steps", "3", "--lr-decay", "cosine", "--value-lr", "2e-3", "--lr-min-ratio", "0.1"
    )


class TestRunFolder:
    def test_has_everything(self, run: Path) -> None:
        names = {path.name for path in run.iterdir()}
        assert names == {
            ".lock",
            "checkpoints",
            "config.json",
            "events.jsonl",
            "policy.json",
            "policy.safetensors",
            "tensorboard",
            "training.png",
        }
        assert (run / "training.png").read_bytes().startswith(b"\x89PNG")
        assert any((run / "tensorboard").iterdir())

    def test_events_tell_the_whole_story(self, run: Path) -> None:
        events = repeatable_events(run)
        names = ["run_started", *["update_completed"] * UPDATES, "analytics_snapshot", "run_finished"]
        assert [event["event"] for event in events] == names
        assert events[0]["lr_schedule_switch"] == "on"
        assert events[0]["schedules"]["policy_lr"]["warmup"] == 3
        assert [event["env_steps"] for event in events[1:-2]] == [64 * (u + 1) for u in range(UPDATES)]
        assert events[-1]["status"] == "completed"

    def test_learning_rates_in_the_record_equal_the_schedules(self, run: Path) -> None:
        shape = {"warmup_steps": 3, "decay": "cosine", "min_ratio": 0.1}
        updates = load_updates(run)
        for group, peak in (("policy", 1e-3), ("value", 2e-3)):
            schedule = make_schedule(ScheduleConfig(peak=peak, **shape), UPDATES)  # type: ignore[arg-type]
            assert updates[f"lr/{group}"].tolist() == [schedule(update) for update in range(UPDATES)]
            assert updates[f"lr_phase/{group}"].tolist() == [schedule.phase(update) for update in range(UPDATES)]

    def test_the_policy_has_the_modules_own_names(self, run: Path) -> None:
        assert set(load_file(run / "policy.safetensors")) == {
            f"{net}.{layer}.{kind}" for net in ("actor", "critic") for layer in (0, 2, 4) for kind in ("weight", "bias")
        }

    def test_the_recorded_config_gives_the_same_run_again(self, run: Path, tmp_path: Path) -> None:
        again = tmp_path / "again"
        given = ["--config", str(run / "config.json"), "--quiet"]
        assert main(["ppo", *given, "--run-dir", str(again)]) == 0
        assert (again / "config.json").read_text() == (run / "config.json").read_text()
        assert repeatable_events(again) == repeatable_events(run)
        assert (again / "policy.safetensors").read_bytes() == (run / "policy.safetensors").read_bytes()


class TestSwitch:
    def test_off_is_said_and_recorded(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ESPER_LR_SCHEDULE", "off")
        status, out, _ = esper(
            capsys, "ppo", *SMALL, "--no-picture", "--lr-decay", "linear", "--run-dir", tmp_path / "run"
        )
        assert status == 0
        assert out.count("ESPER_LR_SCHEDULE=off") == 1
        assert next(read_events(tmp_path / "run"))["lr_schedule_switch"] == "off"
        assert set(load_updates(tmp_path / "run")["lr/policy"]) == {1e-3}

    def test_a_wrong_value_is_an_error(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ESPER_LR_SCHEDULE", "no")
        status, _, err = esper(capsys, "ppo", *SMALL, "--run-dir", tmp_path / "run")
        assert status == 2
        assert err == "esper ppo: error: ESPER_LR_SCHEDULE=no: must be on or off\n"
        assert not (tmp_path / "run").exists()

    def test_off_holds_the_first_point_of_piecewise(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ESPER_LR_SCHEDULE", "off")
        points = ["--policy-lr-decay", "piecewise", "--policy-lr-points", "0:2e-3,5:1e-4"]
        assert esper(capsys, "ppo", *SMALL, "--no-picture", *points, "--run-dir", tmp_path / "run")[0] == 0
        updates = load_updates(tmp_path / "run")
        assert set(updates["lr/policy"]) == {2e-3}
        assert set(updates["lr/value"]) == {1e-3}

    def test_off_holds_the_base_rate_beside_a_function_and_is_an_error_without_one(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "falling_curve.py").write_text(
            "def falling(total):\n    return lambda update: 1.0 / (1 + update)\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setenv("ESPER_LR_SCHEDULE", "off")
        function = ["--policy-lr-decay", "falling_curve:falling"]
        run = ["--no-picture", "--run-dir", str(tmp_path / "run")]
        # SMALL has a base rate.
        assert esper(capsys, "ppo", *SMALL, *function, *run)[0] == 0
        assert set(load_updates(tmp_path / "run")["lr/policy"]) == {1e-3}
        without = [flag for flag in SMALL if flag not in ("--lr", "1e-3")]
        for command in ("ppo", "schedule"):
            status, _, err = esper(capsys, command, *without, *function)
            message = (
                "--policy-lr-decay falling_curve:falling: has no base rate beside it for ESPER_LR_SCHEDULE=off to hold"
            )
            assert (status, err) == (2, f"esper {command}: error: {message}\n")

    @pytest.mark.parametrize("value", ["off", "0", "OFF", ""])
    def test_esper_schedule_says_what_esper_ppo_says(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, value: str
    ) -> None:
        monkeypatch.setenv("ESPER_LR_SCHEDULE", value)
        flags = [*SMALL, "--lr-decay", "linear", "--no-picture", "--run-dir", str(tmp_path / "run")]
        trained, drawn = esper(capsys, "ppo", *flags), esper(capsys, "schedule", *flags)
        assert trained[0] == drawn[0] == (0 if value == "off" else 2)
        assert trained[2].replace("esper ppo", "esper schedule") == drawn[2]
        if value == "off":
            said = "ESPER_LR_SCHEDULE=off: learning rates stay at their base rates"
            assert trained[1].splitlines().count(said) == drawn[1].splitlines().count(said) == 1
            for name in ("policy ", "value  "):
                assert (
                    f"{name} constant, base 0.001: constant from update 0 at 0.001; last update 9 at 0.001" in drawn[1]
                )


MULTISTEP = ("--lr-decay", "multistep", "--lr-gamma", "0.5", "--lr-milestones")
# The last of SMALL's updates is 9.
BEYOND_END = [
    ([*MULTISTEP, "5,9"], []),
    (
        [*MULTISTEP, "5,10,12"],
        ["--lr-milestones 5,10,12: the drop at update 10 is not reached: the run ends with update 9"],
    ),
    # With the policy's delay its drop is at 3 + 7.
    (
        [*MULTISTEP, "7", "--policy-lr-delay", "3"],
        ["--lr-milestones 7: the drop at update 10 is not reached: the run ends with update 9"],
    ),
    (
        [*MULTISTEP, "5", "--value-lr-milestones", "50"],
        ["--value-lr-milestones 50: the drop at update 50 is not reached: the run ends with update 9"],
    ),
    (
        ["--lr-decay", "triangular", "--lr-cycles", "2", "--lr-min-ratio", "0.1", "--lr-decay-steps", "30"],
        [
            "--lr-cycles 2: the cycle from update 15 is not reached: the run ends with update 9",
            "--lr-decay-steps 30: the end of the decay at update 30 is not reached: the run ends with update 9",
        ],
    ),
    (
        ["--entropy-coef", "0.1", "--entropy-coef-decay", "linear", "--entropy-coef-decay-steps", "20"],
        ["--entropy-coef-decay-steps 20: the end of the decay at update 20 is not reached: the run ends with update 9"],
    ),
]


class TestBeyondTheEnd:
    @pytest.mark.parametrize(("flags", "expected"), BEYOND_END, ids=[" ".join(flags) for flags, _ in BEYOND_END])
    def test_is_said_once_by_both_commands(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], expected: list[str]
    ) -> None:
        for command in ("schedule", "ppo"):
            given: tuple[str | Path, ...] = (*SMALL, "--no-picture", *flags, "--run-dir", tmp_path / "run")
            status, out, err = esper(capsys, command, *given)
            assert (status, err) == (0, "")
            assert [line for line in out.splitlines() if "not reached" in line] == expected

    def test_is_said_of_a_trunk_that_stays_frozen(self, capsys: pytest.CaptureFixture[str]) -> None:
        flags = [*SMALL, "--shared-trunk", "--freeze-encoder"]
        notice = "\n--freeze-encoder 10: nothing that it freezes learns: the run ends with update 9\n"
        assert notice in esper(capsys, "schedule", *flags, "10")[1]
        assert "freezes" not in esper(capsys, "schedule", *flags, "9")[1]

    def test_names_the_file(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "mine.toml"
        path.write_text('lr_decay = "step"\nlr_gamma = 0.5\nlr_step_size = 10\n')
        out = esper(capsys, "schedule", *SMALL, "--config", path)[1]
        notice = "lr_step_size = 10: the first drop at update 10 is not reached: the run ends with update 9"
        assert f"\n{path}: {notice}\n" in out

    def test_is_not_said_of_schedules_that_are_off(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ESPER_LR_SCHEDULE", "off")
        assert "not reached" not in esper(capsys, "schedule", *SMALL, *MULTISTEP, "50")[1]


class TestOutput:
    def test_plain_lines_without_a_terminal(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        status, out, err = esper(capsys, "ppo", *SMALL, "--run-dir", tmp_path / "run")
        assert (status, err) == (0, "")
        first, *_ = out.splitlines()
        for name in ("update 1/10", "steps/s", "left", "lr/policy 0.001 constant", "approx_kl", "explained_variance"):
            assert name in first
        assert "update 10/10" in out
        assert f"esper evaluate {tmp_path / 'run'}" in out
        assert "\x1b" not in out

    def test_a_folder_with_brackets_in_its_name(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        folder = tmp_path / "run[bold]"
        assert f"esper evaluate '{folder}'\n" in esper(capsys, "ppo", *SMALL, "--no-picture", "--run-dir", folder)[1]

    def test_commands_can_be_pasted_where_the_path_has_spaces(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = tmp_path / "my runs" / "it's one"
        _, out, _ = esper(capsys, "ppo", *SMALL, "--no-picture", "--run-dir", folder)
        commands = [shlex.split(line[9:]) for line in out[out.index("next  ") :].splitlines()]
        assert commands == [
            ["esper", "evaluate", str(folder)],
            ["esper", "ppo", "--config", str(folder / "config.json"), "--seed", "2"],
            ["tensorboard", "--logdir", str(folder)],
        ]

    def test_quiet(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert esper(capsys, "ppo", *SMALL, "--quiet", "--run-dir", tmp_path / "run") == (0, "", "")

    def test_print_config_is_toml_with_the_origin_of_each_value(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "mine.toml").write_text('env = "Acrobot-v1"\ngamma = 0.5\n')
        config = ("--config", tmp_path / "mine.toml")
        status, out, _ = esper(capsys, "ppo", *config, "--value-lr", "2e-3", "--print-config")
        lines = out.splitlines()
        assert status == 0
        assert f"gamma = 0.5  # {tmp_path / 'mine.toml'}" in lines
        assert "value_lr = 0.002  # flag --value-lr" in lines
        assert any(line.startswith("policy_lr = ") and line.endswith("  # preset Acrobot-v1") for line in lines)
        assert "gae_lambda = 0.95  # default" in lines
        (tmp_path / "back.toml").write_text(out)
        again = esper(capsys, "ppo", "--config", tmp_path / "back.toml", "--preset", "none", "--print-config")[1]
        assert [line.split("  #")[0] for line in again.splitlines()] == [line.split("  #")[0] for line in lines]

    def test_print_config_says_that_the_base_rate_is_from_points(self, capsys: pytest.CaptureFixture[str]) -> None:
        points = ["--policy-lr-decay", "piecewise", "--policy-lr-points", "0:2e-3,5:1e-4"]
        out = esper(capsys, "ppo", "--preset", "none", *points, "--print-config")[1].splitlines()
        assert "policy_lr = 0.002  # flag --policy-lr-points" in out
        assert "value_lr = 0.0003  # default" in out

    def test_lengths_in_environment_steps_are_shown_in_updates(self, capsys: pytest.CaptureFixture[str]) -> None:
        flags = ["--preset", "none", "--lr-warmup-timesteps", "1e4", "--value-lr-decay", "linear"]
        flags += ["--value-lr-decay-timesteps", "600000", "--num-envs", "10", "--num-steps", "100"]
        out = esper(capsys, "ppo", *flags, "--print-config")[1].splitlines()
        assert "policy_lr_warmup_timesteps = 10000  # flag --lr-warmup-timesteps, 10 updates" in out
        assert "value_lr_decay_timesteps = 600000  # flag --value-lr-decay-timesteps, 600 updates" in out
        drawn = esper(capsys, "schedule", *flags)[1].splitlines()
        # Said once, though for both components.
        assert [line for line in drawn if line.startswith("--")] == [
            "--lr-warmup-timesteps 10000: 10 updates",
            "--value-lr-decay-timesteps 600000: 600 updates",
            "--value-lr-decay-timesteps 600000: the end of the decay at update 610 is not reached: the run ends with "
            "update 499",
        ]

    def test_help_is_grouped_and_knows_the_flags(self, capsys: pytest.CaptureFixture[str]) -> None:
        _, short, _ = esper(capsys, "ppo", "--help")
        _, full, _ = esper(capsys, "ppo", "--help-all")
        for text in ("learning rates:", "--lr-warmup-frac", "--policy-lr-delay", "--shared-lr", "environment:"):
            assert text in short
        assert "--value-lr-min-ratio" not in short
        for text in ("--value-lr-min-ratio", "--clip-coef-decay", "--entropy-coef-warmup-steps"):
            assert text in full


class TestPresets:
    def test_all_are_listed_with_what_is_special(self, capsys: pytest.CaptureFixture[str]) -> None:
        status, out, _ = esper(capsys, "presets")
        heading, *lines = out.splitlines()
        assert status == 0
        assert heading.split()[:3] == ["environment", "steps", "rate"]
        assert [line.split()[0] for line in lines] == list(load_presets())
        assert lines[2].split()[:3] == ["Pendulum-v1", "600,000", "0.0005"]
        assert "num_envs 16, num_steps 256, update_epochs 10" in lines[2]
        # Settings that are the default are not special: Acrobot's num_steps = 128.
        assert "num_steps" not in lines[1]

    @pytest.mark.parametrize("name", load_presets())
    def test_one_can_be_fed_back_and_gives_the_same_settings(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
    ) -> None:
        status, out, _ = esper(capsys, "presets", name)
        assert status == 0
        (tmp_path / "preset.toml").write_text(out)
        given = [Layer(source="preset", values=preset_values(name))]
        assert resolve([file_layer(tmp_path / "preset.toml")]).config == resolve(given).config

    def test_one_for_many_environments_is_shown_for_each_by_name(self, capsys: pytest.CaptureFixture[str]) -> None:
        pattern, pong = (esper(capsys, "presets", name)[1].splitlines() for name in ("ALE/*", "ALE/Pong-v5"))
        assert pong == ['env = "ALE/Pong-v5"', *pattern]

    def test_general_settings_are_said_when_they_are_taken(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        flags = ["--env", "CliffWalking-v1", "--num-envs", "2", "--num-steps", "8", "--total-timesteps", "16"]
        for preset in ("auto", "none"):
            status, out, err = esper(capsys, "ppo", *flags, "--preset", preset, "--run-dir", str(tmp_path / preset))
            said = "settings of preset one-hot" in out + err
            assert (status, said) == (0, preset == "auto")

    def test_an_unknown_one(self, capsys: pytest.CaptureFixture[str]) -> None:
        status, out, err = esper(capsys, "presets", "Cartpole")
        assert (status, out) == (2, "")
        assert "Cartpole: must be one of CartPole-v1, Acrobot-v1" in err
        assert "did you mean 'CartPole-v1'" in err


class TestSchedule:
    def test_draws_in_the_terminal_and_into_a_picture(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        flags = ["--lr-warmup-steps", "5", "--lr-decay", "wsd", "--lr-decay-frac", "0.2", "--value-lr", "2e-3"]
        picture = tmp_path / "curve.png"
        size = ["--lr", "1e-3", "--total-timesteps", "102400"]
        status, out, _ = esper(capsys, "schedule", *size, *flags, "--output", picture)
        assert status == 0
        assert "100 updates of 8 x 128 steps" in out
        # 100 updates: warmup 0..4, the decline is the last ceil(0.2 * 100) = 20.
        expected = "warmup from update 0 at 0.0001667, stable from update 5 at 0.001, decay from update 80 at 0.001"
        assert f"policy  wsd, base 0.001: {expected}" in out
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert "\x1b" not in out

    def test_a_run_of_any_length(self, capsys: pytest.CaptureFixture[str]) -> None:
        size = ["--preset", "none", "--num-envs", "8", "--num-steps", "128", "--total-timesteps", "10_000_000_000"]
        flags = [
            "--lr",
            "1e-3",
            "--policy-lr-decay",
            "wsd",
            "--policy-lr-decay-frac",
            "0.2",
            "--lr-warmup-frac",
            "0.05",
        ]
        began = time.process_time()
        out = esper(capsys, "schedule", *size, *flags)[1]
        assert time.process_time() - began < 5
        # 9,765,625 updates: warmup of ceil(488,281.25), decay of 1,953,125.
        parts = "stable from update 488282 at 0.001, decay from update 7812500 at 0.001; last update 9765624"
        assert parts in out
        # Without colours each curve has marks of its own, and the key is below the picture.
        assert "⠒ policy   x value" in out
        assert sum(line.count("x") for line in out.splitlines()[:16]) > 3

    @pytest.mark.parametrize(
        ("flags", "says", "last"),
        [
            ((), "the rate of policy", "0.0001"),
            (("--shared-lr", "min"), "the lower rate of policy and value", "5e-05"),
            (("--shared-lr", "value", "--freeze-encoder", "3"), "0 before update 3, then the rate of value", "5e-05"),
        ],
    )
    def test_shows_the_rate_of_a_shared_trunk(
        self, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], says: str, last: str
    ) -> None:
        rates = ("--policy-lr", "1e-4", "--value-lr", "5e-4", "--value-lr-decay", "linear")
        out = esper(capsys, "schedule", *SMALL, *rates, "--shared-trunk", *flags)[1].splitlines()
        # The last of 10 updates has 1/10 of the linear rate.
        assert f"shared  {says}; last update 9 at {last}" in out
        assert any("shared" in line for line in out if line.startswith("⠒"))

    def test_of_one_update(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        size = ["--num-envs", "2", "--num-steps", "8", "--total-timesteps", "16"]
        assert "\n1 update of 2 x 8 steps\n" in esper(capsys, "schedule", *size, "--output", tmp_path / "one.png")[1]
        from matplotlib.image import imread

        # The lines are one update wide, and not a mark: coloured pixels in most columns.
        picture = imread(tmp_path / "one.png")[..., :3]
        assert (np.ptp(picture, axis=2) > 0.3).any(axis=0).sum() > picture.shape[1] / 2

    def test_draws_a_function(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "straight.py").write_text("def falling(total):\n    return lambda update: 1 - 0.25 * update\n")
        monkeypatch.syspath_prepend(tmp_path)
        flags = ["--preset", "none", "--lr-decay", "straight:falling", "--num-envs", "1", "--num-steps", "100"]
        picture = tmp_path / "curve.png"
        status, out, _ = esper(capsys, "schedule", *flags, "--total-timesteps", "400", "--output", picture)
        assert status == 0
        for name in ("policy ", "value  "):
            assert f"{name} straight:falling: custom from update 0 at 1; last update 3 at 0.25" in out
        assert picture.read_bytes().startswith(b"\x89PNG")
        # One update more than the function is good for.
        for command in ("schedule", "ppo"):
            status, _, err = esper(capsys, command, *flags, "--total-timesteps", "600")
            allowed = "gives -0.25 for update 5; a rate must be a number, finite and at least 0"
            assert (status, err) == (2, f"esper {command}: error: --lr-decay straight:falling: {allowed}\n")


WRONG = [
    (["--lr-warmup-steps", "3", "--lr-decay", "a:b"], "--lr-warmup-steps 3: decay 'a:b' has no warmup"),
    (["--policy-lr-delay", "3", "--lr-decay", "a:b"], "--policy-lr-delay 3: decay 'a:b' has no delay"),
    (["--lr-min-ratio", "0.1", "--value-lr-decay", "a:b"], "--lr-min-ratio 0.1: decay 'constant' does not use it"),
    (["--value-lr-power", "2", "--value-lr-decay", "a:b"], "--value-lr-power 2: decay 'a:b' does not use it"),
    (["--lr-decay", "no_such_module:b"], "--lr-decay no_such_module:b: cannot be loaded: No module named 'no_such"),
    (["--lr-decay", "custom"], "--lr-decay custom: stands for a function that was given in Python"),
    (["--lr-decay", "trangular"], "or module:function; did you mean 'triangular'?"),
    (["--lr-decay", "triangular"], "--lr-min-ratio: decay 'triangular' needs it"),
    (["--lr-warmup-timesteps", "9", "--lr-warmup-frac", "0.1"], "--lr-warmup-timesteps 9: give warmup_frac or warmup"),
    (["--value-lr-warmup-timesteps", "1e9"], "--value-lr-warmup-timesteps 1000000000: warmup (976563 updates)"),
    (["--lr-decay-timesteps", "9"], "--lr-decay-timesteps 9: decay 'constant' does not use it"),
]


@pytest.mark.parametrize(("flags", "message"), WRONG, ids=[" ".join(flags) for flags, _ in WRONG])
def test_an_error_of_a_schedule_names_the_flag_that_was_typed(
    capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    for command in ("schedule", "ppo"):
        status, _, err = esper(capsys, command, "--preset", "none", *flags)
        assert status == 2
        assert err.startswith(f"esper {command}: error: --")
        assert message in err


class TestEvaluate:
    def test_json_is_one_object_and_nothing_else(self, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        status, out, _ = esper(capsys, "evaluate", run, "--episodes", "3", "--json")
        result = json.loads(out)
        assert status == 0
        assert list(result) == ["mean", "std", "iqm", "episodes"]
        assert result["episodes"] == 3
        assert out.count("\n") == 1

    def test_the_seed_decides(self, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        outputs = [esper(capsys, "evaluate", run, "--seed", seed, "--json")[1] for seed in ("1", "1", "2")]
        assert outputs[0] == outputs[1] != outputs[2]

    def test_records_an_episode(self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        gif = tmp_path / "episode.gif"
        assert esper(capsys, "evaluate", run, "--episodes", "1", "--record", gif)[0] == 0
        assert gif.read_bytes().startswith(b"GIF89a")

    def test_what_cannot_be_drawn_still_has_its_score(
        self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def no_display(self: object) -> None:
            raise RuntimeError("no OpenGL")

        monkeypatch.setattr("gymnasium.vector.SyncVectorEnv.render", no_display)
        status, out, err = esper(capsys, "evaluate", run, "--episodes", "1", "--json", "--record", tmp_path / "a.gif")
        assert status == 2
        assert json.loads(out)["episodes"] == 1
        assert err.endswith("cannot be drawn here: RuntimeError: no OpenGL\n")
        assert not (tmp_path / "a.gif").exists()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["nowhere"], "nowhere: No such file"),
            (["{run}", "--episodes", "0"], "--episodes 0: must be at least 1"),
            (["{run}", "--episodes", "x"], "--episodes x: must be a whole number"),
            (["{run}", "--record", "a.avi"], "--record a.avi: must end in .gif or .mp4"),
            (["{run}", "--episode", "3"], "unknown argument --episode; did you mean '--episodes'"),
        ],
    )
    def test_bad_input(self, run: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
        status, out, err = esper(capsys, "evaluate", *(text.format(run=run) for text in arguments))
        assert (status, out) == (2, "")
        assert message in err

    def test_a_broken_policy(self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for name in ("policy.json", "policy.safetensors"):
            (tmp_path / name).write_bytes((run / name).read_bytes())
        (tmp_path / "policy.safetensors").write_bytes((run / "policy.safetensors").read_bytes()[:-8])
        status, _, err = esper(capsys, "evaluate", tmp_path)
        assert status == 2
        assert "policy.safetensors: not a complete safetensors file" in err
        (tmp_path / "policy.safetensors").write_bytes((run / "policy.safetensors").read_bytes())
        metadata = json.loads((run / "policy.json").read_text())
        (tmp_path / "policy.json").write_text(json.dumps(metadata | {"format": 99}))
        assert "format 99 is not the 2" in esper(capsys, "evaluate", tmp_path)[2]


BAD = [
    (["--env", "CartPoll-v1"], "--env CartPoll-v1: is no Gymnasium environment here; did you mean 'CartPole-v1'"),
    (["--num-envs", "0"], "--num-envs 0: must be at least 1"),
    (["--num-minibatches", "7"], "--num-minibatches 7: must divide num_envs * num_steps = 4 * 16 = 64"),
    (["--lr", "-1"], "--lr -1: must be finite and greater than 0"),
    (["--lr", "nan"], "--lr nan: must be finite"),
    (["--lr-warmup-frac", "1.2"], "--lr-warmup-frac 1.2: must be at least 0 and less than 1"),
    (["--lr-warmup-steps", "10"], "--lr-warmup-steps 10: warmup (10 updates)"),
    (["--lr-warmup-steps", "1", "--lr-warmup-frac", "0.1"], "give warmup_steps or warmup_frac, not both"),
    (["--lr-decay", "cosin"], "--lr-decay cosin: must be one of constant, linear"),
    (["--lr-decay", "step"], "error: --lr-step-size: decay 'step' needs it"),
    (["--policy-lr-decay", "step"], "error: --policy-lr-step-size: decay 'step' needs it"),
    (["--value-lr-decay", "wsd"], "error: --value-lr-decay-frac: decay 'wsd' needs it"),
    (["--clip-coef-decay", "multistep"], "error: --clip-coef-gamma: decay 'multistep' needs it"),
    (["--lr-decay", "piecewise"], "error: --lr-points: decay 'piecewise' needs it"),
    (["--lr-decay", "step", "--value-lr-decay", "step", "--value-lr-step-size", "3"], "error: --lr-step-size: decay"),
    # SMALL has --lr 1e-3.
    (["--lr-decay", "piecewise", "--lr-points", "0:5e-4,5:0"], "--lr 0.001: decay 'piecewise' has its rates in points"),
    (
        [*("--policy-lr-decay", "piecewise", "--policy-lr-points", "0:5e-4,5:0"), "--policy-lr", "1e-4"],
        "--policy-lr 0.0001: decay 'piecewise' has its rates in points, the first 0.0005; give no base rate",
    ),
    (
        [*("--entropy-coef-decay", "piecewise", "--entropy-coef-points", "0:0.1,5:0"), "--entropy-coef", "0.2"],
        "--entropy-coef 0.2: decay 'piecewise' has its rates in points, the first 0.1; give no base rate",
    ),
    (
        ["--lr-decay", "piecewise", "--policy-lr-points", "0:5e-4", "--value-lr-points", "0:1e-4"],
        "--lr 0.001: no component is left that uses it",
    ),
    (["--lr-min-ratio", "0.1"], "--lr-min-ratio 0.1: decay 'constant' does not use it"),
    (["--learning-rate", "1e-3"], "error: unknown argument --learning-rate; here it is --lr\n"),
    (["--clip_range=0.1"], "error: unknown argument --clip_range; here it is --clip-coef\n"),
    (["--batch-size", "64"], "here it is --num-minibatches: the number of minibatches, num_envs * num_steps / batch"),
    (["--anneal-lr"], "here it is --lr-decay: linear"),
    (["--desired-kl", "0.01"], "here it is --lr-kl-target: the approx_kl that rates follow"),
    (["--lr_warmup_steps", "5"], "unknown argument --lr_warmup_steps; did you mean '--lr-warmup-steps'"),
    (["--lr-warmup-step", "5"], "unknown argument --lr-warmup-step; did you mean '--lr-warmup-steps'"),
    (["--env-kwargs", "{"], "--env-kwargs {: must be a JSON object"),
    (["--total-timesteps", "soon"], "--total-timesteps soon: must be a whole number"),
    (["--hidden-sizes", "64,0"], "--hidden-sizes 64,0: must be at least 1"),
    (["--preset", "Cartpole-v1"], "--preset Cartpole-v1: must be auto, none or one of"),
    (["--config", "no.toml"], "--config no.toml: No such file or directory"),
    (["--device", "cuda:99"], "--device cuda:99: is not available here"),
    (["--lr"], "argument --lr: expected one argument"),
    (["--checkpoint-every", "-3m"], "--checkpoint-every -3m: must be updates, at least 1, or minutes"),
    (["--env", "-v1"], "--env -v1: is no Gymnasium environment here"),
    (["--hidden-sizes", "64,,64"], "--hidden-sizes 64,,64: must be a whole number"),
    (["--lr-decay", "multistep", "--lr-gamma", "0.5", "--lr-milestones", "2,"], "--lr-milestones 2,: must be"),
    (["--lr", "1e39"], "--lr 1e+39: must be a number in float32"),
    (["--lr", "1e-320"], "--lr 9.999888672e-321: must be a number in float32"),
    (["--log-std-init", "1e60"], "--log-std-init 1e+60: must be at least -40 and at most 40"),
    (["--encoder", "os:getcwd"], "--encoder os:getcwd: raises when it is called with (4,): TypeError"),
    (["--stop-at-return", "10"], "--stop-at-return 10: needs evaluations: give eval_every too"),
    (["--stop-at-return", "nan", "--eval-every", "1"], "--stop-at-return nan: must be finite"),
]


class TestBadInput:
    @pytest.mark.parametrize(("flags", "message"), BAD, ids=[" ".join(flags) for flags, _ in BAD])
    def test_is_one_message_and_status_2_and_nothing_written(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
    ) -> None:
        status, out, err = esper(capsys, "ppo", *SMALL, "--run-dir", tmp_path / "run", *flags)
        assert (status, out) == (2, "")
        assert message in err
        assert err.count("\n") == 1
        assert not (tmp_path / "run").exists()

    def test_an_error_in_a_file_names_the_file(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "mine.json"
        path.write_text('{"lr_decay": "cosine", "lr_min_ratio": 2}')
        status, _, err = esper(capsys, "ppo", "--config", path)
        assert (status, err) == (2, f"esper ppo: error: {path}: lr_min_ratio = 2: must be at least 0 and at most 1\n")

    def test_another_trainers_name_in_a_file(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "mine.toml"
        path.write_text("learning_rate = 1e-3\n")
        status, _, err = esper(capsys, "ppo", "--config", path)
        assert (status, err) == (2, f"esper ppo: error: {path}: learning_rate = 0.001: is no setting; here it is lr\n")

    def test_another_trainers_name_where_ours_is_no_flag(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert esper(capsys, "evaluate", "run", "--learning-rate", "1")[2].endswith("argument --learning-rate\n")

    def test_a_missing_one_is_named_as_the_file_would_have_it(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "mine.json"
        path.write_text('{"lr_decay": "step", "lr_gamma": 0.5}')
        status, _, err = esper(capsys, "ppo", "--config", path)
        assert (status, err) == (2, f"esper ppo: error: {path}: lr_step_size: decay 'step' needs it\n")

    def test_an_environment_that_is_no_text_in_a_file(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "mine.toml").write_text('env = ["CartPole-v1"]\n')
        status, _, err = esper(capsys, "ppo", "--config", tmp_path / "mine.toml")
        assert (status, err.count("\n")) == (2, 1)
        assert "must be text" in err

    def test_a_folder_with_files_in_it(self, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        before = (run / "events.jsonl").read_bytes()
        status, _, err = esper(capsys, "ppo", *SMALL, "--run-dir", run)
        assert status == 2
        assert "has files in it" in err
        assert (run / "events.jsonl").read_bytes() == before

    def test_a_folder_that_cannot_be_made(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "file").touch()
        status, _, err = esper(capsys, "ppo", *SMALL, "--run-dir", tmp_path / "file" / "run")
        assert status == 2
        assert f"cannot be written: {tmp_path / 'file'} is no folder" in err

    @pytest.mark.parametrize("kind", ["not writable", "a link to nowhere", "a file", "not empty", "in use"])
    def test_a_folder_is_checked_before_kernels_are_compiled(
        self,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        request: pytest.FixtureRequest,
        kind: str,
    ) -> None:
        def make_agent(*args: Any, **settings: Any) -> NoReturn:
            raise AssertionError("the engine was made before the folder was checked")

        folder = tmp_path / "folder"
        match kind:
            case "not writable":
                # Root may write everywhere.
                monkeypatch.setattr("os.access", lambda path, mode: not (path == tmp_path and mode & os.W_OK))
            case "a link to nowhere":
                folder.symlink_to(tmp_path / "nowhere")
            case "a file":
                folder.touch()
            case "not empty":
                folder.mkdir()
                (folder / "notes.txt").touch()
            case "in use":
                folder.mkdir()
                request.addfinalizer(open_run_folder(folder).close)
        monkeypatch.setattr("esper.runs.run.PPOAgent", make_agent)
        status, _, err = esper(capsys, "ppo", *SMALL, "--run-dir", folder)
        assert status == 2
        said = {
            "not writable": f"cannot be written: this user may not write in {tmp_path}\n",
            "a link to nowhere": f"cannot be written: {folder} is no folder\n",
            "a file": f"cannot be written: {folder} is no folder\n",
            "not empty": "has files in it; name a new or an empty folder, or resume with  esper ppo --resume  or "
            "esper.resume\n",
            "in use": "is in use by another process that trains in it\n",
        }[kind]
        assert err == f"esper ppo: error: --run-dir {folder}: {said}"

    @pytest.mark.parametrize("arguments", [[], ["train"], ["--nonsense"]])
    def test_no_command(self, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
        status, _, err = esper(capsys, *arguments)
        assert status == 2
        assert err.startswith("esper: error: ")


def test_a_torch_environment_trains_with_its_preset_evaluates_and_is_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, gif = tmp_path / "run", tmp_path / "episode.gif"
    env = ["--env", "torch/CartPole-v1"]
    assert "# preset CartPole-v1" in esper(capsys, "ppo", *env, "--print-config")[1]
    assert esper(capsys, "ppo", *SMALL, *env, "--quiet", "--no-picture", "--run-dir", run)[0] == 0
    status, out, _ = esper(capsys, "evaluate", run, "--episodes", "2", "--json", "--record", gif)
    assert status == 0
    assert json.loads(out)["episodes"] == 2
    assert gif.read_bytes().startswith(b"GIF89a")


def test_runs_as_a_module() -> None:
    result = subprocess.run([sys.executable, "-m", "esper", "--version"], check=True, capture_output=True, text=True)
    assert result.stdout == f"esper {__version__}\n"


def test_whoever_reads_the_output_may_have_enough() -> None:
    command = [sys.executable, "-m", "esper.scripts.train", "ppo", "--print-config"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait() == 141
        assert process.stderr.read() == b""
