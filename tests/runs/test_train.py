"""`esper.train`: what `esper ppo` does, for environments, schedules and callbacks that are Python objects."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import SyncVectorEnv

import esper
from esper.policies.evaluate import evaluate
from esper.policies.show import record_gif
from esper.runs.callbacks import Progress
from esper.runs.run import RunError
from esper.runs.train import Run
from esper.schedules import ScheduleConfig
from esper.scripts.train import main
from esper.settings.options import ConfigError
from esper.storage.store import StoreError
from esper.telemetry.events import CheckpointSaved, EvaluationCompleted, UpdateCompleted, UpdateSkipped

SMALL: dict[str, Any] = {
    "num_envs": 4,
    "num_steps": 16,
    "hidden_sizes": (8,),
    "total_timesteps": 64 * 6,
    "compile": "off",
    "tensorboard": False,
    "picture": False,
    "quiet": True,
}


class Mine(gymnasium.Env[Any, Any]):
    """Episodes of 10 steps; a reward of 1 for the second action."""

    observation_space = Box(-1, 1, (3,))
    action_space = Discrete(2)

    def __init__(self, length: int = 10) -> None:
        self.length, self.closed = length, False

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return self._observe(), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        return self._observe(), float(action), self.steps >= self.length, False, {}

    def close(self) -> None:
        self.closed = True

    def _observe(self) -> np.ndarray:
        return self.np_random.uniform(-1, 1, 3).astype(np.float32)


class TestEnvironments:
    def test_an_id_gives_the_bits_of_the_command_line(self, tmp_path: Path) -> None:
        numbers = {name: value for name, value in SMALL.items() if type(value) is int}
        command = [word for name, value in numbers.items() for word in (f"--{name.replace('_', '-')}", str(value))]
        command += ["--hidden-sizes", "8", "--compile", "off"]
        off = ["--no-tensorboard", "--no-picture", "--quiet", "--lr-decay", "cosine", "--preset", "none"]
        assert main(["ppo", *command, *off, "--lr", "2e-3", "--run-dir", str(tmp_path / "command")]) == 0
        run = esper.train(**SMALL, lr=2e-3, lr_decay="cosine", preset="none", run_dir=tmp_path / "python")
        for name in ("policy.safetensors", "policy.json", "config.json"):
            assert (run.folder / name).read_bytes() == (tmp_path / "command" / name).read_bytes()

    def test_a_preset_is_that_of_the_id(self, tmp_path: Path) -> None:
        tuned = esper.train("CartPole-v1", total_timesteps=1024, run_dir=tmp_path / "tuned", quiet=True)
        assert tuned.config.ppo.policy_lr.peak == 1e-3
        plain = esper.train(gymnasium.make("CartPole-v1"), total_timesteps=128, run_dir=tmp_path / "given", quiet=True)
        assert plain.config.ppo.policy_lr.peak == 3e-4
        named = esper.train(Mine, preset="CartPole-v1", total_timesteps=1024, run_dir=tmp_path / "named", quiet=True)
        assert (named.config.ppo.policy_lr.peak, named.config.environment.env) == (1e-3, "<Mine>")

    def test_a_class_makes_as_many_as_are_asked_for(self, tmp_path: Path) -> None:
        settings = {**SMALL, "env_kwargs": {"length": 4}}
        run = esper.train(Mine, **settings, eval_every=2, eval_episodes=3, run_dir=tmp_path / "run")
        assert run.config.environment.env == "<Mine>"
        assert run.config.ppo.num_envs == 4
        assert run.updates["episode_length_mean"].tolist() == [4.0] * 6
        assert run.evaluate(3).lengths == [4, 4, 4]
        assert run.best_policy.environment.given is Mine
        assert [e["event"] for e in run.record].count("evaluation_completed") == 3

    def test_an_instance_is_one_environment_and_stays_open(self, tmp_path: Path) -> None:
        env = Mine()
        run = esper.train(env, **{**SMALL, "num_envs": 1}, run_dir=tmp_path / "run")
        assert run.config.ppo.num_envs == 1
        assert not env.closed
        assert run.evaluate(2).lengths == [10, 10]
        with pytest.raises(ConfigError, match=r"num_envs = 4: must be 1, as <Mine> exists already"):
            esper.train(Mine(), **SMALL, run_dir=tmp_path / "more")
        with pytest.raises(ConfigError, match=r"eval_every = 2: needs environments of its own"):
            esper.train(Mine(), total_timesteps=128, eval_every=2, run_dir=tmp_path / "more")
        (tmp_path / "file.toml").write_text("num_envs = 2\n")
        with pytest.raises(ConfigError, match=r"num_envs = 2: must be 1, as <Mine> exists already"):
            esper.train(Mine(), config=tmp_path / "file.toml", run_dir=tmp_path / "more")
        assert not (tmp_path / "more").exists()

    def test_a_vector_environment_has_its_own_number(self, tmp_path: Path) -> None:
        env = gymnasium.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync")
        settings = {name: value for name, value in SMALL.items() if name != "num_envs"}
        run = esper.train(env, **settings, run_dir=tmp_path / "run")
        assert run.config.ppo.num_envs == 2
        assert len(run.evaluate(3).returns) == 3

    def test_without_an_evaluation_there_is_no_best_policy(self, tmp_path: Path) -> None:
        run = esper.train(Mine, **SMALL, run_dir=tmp_path / "run")
        with pytest.raises(ConfigError, match="eval_every = none: no evaluation has left a best policy"):
            _ = run.best_policy

    def test_its_settings_go_by_its_spaces(self, tmp_path: Path) -> None:
        run = esper.train(Mine, **SMALL, run_dir=tmp_path / "run")
        assert run.config.ppo.normalize_rewards
        assert run.config.ppo.num_steps == SMALL["num_steps"]
        plain = esper.train(Mine, **SMALL, preset="none", run_dir=tmp_path / "plain")
        assert not plain.config.ppo.normalize_rewards

    def test_it_is_passed_again_for_a_resume(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        whole = esper.train(Mine, **SMALL, run_dir=tmp_path / "whole")
        half = esper.train(Mine, **{**SMALL, "total_timesteps": 64 * 3}, run_dir=tmp_path / "half")
        resumed = half.resume(total_timesteps=SMALL["total_timesteps"], quiet=True)
        assert resumed.updates["update"].tolist() == list(range(6))
        assert resumed.updates["lr/policy"].tolist() == whole.updates["lr/policy"].tolist()
        with pytest.raises(ConfigError, match=r"<Env> is another|is another environment than that of the run, <Mine>"):
            esper.resume(half.folder, gymnasium.Env, total_timesteps=64 * 9)
        with pytest.raises(ConfigError, match="env = <Mine>: was passed from Python, where it must be passed again"):
            esper.resume(half.folder, total_timesteps=64 * 9)
        with pytest.raises(ConfigError, match="resume_schedule = extended: must be one of continue, extend, restart"):
            half.resume(schedule="extended")
        with pytest.raises(SystemExit):
            main(["ppo", "--resume", str(half.folder), "--total-timesteps", "10000"])
        assert "<Mine>: was passed from Python" in capsys.readouterr().err


class Drawn(Mine):
    """Frames of 8 x 8."""

    def __init__(self, length: int = 10, render_mode: str | None = None) -> None:
        super().__init__(length)
        self.render_mode = render_mode

    def render(self) -> Any:
        return np.full((8, 8, 3), self.steps, np.uint8) if self.render_mode == "rgb_array" else None


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("drawn") / "run"
    run: Run = esper.train(Drawn, **SMALL, env_kwargs={"length": 4}, run_dir=folder)
    return run


class TestDrawing:
    """A GIF has a frame for each step."""

    def test_a_class_gets_the_render_mode(self, drawn: Run, tmp_path: Path) -> None:
        assert drawn.record_gif(tmp_path / "a.gif") == 4
        policy = esper.load_policy(drawn.folder, env=Drawn)
        assert record_gif(policy, tmp_path / "b.gif", seed=0, env=Drawn) == 10
        assert record_gif(policy, tmp_path / "c.gif", seed=0, env=lambda: Drawn(3, "rgb_array")) == 3
        with pytest.raises(ConfigError, match=r"env = <Drawn>: was passed from Python, .* again, as env$"):
            record_gif(policy, tmp_path / "d.gif", seed=0)

    def test_an_instance_stays_open(self, drawn: Run, tmp_path: Path) -> None:
        env = Drawn(render_mode="rgb_array")
        assert drawn.record_gif(tmp_path / "a.gif", env=env) == 10
        assert evaluate(drawn.policy, episodes=2, seed=0, env=env).lengths == [10, 10]
        assert not env.closed

    @pytest.mark.parametrize(
        ("env", "said"),
        [
            (Drawn(), "<Drawn>: has render_mode None, and cannot be drawn; pass one with render_mode='rgb_array'"),
            (Mine, "<Mine>: has render_mode None, .* pass a callable that takes render_mode, or makes one with"),
            (lambda: Drawn(render_mode="human"), "has render_mode 'human', and cannot be drawn"),
            (SyncVectorEnv([Drawn]), "is a vector environment, which is not drawn; pass a callable that makes one"),
        ],
    )
    def test_what_cannot_be_drawn(self, drawn: Run, tmp_path: Path, env: Any, said: str) -> None:
        with pytest.raises(ConfigError, match=said):
            drawn.record_gif(tmp_path / "a.gif", env=env)
        assert not (tmp_path / "a.gif").exists()

    @pytest.mark.parametrize(
        ("command", "call"),
        [
            (("evaluate",), "evaluate(policy, episodes=20, seed=0, env=...)"),
            (("evaluate", "--record", "a.gif"), "record_gif(policy, 'a.gif', seed=0, env=...)"),
            (("enjoy", "--seed", "3"), "show(policy, episodes=5, seed=3, env=...)"),
        ],
    )
    def test_a_command_names_the_call(
        self, drawn: Run, command: tuple[str, ...], call: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit, match="2"):
            main([command[0], str(drawn.folder), *command[1:]])
        err = capsys.readouterr().err
        assert err == (
            f"esper {command[0]}: error: env = <Drawn>: was passed from Python, and only Python can make it:  "
            f"policy = esper.load_policy('{drawn.folder}'); {call}\n"
        )


class TestSchedules:
    @pytest.mark.parametrize("lr", [lambda update: 1e-3, ScheduleConfig(peak=1e-3)])
    def test_a_schedule_and_its_decay_exclude_each_other(self, lr: Any, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="lr = a schedule: has the value of lr_decay; give one of them"):
            esper.train(**SMALL, lr=lr, lr_decay="cosine", run_dir=tmp_path / "run")

    def test_numbers_functions_and_configs(self, tmp_path: Path) -> None:
        run = esper.train(
            **SMALL,
            policy_lr=lambda update: 1e-3 / (1 + update),
            value_lr=ScheduleConfig(peak=1e-3, decay="linear"),
            clip_coef=0.3,
            target_kl=None,
            run_dir=tmp_path / "run",
        )
        assert run.updates["lr/policy"].tolist() == [1e-3 / n for n in (1, 2, 3, 4, 5, 6)]
        assert run.updates["lr/value"].tolist() == pytest.approx([1e-3 * n / 6 for n in (6, 5, 4, 3, 2, 1)])
        assert set(run.updates["clip_coef"]) == {0.3}
        # The table that the run stored; without the function.
        assert esper.resume(run.folder, total_timesteps=64 * 7, quiet=True).updates["lr/policy"][-1] == 1e-3 / 6

    def test_one_for_both(self, tmp_path: Path) -> None:
        both = ScheduleConfig(peak=4e-3, decay="step", step_size=3, gamma=0.5)
        run = esper.train(**SMALL, lr=both, run_dir=tmp_path / "run")
        assert run.updates["lr/value"].tolist() == run.updates["lr/policy"].tolist() == [4e-3] * 3 + [2e-3] * 3


class Watcher(esper.Callback):
    """Notes what it is called for."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []

    def on_update(self, run: Progress) -> None:
        assert isinstance(run.event, UpdateCompleted)
        assert run.agent.train_steps == run.event.update + 1
        run.log("twice", 2 * run.event.update)
        self.seen.append(("update", run.event.update))

    def on_evaluation(self, run: Progress) -> None:
        assert isinstance(run.event, EvaluationCompleted)
        run.log("evaluations", 1.0)
        self.seen.append(("evaluation", run.event.update))

    def on_checkpoint(self, run: Progress) -> None:
        assert isinstance(run.event, CheckpointSaved)
        assert (run.folder / run.event.checkpoint).exists()
        self.seen.append(("checkpoint", int(run.event.checkpoint[-8:])))

    def on_end(self, run: Progress) -> None:
        self.seen.append(("end", run.agent.train_steps))


class TestCallbacks:
    def test_are_called_in_order_and_log_metrics(self, tmp_path: Path) -> None:
        watcher = Watcher()
        run = esper.train(**SMALL, callbacks=[watcher], eval_every=3, eval_episodes=2, run_dir=tmp_path / "run")
        assert [seen for seen in watcher.seen if seen[0] == "update"] == [("update", n) for n in range(6)]
        assert [seen for seen in watcher.seen if seen[0] == "evaluation"] == [("evaluation", 2), ("evaluation", 5)]
        assert ("checkpoint", 0) in watcher.seen
        assert watcher.seen[-1] == ("end", 6)
        assert run.updates["user/twice"].tolist() == [0, 2, 4, 6, 8, 10]
        # Logged after update 2 was recorded, so with the next one.
        assert np.isfinite(run.updates["user/evaluations"]).tolist() == [False, False, False, True, False, False]

    def test_change_nothing_that_is_learned(self, tmp_path: Path) -> None:
        def meddle(run: Progress) -> None:
            run.agent.optimizer.learning_rates[0].fill_(1.0)

        plain = esper.train(**SMALL, run_dir=tmp_path / "plain")
        watched = esper.train(**SMALL, callbacks=[Watcher(), meddle], run_dir=tmp_path / "watched")
        files = [run.folder / "policy.safetensors" for run in (plain, watched)]
        assert files[0].read_bytes() == files[1].read_bytes()

    def test_can_stop_the_run_which_is_complete(self, tmp_path: Path) -> None:
        def enough(run: Progress) -> None:
            if run.agent.train_steps == 3:
                run.stop("enough of it")

        run = esper.train(**SMALL, callbacks=[enough], run_dir=tmp_path / "run")
        assert (run.status, run.cause, len(run.updates["update"])) == ("completed", "enough of it", 3)
        assert run.resume(quiet=True).updates["update"].tolist() == list(range(6))

    @pytest.mark.parametrize("method", ["on_update", "on_evaluation", "on_checkpoint", "on_end"])
    def test_one_that_raises_ends_the_run_with_a_checkpoint_and_is_named(self, method: str, tmp_path: Path) -> None:
        def fail(self: Any, run: Progress) -> None:
            raise ZeroDivisionError("of my own")

        bad = type("Bad", (esper.Callback,), {method: fail})()
        with pytest.raises(RunError, match=rf"callback Bad raised in {method}: ZeroDivisionError: of my own"):
            esper.train(**SMALL, eval_every=2, callbacks=[bad], run_dir=tmp_path / "run")
        resumed = esper.resume(tmp_path / "run", quiet=True)
        assert resumed.updates["update"].tolist() == list(range(6))
        plain = esper.train(**SMALL, eval_every=2, run_dir=tmp_path / "plain")
        files = [run.folder / "policy.safetensors" for run in (plain, resumed)]
        assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"lr": -1.0}, "policy_lr"),
        ({"lr": "fast"}, "policy_lr"),
        ({"learning_rte": 1e-3}, "learning_rte"),
        ({"lr_decay": "cosin"}, "policy_lr_decay"),
        ({"env": 3}, "env"),
        ({"env": "NoSuch-v0"}, "env"),
        ({"hidden_sizes": "big"}, "hidden_sizes"),
        ({"preset": "NoSuch"}, "preset"),
        ({"config": "nowhere.toml"}, "config"),
        ({"gamma": None}, "gamma"),
        ({"callbacks": [3]}, "callbacks"),
        ({"callbacks": [esper.Callback]}, "callbacks"),
        ({"callbacks": print}, "callbacks"),
        ({"sinks": 3}, "sinks"),
        ({"sinks": [3]}, "sinks"),
        ({"sinks": Path("file")}, "sinks"),
        ({"sinks": [Path]}, "sinks"),
        ({"preset": 3}, "preset"),
        ({"config": 3}, "config"),
    ],
)
def test_bad_settings_are_config_errors_that_name_them(settings: dict[str, Any], name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        esper.train(**{**SMALL, "run_dir": tmp_path / "run", **settings})
    assert caught.value.name == name
    assert not (tmp_path / "run").exists()


def test_a_second_call_into_the_same_folder_is_refused(tmp_path: Path) -> None:
    esper.train(**SMALL, run_dir=tmp_path / "run")
    with pytest.raises(ConfigError, match="has files in it"):
        esper.train(**SMALL, run_dir=tmp_path / "run")


def test_the_same_call_begins_a_run_anew_that_was_killed_before_its_first_checkpoint(tmp_path: Path) -> None:
    def train() -> Run:
        run: Run = esper.train(Mine, **SMALL, policy_lr=lambda update: 1e-3 / (1 + update), run_dir=tmp_path / "run")
        return run

    whole = (train().folder / "policy.safetensors").read_bytes()
    for path in (tmp_path / "run").iterdir():
        if path.name == "checkpoints":
            shutil.rmtree(path)
        elif path.name not in (".lock", "config.json", "events.jsonl"):
            path.unlink()
    with pytest.raises(StoreError, match=r"its policy_lr is a function .* call esper.train as before, with run_dir='/"):
        esper.resume(tmp_path / "run", Mine)
    again = train()
    assert (again.folder / "policy.safetensors").read_bytes() == whole
    assert [event["event"] for event in again.record].count("run_started") == 1
    # A settings file of the user's own is not overwritten.
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="has files in it"):
        esper.train(Mine, **SMALL, run_dir=tmp_path / "mine")


def test_skipped_updates_have_a_method_of_their_own(tmp_path: Path) -> None:
    seen: list[str] = []

    class Natural(esper.Callback):
        def on_update(self, run: Progress) -> None:
            seen.append(f"update {run.event.approx_kl >= 0}")  # type: ignore[union-attr]

        def on_skipped(self, run: Progress) -> None:
            assert isinstance(run.event, UpdateSkipped)
            seen.append("skipped")

    class Broken(Mine):
        def step(self, action: Any) -> Any:
            return self._observe(), np.nan, False, False, {}

    settings = {**SMALL, "max_skipped_updates": 2}
    calls: list[Progress] = []
    run = esper.train(Broken, **settings, callbacks=[Natural(), calls.append], run_dir=tmp_path / "run")
    assert (run.status, seen, calls) == ("diverged", ["skipped"] * 2, [])


def test_a_message_names_the_call_that_resumes_what_only_python_can(tmp_path: Path) -> None:
    def fail(run: Progress) -> None:
        raise ZeroDivisionError

    with pytest.raises(RunError, match=r"resume from it with  esper\.resume\('.*/run', env\)"):
        esper.train(lambda: Mine(), **SMALL, callbacks=[fail], run_dir=tmp_path / "run")
    assert esper.resume(tmp_path / "run", lambda: Mine(), quiet=True).config.environment.env == "<lambda>"


def test_runs_that_begin_within_a_second_have_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda form: "20260101-000000")
    runs = [esper.train(Mine, **SMALL) for _ in range(3)]
    assert [run.folder.name for run in runs] == [f"20260101-000000-1{end}" for end in ("", "-2", "-3")]
    assert {run.folder.parent.name for run in runs} == {"Mine"}


DOOR: Any = esper  # for what has no right type


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run: Run = esper.train(**SMALL, run_dir=tmp_path_factory.mktemp("finished") / "run")
    return run


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda run: DOOR.resume(run.folder, sinks=3), "sinks = 3: must be a list of objects with emit"),
        (lambda run: DOOR.resume(run.folder, trust="no"), "trust = no: must be true or false"),
        (lambda run: DOOR.resume(run.folder, fresh_episodes=3), "fresh_episodes = 3: must be true or false"),
        (lambda run: DOOR.resume(3), "path = 3: must be text or a path"),
        (lambda run: DOOR.load_policy(None), "path = none: must be text or a path"),
        (lambda run: DOOR.load_policy(run.folder, trust=3), "trust = 3: must be true or false"),
        (lambda run: DOOR.load_updates(3), "run_dir = 3: must be text or a path"),
        (lambda run: run.evaluate("all"), "episodes = all: must be a whole number"),
        (lambda run: run.evaluate(1.5), "episodes = 1.5: must be a whole number"),
        (lambda run: run.evaluate(2, seed=-1), "seed = -1: must be at least 0"),
        (lambda run: run.record_gif(3), "path = 3: must be text or a path"),
        (lambda run: DOOR.make_env("CartPole-v1", num_envs="two"), "num_envs = two: must be a whole number"),
    ],
)
def test_bad_arguments_of_the_door_are_config_errors(finished: Run, call: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call(finished)


def test_a_missing_column_names_the_nearest(finished: Run) -> None:
    updates = finished.updates
    with pytest.raises(KeyError, match=r"episode_return is no column; did you mean 'episode_return_\w+'"):
        updates["episode_return"]
    with pytest.raises(KeyError, match=r"lr/polcy is no column; did you mean 'lr/policy'"):
        updates["lr/polcy"]
    with pytest.raises(KeyError, match=r"3 is no column; list\(...\) has their names"):
        updates[3]  # type: ignore[index]
    assert updates.get("typo") is None
    assert "typo" not in updates
    assert list(esper.load_updates(str(finished.folder))) == list(updates)
