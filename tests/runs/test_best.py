"""The best policy of a run is kept, and a run can end with the evaluation that is good enough; stopped or not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from esper.analysis.runs import read_events
from esper.policies.evaluate import evaluate
from esper.policies.policy import load_policy
from esper.runs.checkpoint.folder import checkpoints_in, load_checkpoint
from esper.runs.config import RunConfig
from esper.runs.layers import Layer, resolve
from esper.runs.run import RunResult, resume_run, run
from esper.scripts.train import main
from esper.sweep.plan import Job
from esper.sweep.progress import progress_of

BATCH = 4 * 32
UPDATES = 8
SMALL = {
    "env": "CartPole-v1",
    "num_envs": 4,
    "num_steps": 32,
    "total_timesteps": UPDATES * BATCH,
    "lr": 2e-3,
    "compile": "off",
    "threads": 1,
    "hidden_sizes": (8,),
    "checkpoint_every": 3,
    "tensorboard": False,
    "picture": False,
    "quiet": True,
    "eval_every": 1,
    "eval_episodes": 2,
}


def config(run_dir: Path, **settings: Any) -> RunConfig:
    return resolve([Layer(source="test", values={**SMALL, "run_dir": str(run_dir), **settings})]).config


def go_on(run_dir: Path, **settings: Any) -> RunResult:
    values = {"quiet": True, "tensorboard": False, "picture": False, **settings}
    return resume_run(run_dir, [Layer(source="test", values=values)])[1]


def returns(run_dir: Path) -> list[float]:
    """The mean return of the evaluation after each update."""
    events = [event for event in read_events(run_dir) if event["event"] == "evaluation_completed"]
    assert [event["update"] for event in events] == list(range(len(events)))
    return [event["eval_return_mean"] for event in events]


def best_files(run_dir: Path) -> list[bytes]:
    return [(run_dir / "best" / name).read_bytes() for name in ("policy.safetensors", "policy.json")]


class StopAfter:
    """Ends a run at once, as a kill would, with the event of an update."""

    def __init__(self, update: int) -> None:
        self._update = update

    def emit(self, event: Any) -> None:
        if type(event).__name__ == "UpdateCompleted" and event.update == self._update:
            raise KeyboardInterrupt

    def close(self) -> None: ...


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    run(config(run_dir))
    # The best one must be neither the first nor the last, or the tests below would show nothing.
    assert 0 < int(np.argmax(returns(run_dir))) < UPDATES - 1
    return run_dir


class TestBest:
    def test_is_the_policy_that_was_evaluated_best(self, whole: Path, tmp_path: Path) -> None:
        found = returns(whole)
        best = int(np.argmax(found))
        assert json.loads((whole / "best" / "policy.json").read_text())["updates"] == best + 1
        scores = evaluate(load_policy(whole / "best"), episodes=2, seed=config(whole).seed)
        assert np.mean(scores.returns) == max(found)
        run(config(tmp_path / "short", total_timesteps=BATCH * (best + 1)))
        assert (tmp_path / "short" / "policy.safetensors").read_bytes() == best_files(whole)[0]

    def test_stays_the_first_of_equals_on_resume_too(self, tmp_path: Path) -> None:
        """At a rate that changes nothing all evaluations are the same."""
        with pytest.raises(KeyboardInterrupt):
            run(config(tmp_path, lr=1e-12), [StopAfter(5)])
        before = best_files(tmp_path)
        assert json.loads(before[1])["updates"] == 1
        go_on(tmp_path)
        assert len(set(returns(tmp_path))) == 1
        assert best_files(tmp_path) == before

    @pytest.mark.parametrize("update", [1, 5, UPDATES - 1])
    def test_of_a_run_that_was_killed_and_went_on_is_that_of_the_whole_run(
        self, whole: Path, tmp_path: Path, update: int
    ) -> None:
        with pytest.raises(KeyboardInterrupt):
            run(config(tmp_path), [StopAfter(update)])
        go_on(tmp_path)
        assert returns(tmp_path) == returns(whole)
        assert best_files(tmp_path) == best_files(whole)

    def test_there_is_none_without_evaluations(self, tmp_path: Path) -> None:
        run(config(tmp_path, eval_every=None, total_timesteps=BATCH))
        assert not (tmp_path / "best").exists()


class TestStopAtReturn:
    def test_ends_with_the_first_evaluation_that_reaches_it(self, whole: Path, tmp_path: Path) -> None:
        goal = max(returns(whole))
        last = returns(whole).index(goal)
        result = run(config(tmp_path, stop_at_return=goal))
        assert returns(tmp_path) == returns(whole)[: last + 1]
        finished = list(read_events(tmp_path))[-1]
        assert (finished["event"], finished["status"], finished["updates"]) == ("run_finished", "completed", last + 1)
        assert last > 0
        assert finished["cause"] == f"stop_at_return {goal:g}: the evaluation after {last + 1} updates had {goal:.2f}"
        assert (result.train.status, result.cause) == ("completed", finished["cause"])
        newest = load_checkpoint(checkpoints_in(tmp_path / "checkpoints")[0])
        assert newest["training"]["agent"]["train_steps"] == last + 1
        assert json.loads((tmp_path / "config.json").read_text())["stop_at_return"] == goal

    def test_a_run_that_does_not_reach_it_is_a_whole_run(self, whole: Path, tmp_path: Path) -> None:
        result = run(config(tmp_path, stop_at_return=max(returns(whole)) + 1))
        assert (result.train.status, result.cause) == ("completed", None)
        assert returns(tmp_path) == returns(whole)

    def test_a_sweep_takes_it_for_complete(self, whole: Path, tmp_path: Path) -> None:
        settings = config(tmp_path / "run", stop_at_return=max(returns(whole)))
        run(settings)
        job = Job(environment="CartPole-v1", arm="constant", config=settings)
        assert (progress_of(job).status, progress_of(job).fraction) == ("completed", 1.0)

    def test_on_resume_there_is_nothing_left_until_the_goal_is_changed(self, whole: Path, tmp_path: Path) -> None:
        goal = max(returns(whole))
        first = run(config(tmp_path, stop_at_return=goal))
        again = go_on(tmp_path)
        assert again.train.updates == first.train.updates < UPDATES
        assert (again.train.status, again.cause) == ("completed", first.cause)
        assert list(read_events(tmp_path))[-1]["cause"] == first.cause
        more = go_on(tmp_path, stop_at_return=None)
        assert (more.train.updates, more.cause) == (UPDATES, None)
        assert (tmp_path / "policy.safetensors").read_bytes() == (whole / "policy.safetensors").read_bytes()
        assert best_files(tmp_path) == best_files(whole)

    def test_a_goal_given_on_resume_counts_the_evaluations_before(self, tmp_path: Path) -> None:
        run(config(tmp_path, total_timesteps=4 * BATCH))
        result = go_on(tmp_path, total_timesteps=UPDATES * BATCH, stop_at_return=max(returns(tmp_path)))
        assert (result.train.status, result.train.updates) == ("completed", 4)
        assert result.cause is not None

    def test_is_said_on_the_console_with_how_to_go_on(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        run_dir = tmp_path / "run"
        flags = ["--env", "CartPole-v1", "--preset", "none", "--compile", "off", "--num-steps", "16"]
        stop = ["--eval-every", "1", "--eval-episodes", "1", "--stop-at-return", "1"]
        assert main(["ppo", *flags, *stop, "--no-picture", "--run-dir", str(run_dir)]) == 0
        out = capsys.readouterr().out
        assert "finished (stop_at_return 1: the evaluation after 1 update had " in out
        assert f"best     {run_dir}/best\n" in out
        assert f"go on    esper ppo --resume {run_dir} --stop-at-return none\n" in out
        assert main(["ppo", "--resume", str(run_dir), "--no-picture"]) == 0
        assert "finished (stop_at_return 1: the evaluation after 1 update had " in capsys.readouterr().out
        assert main(["evaluate", str(run_dir / "best"), "--episodes", "1"]) == 0


class Infinite(gymnasium.Env[Any, Any]):
    """Episodes of 4 steps, whose rewards are infinite."""

    observation_space = Box(-1, 1, (2,))
    action_space = Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.age = 0
        return np.zeros(2, dtype=np.float32), {}

    def step(self, action: Any) -> Any:
        self.age += 1
        return np.zeros(2, dtype=np.float32), float("inf"), self.age >= 4, False, {}


@pytest.fixture
def infinite() -> Iterator[str]:
    gymnasium.register("Infinite-v0", entry_point=cast(Any, Infinite))
    yield "Infinite-v0"
    del gymnasium.registry["Infinite-v0"]


def test_a_return_that_is_not_finite_is_no_best_and_reaches_nothing(tmp_path: Path, infinite: str) -> None:
    result = run(config(tmp_path, env=infinite, total_timesteps=3 * BATCH, stop_at_return=1.0))
    assert result.cause is None
    events = [event for event in read_events(tmp_path) if event["event"] == "evaluation_completed"]
    assert len(events) == 3
    assert not any("eval_return_mean" in event for event in events)
    assert not (tmp_path / "best").exists()
