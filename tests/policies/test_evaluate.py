"""Evaluation counts whole episodes fairly and leaves the policy as it was."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from esper.analysis.runs import read_events
from esper.envs.base import (
    ActionBounds,
    Actions,
    ContinuousActions,
    DiscreteActions,
    EnvSpec,
    MultiDiscreteActions,
    Vectors,
    scaled_to,
)
from esper.envs.config import EnvConfig
from esper.policies.evaluate import EvaluationStopped, evaluate
from esper.policies.policy import Policy, load_policy, save_policy
from esper.policies.progress import Progress
from esper.policies.show import record_gif
from esper.scripts.evaluate import _progress as progress_of_evaluation
from esper.scripts.train import main
from esper.settings.options import ConfigError
from esper.simic import NetworkConfig, PPOAgent, PPOConfig, RuntimeConfig
from esper.simic.nets.actor_critic import ActorCritic
from esper.system.stopping import StopRequest


def policy(env: str, size: int, actions: Actions) -> Policy:
    config = NetworkConfig(hidden_sizes=(8,), normalize_observations=True)
    network = ActorCritic(Vectors(size=size), actions, config, torch.Generator().manual_seed(0))
    return Policy(network=network, environment=EnvConfig(env=env))


CART_POLE = ("CartPole-v1", 4, DiscreteActions(n=2))


@pytest.mark.parametrize("episodes", [1, 8, 11])
def test_as_many_episodes_as_asked_for(episodes: int) -> None:
    result = evaluate(policy(*CART_POLE), episodes=episodes, seed=0)
    assert len(result.returns) == len(result.lengths) == episodes
    # Every step of CartPole is worth 1, so the two agree unless a reset was counted as a step.
    assert result.returns == result.lengths


def test_no_episodes_are_refused() -> None:
    with pytest.raises(ConfigError, match="episodes = 0: must be at least 1"):
        evaluate(policy(*CART_POLE), episodes=0, seed=0)


def test_environments_can_be_made_by_a_callable() -> None:
    trained = policy(*CART_POLE)
    by_id = dataclasses.replace(trained, environment=EnvConfig(env="CartPole-v1", vector="sync"))
    elsewhere = dataclasses.replace(trained, environment=EnvConfig(env="Elsewhere-v0", env_kwargs={"a": 1}))
    given = evaluate(elsewhere, episodes=11, seed=0, env=lambda: gymnasium.make("CartPole-v1"))
    assert given == evaluate(by_id, episodes=11, seed=0)
    limited = evaluate(elsewhere, episodes=3, seed=0, max_episode_steps=5, env=lambda: gymnasium.make("CartPole-v1"))
    assert limited.lengths == [5, 5, 5]
    with pytest.raises(ConfigError, match=r"actions = .*the environment takes"):
        evaluate(elsewhere, episodes=1, seed=0, env=lambda: gymnasium.make("Pendulum-v1"))


def test_lengths_of_truncated_episodes_are_the_environments_own() -> None:
    result = evaluate(policy("Pendulum-v1", 3, ContinuousActions(size=1)), episodes=3, seed=0)
    assert result.lengths == [200, 200, 200]


def test_normalization_is_frozen() -> None:
    trained = policy(*CART_POLE)
    before = {name: tensor.clone() for name, tensor in trained.network.state_dict().items()}
    evaluate(trained, episodes=2, seed=0)
    assert all(before[name].equal(tensor) for name, tensor in trained.network.state_dict().items())


def test_sampled_actions_depend_on_the_seed_and_differ_from_the_most_likely() -> None:
    trained = policy(*CART_POLE)
    sampled = [evaluate(trained, episodes=5, seed=seed, stochastic=True).returns for seed in (1, 1, 2)]
    assert sampled[0] == sampled[1] != sampled[2]
    assert sampled[0] != evaluate(trained, episodes=5, seed=1).returns


@pytest.mark.parametrize(
    "actions",
    [
        DiscreteActions(n=3),
        ContinuousActions(size=2),
        ContinuousActions(size=2, scaled_to=ActionBounds(low=(-1.0, 7e-9), high=(1.0, 0.1))),
        MultiDiscreteActions(nvec=(4, 2)),
    ],
)
def test_a_saved_policy_acts_the_same(tmp_path: Path, actions: Actions) -> None:
    network = NetworkConfig(hidden_sizes=(8, 4), activation="relu", shared_trunk=True, normalize_observations=True)
    config = PPOConfig(num_envs=2, network=network, runtime=RuntimeConfig(compile="off"))
    agent = PPOAgent(config, EnvSpec(num_envs=2, observations=Vectors(size=5), actions=actions), seed=1)
    assert agent.network.normalizer is not None
    agent.network.normalizer.update(torch.randn(50, 5, generator=torch.Generator().manual_seed(0)) * 3)
    environment = EnvConfig(env="Some-v0", env_kwargs={"a": [1]}, vector="envpool", max_episode_steps=9)
    save_policy(tmp_path, agent, environment)
    loaded = load_policy(tmp_path)
    obs = torch.randn(7, 5, generator=torch.Generator().manual_seed(1))
    assert loaded.network.act(obs).equal(agent.network.act(obs))
    assert loaded.network.actions == actions
    assert loaded.environment == dataclasses.replace(environment, scale_actions="on" if scaled_to(actions) else "off")


class Later(StopRequest):
    """Is requested when it has been asked five times."""

    asked = 0

    def __bool__(self) -> bool:
        self.asked += 1
        return self.asked > 5


def test_a_stop_ends_an_evaluation_between_steps_and_leaves_no_drawing(tmp_path: Path) -> None:
    with pytest.raises(EvaluationStopped, match="after 0 of 3 episodes"):
        evaluate(policy(*CART_POLE), episodes=3, seed=0, stop=Later(quiet=True))
    with pytest.raises(EvaluationStopped):
        record_gif(policy(*CART_POLE), tmp_path / "a.gif", seed=0, stop=Later(quiet=True))
    assert not list(tmp_path.iterdir())


def saved(folder: Path, env: str) -> None:
    config = PPOConfig(num_envs=1, network=NetworkConfig(hidden_sizes=(8,)), runtime=RuntimeConfig(compile="off"))
    spec = EnvSpec(num_envs=1, observations=Vectors(size=4), actions=DiscreteActions(n=2))
    save_policy(folder, PPOAgent(config, spec, seed=1), EnvConfig(env=env))


class Sometimes(gymnasium.Env[Any, Any]):
    """Half of the episodes end after 5 steps, the others never."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    observation_space = Box(-1, 1, (4,))
    action_space = Discrete(2)

    def __init__(self, share: float = 0.5, render_mode: str | None = None) -> None:
        self.share, self.render_mode = share, render_mode

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.age, self.ends = 0, bool(self.np_random.random() < self.share)
        return np.zeros(4, np.float32), {}

    def step(self, action: Any) -> Any:
        self.age += 1
        return np.zeros(4, np.float32), 1.0, self.ends and self.age == 5, False, {}

    def render(self) -> Any:
        return np.zeros((4, 4, 3), np.uint8)


@pytest.fixture
def sometimes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("esper.policies.evaluate.MAX_EPISODE_STEPS", 30)
    gymnasium.register("Sometimes-v0", entry_point=cast(Any, Sometimes))
    gymnasium.register("Ever-v0", entry_point=cast(Any, Sometimes), kwargs={"share": 0.0})
    yield
    del gymnasium.registry["Sometimes-v0"], gymnasium.registry["Ever-v0"]


def short_sighted(env: str, **settings: Any) -> Policy:
    policy_ = policy(env, 4, DiscreteActions(n=2))
    return dataclasses.replace(policy_, environment=EnvConfig(env=env, **settings))


@pytest.mark.usefixtures("sometimes")
class TestEpisodesThatDoNotEnd:
    @pytest.mark.parametrize("vector", ["sync", "async"])
    def test_are_cut_and_every_copy_has_its_share(self, vector: str) -> None:
        scores = evaluate(short_sighted("Sometimes-v0", vector=vector), episodes=60, seed=0)
        assert len(scores.returns) == 60
        assert set(zip(scores.returns, scores.lengths, scores.capped, strict=True)) == {(5, 5, False), (30, 30, True)}
        # 60 throws of a coin.
        assert 15 < sum(scores.capped) < 45

    def test_a_time_limit_of_the_task_is_no_cut_and_one_that_is_asked_for_is(self) -> None:
        limited = short_sighted("Ever-v0", max_episode_steps=7)
        assert (evaluate(limited, episodes=3, seed=0)).capped == [False] * 3
        scores = evaluate(limited, episodes=3, seed=0, max_episode_steps=9)
        assert (scores.lengths, scores.capped) == ([9, 9, 9], [True, True, True])
        # One that also ends there has ended.
        ends = evaluate(short_sighted("Sometimes-v0"), episodes=40, seed=0, max_episode_steps=5)
        assert set(ends.lengths) == {5}
        assert 8 < sum(ends.capped) < 32

    def test_where_they_are_cut_is_said_once(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO, "esper"):
            evaluate(short_sighted("Ever-v0"), episodes=20, seed=0)
            evaluate(short_sighted("Ever-v0", max_episode_steps=7), episodes=2, seed=0)
            evaluate(policy(*CART_POLE), episodes=2, seed=0)
        (record,) = caplog.records
        assert record.getMessage() == (
            "Ever-v0 has no known time limit: episodes are truncated after 30 steps; --max-episode-steps sets one"
        )

    def test_a_drawing_says_that_it_is_of_a_part(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO, "esper"):
            assert record_gif(short_sighted("Ever-v0"), tmp_path / "a.gif", seed=0, max_frames=6) == 6
            assert record_gif(short_sighted("Ever-v0"), tmp_path / "b.gif", seed=0, max_episode_steps=6) == 6
        assert [record.getMessage() for record in caplog.records] == [
            f"{tmp_path / 'a.gif'}: the drawing stops after 6 frames; the episode goes on"
        ]

    def test_the_command_says_how_many(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        saved(tmp_path, "Ever-v0")
        assert main(["evaluate", str(tmp_path), "--episodes", "9"]) == 0
        says = "9 of 9 episodes were truncated at 30 steps; their returns so far count\n"
        assert capsys.readouterr().out.endswith(says)
        assert main(["evaluate", str(tmp_path), "--episodes", "3", "--max-episode-steps", "4", "--json"]) == 0
        out, err = capsys.readouterr()
        assert json.loads(out) == {"mean": 4.0, "std": 0.0, "iqm": 4.0, "episodes": 3, "capped": 3}
        assert err == ""
        with pytest.raises(SystemExit, match="2"):
            main(["evaluate", str(tmp_path), "--max-episode-steps", "0"])
        assert "--max-episode-steps 0: must be at least 1" in capsys.readouterr().err

    def test_a_run_records_them(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        flags = ["--num-envs", "2", "--num-steps", "8", "--total-timesteps", "32", "--no-picture", "--eval-every", "1"]
        folder = str(tmp_path / "run")
        assert main(["ppo", "--env", "Ever-v0", *flags, "--eval-episodes", "3", "--run-dir", folder]) == 0
        found = [event for event in read_events(tmp_path / "run") if event["event"] == "evaluation_completed"]
        assert [(event["eval_capped"], event["eval_length_mean"]) for event in found] == [(3, 30.0)] * 2
        assert "over 3 episodes, 3 of them truncated by the evaluation" in capsys.readouterr().out
        assert main(["report", folder]) == 0
        assert "truncated by the evaluation" in (tmp_path / "run" / "report" / "report.html").read_text()


def test_progress_is_said_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now, said = [100.0], list[str]()
    monkeypatch.setattr("esper.policies.progress.time.monotonic", lambda: now[0])
    progress = Progress(said.append, 20, first=1.0, every=10.0)
    for step in range(30):
        now[0] = 100.0 + step / 2
        progress(step // 10, 8 * step)
    # After 1 and 11 seconds.
    assert said == ["0 of 20 episodes, 16 steps so far", "2 of 20 episodes, 176 steps so far"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("terminal", "quiet"), [(True, False), (False, False), (True, True)])
def test_progress_on_the_command_line(monkeypatch: pytest.MonkeyPatch, terminal: bool, quiet: bool) -> None:
    now, stream = [100.0], Terminal() if terminal else io.StringIO()
    monkeypatch.setattr("esper.policies.progress.time.monotonic", lambda: now[0])
    monkeypatch.setattr("sys.stderr", stream)
    with progress_of_evaluation(20, quiet=quiet) as on_step:
        for now[0] in (100.9, 101.1, 101.2, 102.0, 109.0, 110.1):
            on_step(int(now[0] - 100), 8)
    lines = ["\x1b[K1 of 20 episodes, 8 steps so far", "\x1b[K2 of 20 episodes, 8 steps so far"]
    lines += ["\x1b[K9 of 20 episodes, 8 steps so far", "\x1b[K10 of 20 episodes, 8 steps so far", "\x1b[K"]
    plain = "10 of 20 episodes, 8 steps so far\n"
    assert stream.getvalue() == ("" if quiet else "".join(f"\r{line}" for line in lines) if terminal else plain)
