"""Evaluation counts whole episodes fairly and leaves the policy as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

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
from esper.evaluate import EvaluationStopped, evaluate, record_gif
from esper.policy import Policy, load_policy, save_policy
from esper.simic import NetworkConfig, PPOAgent, PPOConfig, RuntimeConfig
from esper.simic.networks import ActorCritic
from esper.stopping import StopRequest


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
    save_policy(tmp_path, agent, EnvConfig(env="Some-v0", env_kwargs={"a": [1]}, vector="envpool"))
    loaded = load_policy(tmp_path)
    obs = torch.randn(7, 5, generator=torch.Generator().manual_seed(1))
    assert loaded.network.act(obs).equal(agent.network.act(obs))
    assert loaded.network.actions == actions
    scale_actions = "on" if scaled_to(actions) else "off"
    assert loaded.environment == EnvConfig(
        env="Some-v0", env_kwargs={"a": [1]}, vector="envpool", scale_actions=scale_actions
    )


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
