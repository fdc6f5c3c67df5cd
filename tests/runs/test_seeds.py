"""`esper.train(..., seeds=)`: runs that differ in their seeds, each as if it were alone."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.classic_control import CartPoleEnv

import esper
from esper.runs.callbacks import Progress
from esper.runs.config import RunConfig
from esper.runs.run import RunError
from esper.runs.seeds import configs_of
from esper.scripts.train import main
from esper.settings.options import ConfigError
from esper.telemetry.events import Event, RunFinished, UpdateCompleted

SMALL: dict[str, Any] = {
    "num_envs": 4,
    "num_steps": 16,
    "hidden_sizes": (8,),
    "total_timesteps": 64 * 4,
    "checkpoint_every": 1,
    "compile": "off",
    "threads": 1,
    "tensorboard": False,
    "picture": False,
    "quiet": True,
    "preset": "none",
}


class Events:
    """A sink: what it received, and how often it was closed."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.closed = 0

    def emit(self, event: Event) -> None:
        assert not self.closed
        self.events.append(event)

    def close(self) -> None:
        self.closed += 1


def learned(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in ("policy.safetensors", "config.json")]


@pytest.mark.parametrize("env", ["torch/CartPole-v1", "CartPole-v1", CartPoleEnv], ids=["tensors", "native", "class"])
def test_each_seed_is_the_run_of_that_seed_alone(env: Any, tmp_path: Path) -> None:
    runs = esper.train(env, seeds=3, **SMALL, run_dir=tmp_path / "all")
    assert [run.folder for run in runs] == [tmp_path / "all" / f"seed-{seed}" for seed in (1, 2, 3)]
    assert [run.status for run in runs] == ["completed"] * 3
    for run, seed in zip(runs, (1, 2, 3), strict=True):
        alone = esper.train(env, seed=seed, **SMALL, run_dir=tmp_path / f"alone-{seed}")
        assert learned(run.folder) == learned(alone.folder)
        assert run.updates["approx_kl"].tolist() == alone.updates["approx_kl"].tolist()
    assert learned(runs[0].folder) != learned(runs[1].folder)


def test_a_list_of_seeds_and_numbers_of_numpy(tmp_path: Path) -> None:
    numbers: Any = [7, np.int64(0)]
    runs = esper.train("torch/CartPole-v1", seeds=numbers, **SMALL, run_dir=tmp_path)
    assert [run.config.seed for run in runs] == [7, 0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["seed-0", "seed-7"]


def test_the_folder_is_named_by_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (run,) = esper.train("torch/CartPole-v1", seeds=1, **SMALL)
    assert run.folder.name == "seed-1"
    assert run.folder.parents[1] == Path("runs/torch-CartPole-v1")


def test_callbacks_and_sinks_are_those_of_all_runs(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    def note(run: Progress) -> None:
        seen.append((run.config.seed, run.agent.train_steps))
        if run.config.seed == 2 and run.agent.train_steps == 2:
            run.stop("enough")

    sink = Events()
    runs = esper.train("torch/CartPole-v1", seeds=3, **SMALL, run_dir=tmp_path, callbacks=[note], sinks=[sink])
    assert [update for seed, update in seen if seed == 2] == [1, 2]
    assert [run.cause for run in runs] == [None, "enough", None]
    assert sum(isinstance(event, RunFinished) for event in sink.events) == 3
    assert sum(isinstance(event, UpdateCompleted) for event in sink.events) == 4 + 2 + 4
    assert sink.closed == 1


def interrupt(run: Progress) -> None:
    if run.config.seed == 2 and run.agent.train_steps == 2:
        os.kill(os.getpid(), signal.SIGINT)


def rate(update: int) -> float:
    return 1e-3 / (1 + update)


@pytest.mark.parametrize(
    ("env", "more"),
    [("torch/CartPole-v1", {}), (CartPoleEnv, {"lr": rate}), ("CartPole-v1", {"lr": esper.ScheduleConfig(peak=1e-3)})],
    ids=["tensors", "class, function", "native, schedule"],
)
def test_an_interrupted_call_goes_on_with_what_is_left(env: Any, more: dict[str, Any], tmp_path: Path) -> None:
    settings = {**SMALL, **more}
    begun = esper.train(env, seeds=3, **settings, run_dir=tmp_path / "all", callbacks=[interrupt])
    assert [(run.status, run.cause) for run in begun] == [("completed", None), ("interrupted", "SIGINT")]
    assert not (tmp_path / "all" / "seed-3").exists()
    first = (begun[0].folder / "events.jsonl").read_bytes()
    runs = esper.train(env, seeds=3, **settings, run_dir=tmp_path / "all")
    assert [run.status for run in runs] == ["completed"] * 3
    assert (begun[0].folder / "events.jsonl").read_bytes() == first
    assert repr(runs[0]) == repr(begun[0])
    assert [event["event"] for event in runs[1].record].count("run_resumed") == 1
    undisturbed = esper.train(env, seeds=3, **settings, run_dir=tmp_path / "undisturbed")
    for run, other in zip(runs, undisturbed, strict=True):
        assert learned(run.folder) == learned(other.folder)


def test_a_run_that_fails_ends_the_call_which_goes_on_there(tmp_path: Path) -> None:
    healed: list[bool] = []

    def breaks(run: Progress) -> None:
        if run.config.seed == 2 and run.agent.train_steps == 2 and not healed:
            raise ValueError("no more")

    with pytest.raises(RunError, match=r"callback .*breaks raised in on_update: ValueError: no more"):
        esper.train("torch/CartPole-v1", seeds=3, **SMALL, run_dir=tmp_path, callbacks=[breaks])
    healed.append(True)
    runs = esper.train("torch/CartPole-v1", seeds=3, **SMALL, run_dir=tmp_path, callbacks=[breaks])
    assert [run.status for run in runs] == ["completed"] * 3


def test_more_seeds_can_be_added_and_other_settings_are_refused(tmp_path: Path) -> None:
    esper.train("torch/CartPole-v1", seeds=1, **SMALL, run_dir=tmp_path)
    assert len(esper.train("torch/CartPole-v1", seeds=2, **SMALL, run_dir=tmp_path)) == 2
    with pytest.raises(ConfigError, match=r"run_dir = .*seed-1: has a run with other settings: gamma 0.99, now 0.9"):
        esper.train("torch/CartPole-v1", seeds=3, **SMALL, gamma=0.9, run_dir=tmp_path)
    assert not (tmp_path / "seed-3").exists()


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        (0, "seeds = 0: must be a count from 1 to 10,000"),
        (-2, "must be a count"),
        (2.0, "must be a count"),
        (True, "must be a count"),
        ("8", "must be a count"),
        ([], "must be a count"),
        ([1, 2.5], "must be a count"),
        ([3, 1, 3], r"seeds = \[3, 1, 3\]: has 3 twice"),
        ([1, -1], "must be at least 0 each"),
    ],
)
def test_what_is_no_seeds(seeds: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        esper.train("torch/CartPole-v1", seeds=seeds, **SMALL, run_dir=tmp_path / "run")
    assert error.value.name == "seeds"
    assert not (tmp_path / "run").exists()


def test_seeds_exclude_a_seed_and_an_environment_that_exists(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"seed = 3: seeds = 2 has the seeds; give one of them"):
        esper.train("torch/CartPole-v1", seeds=2, seed=3, **SMALL, run_dir=tmp_path / "run")
    with pytest.raises(ConfigError, match=r"needs environments of its own, and <CartPole-v1> exists already"):
        esper.train(gymnasium.make("CartPole-v1"), seeds=2, **{**SMALL, "num_envs": 1}, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "seed-2").mkdir()
    (tmp_path / "seed-2" / "notes.txt").touch()
    with pytest.raises(ConfigError, match=r"seed-2: has files in it"):
        esper.train("torch/CartPole-v1", seeds=2, **SMALL, run_dir=tmp_path)


def test_the_command_line_names_the_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main(["ppo", "--env", "CartPole-v1", "--seeds", "8", "--lr", "1e-3"])
    assert exit.value.code == 2
    command = "esper sweep --seeds 8 --output FOLDER"
    assert f"--seeds 8: esper ppo trains one run; many:  {command}" in capsys.readouterr().err


def test_two_calls_in_one_second_have_a_folder_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("esper.runs.folder.time.strftime", lambda form: "20250102-030405")
    first = configs_of(RunConfig(), [1, 2])
    assert [str(each.run_dir) for each in first] == [
        f"runs/CartPole-v1/20250102-030405-seeds/seed-{seed}" for seed in (1, 2)
    ]
    Path(str(first[0].run_dir)).mkdir(parents=True)
    second = configs_of(RunConfig(), [1, 2])
    assert str(second[0].run_dir) == "runs/CartPole-v1/20250102-030405-seeds-2/seed-1"
