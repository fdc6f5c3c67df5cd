"""Runs that stand still for a known reason, the same runs with what is proposed, and runs that learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import esper
from esper.analysis.runs import read_events
from esper.envs.device.classic_control import CartPole, Pendulum
from esper.envs.device.dynamics import Outcome
from esper.envs.device.registry import DYNAMICS
from esper.runs.config import RunConfig
from esper.scripts.train import main
from esper.settings.layers import common_names
from esper.settings.options import settings_of
from esper.telemetry import causes, diagnosis
from esper.telemetry.causes import CAUSES, Cause, Measured, Try, cause
from esper.telemetry.diagnosis import Diagnosis, diagnose, stalled_at


class Rich(CartPole):
    """Rewards of 10,000."""

    def step(self, state: Tensor, action: Tensor, uniform: Tensor) -> Outcome:
        outcome = super().step(state, action, uniform)
        return outcome._replace(reward=10_000 * outcome.reward)


class Worthless(CartPole):
    """No rewards."""

    def step(self, state: Tensor, action: Tensor, uniform: Tensor) -> Outcome:
        outcome = super().step(state, action, uniform)
        return outcome._replace(reward=torch.zeros_like(outcome.reward))


class FarAway(CartPole):
    """Observed from a place 1,000 away."""

    def observe(self, state: Tensor) -> Tensor:
        return super().observe(state) + 1_000


class Aim(Pendulum):
    """Worth 1 where the action is within 1 of the height of the pendulum, which nothing moves: never at a bound."""

    max_episode_steps = 50

    def step(self, state: Tensor, action: Tensor, uniform: Tensor) -> Outcome:
        near = (action[:, 0] - torch.cos(state[:, 0])).abs() < 1
        return super().step(state, 0 * action, uniform)._replace(reward=near.float())


class Weak(Pendulum):
    """A motor that takes numbers up to 200 for what otherwise is 2."""

    action_bound = 200.0

    def step(self, state: Tensor, action: Tensor, uniform: Tensor) -> Outcome:
        return super().step(state, action / 100, uniform)


@pytest.fixture(autouse=True)
def variants(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (Rich, Worthless, FarAway, Aim, Weak):
        monkeypatch.setitem(DYNAMICS, f"{kind.__name__}-v1", kind)


def trained(folder: Path, env: str, **settings: Any) -> esper.Run:
    own = {"preset": "none", "total_timesteps": 50_000, "quiet": True, "tensorboard": False, "picture": False}
    return esper.train(env, **{**own, "run_dir": folder, **settings})


def last_return(run: esper.Run) -> float:
    return float(np.nanmean(run.updates["episode_return_mean"][-10:]))


def stalls(run: esper.Run) -> list[dict[str, Any]]:
    return [event for event in run.record if event["event"] == "learning_stalled"]


SWINGING = {"lr": 1e-3, "gamma": 0.95, "update_epochs": 10, "normalize_rewards": True}


@pytest.mark.parametrize(
    ("name", "env", "settings", "measured", "remedies", "learned"),
    [
        (
            "low_learning_rate",
            "torch/CartPole-v1",
            {"lr": 1e-7},
            "at a learning rate of 1e-07",
            {"a higher lr": {"lr": 1e-3}},
            100,
        ),
        (
            "policy_collapse",
            "torch/CartPole-v1",
            {"lr": 0.3},
            "no longer explores, entropy 0 after",
            {"a lower lr": {"lr": 1e-3}},
            100,
        ),
        (
            "clipped_by_others",
            "torch/Rich-v1",
            {"lr": 1e-3},
            "grad_norm/value is 3",
            {
                "normalize_rewards=true": {"normalize_rewards": True},
                "a higher max_grad_norm": {"max_grad_norm": 1e6},
            },
            1e6,
        ),
        (
            "large_observations",
            "torch/FarAway-v1",
            {"lr": 1e-3},
            "observations reach 1002",
            {"normalize_observations=true": {"normalize_observations": True}},
            80,
        ),
        (
            "actions_at_bounds",
            "torch/Aim-v1",
            {"lr": 1.0, "total_timesteps": 30_000},
            "action_extent 1.00 of 1",
            {"a lower lr": {"lr": 3e-3}},
            40,
        ),
        (
            "actions_in_the_middle",
            "torch/Weak-v1",
            {**SWINGING, "scale_actions": "off"},
            "action_extent 0.00",
            {"scale_actions=auto": {"scale_actions": "auto"}},
            -500,
        ),
        (
            "large_returns",
            "torch/Pendulum-v1",
            {"lr": 1e-3, "total_timesteps": 100_000},
            "the value function is off by",
            {"normalize_rewards=true": {"normalize_rewards": True}},
            -700,
        ),
    ],
)
def test_what_is_proposed_helps(
    name: str,
    env: str,
    settings: dict[str, Any],
    measured: str,
    remedies: dict[str, dict[str, Any]],
    learned: float,
    tmp_path: Path,
) -> None:
    stuck = trained(tmp_path / "stuck", env, **settings)
    (found,) = stalls(stuck)
    assert (found["cause"], found["tries"]) == (name, list(remedies))
    assert measured in found["says"]
    assert found["says"].endswith(f"; try {' or '.join(remedies)}")
    for number, changes in enumerate(remedies.values()):
        better = trained(tmp_path / str(number), env, **{**settings, **changes})
        assert stalls(better) == []
        assert last_return(stuck) < learned < last_return(better)


def test_no_episode_is_long_enough_to_reach_what_changes_its_return(tmp_path: Path) -> None:
    stuck = trained(tmp_path / "stuck", "torch/Acrobot-v1", lr=1e-3, max_episode_steps=50)
    (found,) = stalls(stuck)
    assert (found["cause"], found["tries"]) == ("time_limit", ["a higher max_episode_steps"])
    assert "episodes had the return -50 and were truncated after 50 steps" in found["says"]
    better = trained(tmp_path / "better", "torch/Acrobot-v1", lr=1e-3, max_episode_steps=500)
    assert stalls(better) == []
    assert (stuck.updates["truncated_fraction"][-1], better.updates["truncated_fraction"][-1]) == (1.0, 0.0)


def test_nothing_helps_without_rewards(tmp_path: Path) -> None:
    (found,) = stalls(trained(tmp_path / "run", "torch/Worthless-v1", total_timesteps=20_000))
    assert (found["cause"], found["tries"]) == ("constant_return", [])
    assert found["says"].endswith("episodes had the return 0: the rewards do not tell actions apart")


@pytest.mark.parametrize(("over", "found"), [("all", True), ("group", False)])
def test_a_gradient_shrinks_that_of_others_only_where_all_are_clipped_together(over: str, found: bool) -> None:
    numbers = {"grad_norm/policy": 0.1, "grad_norm/value": 20.0, "grad_norm/shared": np.nan, "approx_kl": 1e-7}
    measured = Measured(
        {name: np.full(20, number) for name, number in numbers.items()},
        {"max_grad_norm": 0.5, "max_grad_norm_over": over},
    )
    (declared,) = (each for each in CAUSES if each.name == "clipped_by_others")
    assert (declared.judge(measured) is not None) == found


def test_every_cause_is_provoked() -> None:
    (marks,) = test_what_is_proposed_helps.pytestmark
    assert {each.name for each in CAUSES} == {case[0] for case in marks.args[1]} | {"time_limit", "constant_return"}


def test_what_is_proposed_are_settings() -> None:
    settings = settings_of(RunConfig)
    assert {each.setting for declared in CAUSES for each in declared.tries} <= settings.keys() | common_names(
        settings
    ).keys()


@pytest.mark.parametrize(
    ("env", "settings"),
    [
        ("torch/CartPole-v1", {"preset": "CartPole-v1"}),
        ("torch/Acrobot-v1", {"preset": "Acrobot-v1", "total_timesteps": 300_000}),
        ("torch/Pendulum-v1", {"preset": "Pendulum-v1", "total_timesteps": 200_000}),
        ("torch/Acrobot-v1", {}),
        ("torch/MountainCarContinuous-v0", {}),
        ("CartPole-v1", {"total_timesteps": 20_000}),
    ],
)
def test_runs_that_learn_are_left_alone_whenever_they_end(env: str, settings: dict[str, Any], tmp_path: Path) -> None:
    so_far, found = Diagnosis(), []
    for event in trained(tmp_path / "run", env, **settings).record:
        so_far.see(event)
        if event["event"] == "update_completed" and event["update"] % 5 == 0:
            found.append(so_far.result())
    assert found
    assert set(found) == {None}


def judged(*levels: float, episodes: int = 10, std: float = 10.0, each: int = 5) -> tuple[float, float] | None:
    """Of a run that has `levels` for `each` updates, but 20 in the first three."""
    means = np.repeat(np.array(levels, dtype=float), each)
    means[:3] = 20
    return stalled_at(np.full(len(means), episodes), means, np.full(len(means), std))


class TestStandingStill:
    @pytest.mark.parametrize(
        "levels",
        [
            (20, 20, 20, 20),
            (20, 20, 20, 24),  # less than half the deviation of 10 above the start
            (20, 100, 100, 50),  # of 80 gained, 50 are lost
            (20, 15, 10, 5),
        ],
    )
    def test_it_does(self, levels: tuple[float, ...]) -> None:
        assert judged(*levels) is not None

    @pytest.mark.parametrize(
        "levels",
        [
            (20, 20, 20, 26),  # more than half the deviation above the start
            (100, 100, 100, 100),  # learned early
            (20, 100, 100, 70),  # of 80 gained, 30 are lost
            (20, 10, 0, 8),  # it is recovering: not above the start, but above the quarter before
        ],
    )
    def test_it_does_not(self, levels: tuple[float, ...]) -> None:
        assert judged(*levels) is None

    def test_the_levels_are_those_of_start_and_end(self) -> None:
        assert judged(30, 20, 20, 18) == (20, 18)

    def test_what_is_noticeable_is_measured_by_the_deviation_of_the_start(self) -> None:
        # Half of 10, and half of 2.
        assert judged(20, 20, 20, 22, std=10.0) is not None
        assert judged(20, 20, 20, 22, std=2.0) is None

    def test_too_little_is_not_judged(self) -> None:
        assert judged(20, each=19) is None
        assert judged(20, each=20) is not None
        # The first 30 episodes are in 30 updates, and the last quarter begins at the 27th or the 33rd.
        assert judged(20, episodes=1, each=36) is None
        assert judged(20, episodes=1, each=44) is not None
        assert judged(20, episodes=0, each=36) is None


def still(**metrics: float) -> list[dict[str, Any]]:
    """Twenty updates of one return, with these metrics."""
    returns = {"episodes": 10, "episode_return_mean": 1.0, "episode_return_std": 1.0}
    return [
        {"event": "update_completed", "update": index, "env_steps": index, **returns, **metrics} for index in range(20)
    ]


def test_a_cause_is_one_function(monkeypatch: pytest.MonkeyPatch) -> None:
    declared: list[Cause] = []
    for module in (causes, diagnosis):
        monkeypatch.setattr(module, "CAUSES", declared)

    @cause("clip_fraction is over 0.5", Try("update_epochs", "lower"), reads=("clip_fraction",))
    def _long_updates(run: Measured) -> str | None:
        share = run.last("clip_fraction")
        return f"most ratios are clipped, clip_fraction {share:.2f}" if share > 0.5 else None

    found = diagnose(still(clip_fraction=0.75))
    assert found is not None
    assert (found.cause, found.tries) == ("long_updates", ["a lower update_epochs"])
    assert found.says.endswith(": most ratios are clipped, clip_fraction 0.75; try a lower update_epochs")
    assert diagnose(still(clip_fraction=0.25)) is None


class TestResume:
    def test_it_is_of_the_whole_record(self, tmp_path: Path) -> None:
        slow = {"lr": 1e-7, "total_timesteps": 24_576}
        part = trained(tmp_path / "parts", "torch/CartPole-v1", **{**slow, "total_timesteps": 22_528})
        assert stalls(part)
        parts, whole = part.resume(total_timesteps=24_576), trained(tmp_path / "whole", "torch/CartPole-v1", **slow)
        (found,), (same,) = stalls(parts), stalls(whole)
        assert found | {"time": 0} == same | {"time": 0}
        assert [event["event"] for event in parts.record[-2:]] == ["learning_stalled", "run_finished"]

    def test_a_record_that_begins_later_is_not_judged(self, tmp_path: Path) -> None:
        # All its episodes may have the return of a perfect policy.
        first = trained(tmp_path / "first", "torch/Worthless-v1", total_timesteps=20_480)
        later = first.resume(total_timesteps=40_960, run_dir=tmp_path / "later")
        assert (bool(stalls(first)), stalls(later)) == (True, [])

    def test_settings_that_changed_are_not_proposed_again(self) -> None:
        updates = still(observation_max=500.0)
        started = {"event": "run_started", "config": {"normalize_observations": False}}
        resumed = {"event": "run_resumed", "update": 20, "changed": {"normalize_observations": [False, True]}}
        found = diagnose([started, *updates])
        assert found is not None
        assert found.cause == "large_observations"
        assert diagnose([started, *updates, resumed]) is None


class TestWhereItIsShown:
    @pytest.fixture(scope="class")
    @staticmethod
    def stuck(tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("runs") / "stuck"
        flags = ["--preset", "none", "--lr", "1e-7", "--total-timesteps", "25000", "--no-tensorboard", "--no-picture"]
        assert main(["ppo", "--env", "torch/CartPole-v1", *flags, "--quiet", "--run-dir", str(folder)]) == 0
        return folder

    def test_on_the_terminal_between_the_last_update_and_the_summary(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = trained(tmp_path / "run", "torch/CartPole-v1", lr=1e-7, total_timesteps=25_000, quiet=False)
        *_, update, line = capsys.readouterr().out.splitlines()
        assert update.startswith("update 25/25")
        assert line.startswith("returns stand still (")
        assert line.endswith("; try a higher lr")
        assert run.diagnosis == line

    def test_the_report_finds_it_at_every_level(self, stuck: Path, tmp_path: Path) -> None:
        lines = (stuck / "events.jsonl").read_text().splitlines(keepends=True)
        (tmp_path / "events.jsonl").write_text("".join(line for line in lines if "learning_stalled" not in line))
        for run in (stuck, tmp_path):
            assert main(["report", str(run)]) == 0
            assert "try a higher lr" in (run / "report" / "report.html").read_text()

    def test_the_comparison_notes_it(self, stuck: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        text = (stuck / "events.jsonl").read_text()
        for seed in (1, 2):
            folder = tmp_path / "arm" / str(seed)
            folder.mkdir(parents=True)
            (folder / "events.jsonl").write_text(text.replace('"seed": 1', f'"seed": {seed}'))
        assert main(["compare", str(tmp_path / "arm"), "--json"]) == 0
        assert '"arm: seeds 1, 2: returns stand still (' in capsys.readouterr().out

    def test_the_levels_that_record_it(self, stuck: Path, tmp_path: Path) -> None:
        assert "learning_stalled" in {event["event"] for event in read_events(stuck)}
        short = {"lr": 1e-7, "total_timesteps": 25_000}
        assert not stalls(trained(tmp_path / "minimal", "torch/CartPole-v1", telemetry="minimal", **short))
