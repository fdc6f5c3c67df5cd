"""PPO solves environments whose answers are known."""

import statistics

import pytest
import torch

import probes
from esper.policies.evaluate import run_episodes
from esper.simic import CoefficientConfig, NetworkConfig, PPOAgent, PPOConfig, ScheduleConfig
from esper.simic import train_ppo_vectorized as train
from esper.simic.nets.distributions import Categorical

GAMMA = 0.9


def trained(env: probes.Probe, *, updates: int = 60, **changes: object) -> PPOAgent:
    rate = ScheduleConfig(peak=1e-2, warmup_steps=2, decay="linear", min_ratio=0.05)
    settings: dict[str, object] = {
        "num_envs": probes.NUM_ENVS,
        "num_steps": 16,
        "num_minibatches": 2,
        "total_timesteps": updates * probes.NUM_ENVS * 16,
        "gamma": GAMMA,
        "policy_lr": rate,
        "value_lr": rate,
        "max_grad_norm": None,
        "network": NetworkConfig(hidden_sizes=(16,)),
    }
    agent = PPOAgent(PPOConfig(**(settings | changes)), env.spec, seed=3)  # type: ignore[arg-type]
    train(agent, env)
    return agent


def value(agent: PPOAgent, obs: float) -> float:
    with torch.no_grad():
        return agent.network.value(agent.network.normalize(torch.tensor([[obs]]))).item()


def best_action(agent: PPOAgent, obs: float) -> float:
    with torch.no_grad():
        return agent.network.act(torch.tensor([[obs]])).item()


def test_constant_reward_is_the_value() -> None:
    assert value(trained(probes.ConstantReward()), 0.0) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("shared_trunk", [False, True])
def test_value_depends_on_the_observation(shared_trunk: bool) -> None:
    network = NetworkConfig(hidden_sizes=(16,), shared_trunk=shared_trunk)
    agent = trained(probes.RewardByObservation(), network=network)
    assert [value(agent, obs) for obs in (-1.0, 1.0)] == pytest.approx([-1.0, 1.0], abs=0.05)


def test_a_later_reward_is_discounted_once() -> None:
    agent = trained(probes.DelayedReward())
    assert value(agent, 1.0) == pytest.approx(1.0, abs=0.03)
    assert value(agent, 0.0) == pytest.approx(GAMMA, abs=0.03)


def test_the_rewarded_action_is_found() -> None:
    agent = trained(probes.RewardByAction())
    policy = agent.network.policy(torch.zeros(1, 1))
    assert isinstance(policy, Categorical)
    probabilities = policy.logits.softmax(-1)
    assert probabilities[0, 1] > 0.95


@pytest.mark.parametrize("normalize", [False, True])
def test_the_right_action_depends_on_the_observation(normalize: bool) -> None:
    network = NetworkConfig(hidden_sizes=(16,), normalize_observations=normalize)
    agent = trained(probes.RewardByActionAndObservation(), network=network)
    assert [best_action(agent, obs) for obs in (-1.0, 1.0)] == [0, 1]
    assert value(agent, 1.0) > 0.9


def test_the_right_action_depends_on_the_image() -> None:
    network = NetworkConfig(hidden_sizes=(16,), activation="relu", shared_trunk=True)
    rate = ScheduleConfig(peak=3e-3)
    agent = trained(probes.RewardByImage(), updates=40, network=network, policy_lr=rate, value_lr=rate)
    patches = torch.eye(36, dtype=torch.uint8).view(36, 1, 6, 6) * 255
    with torch.no_grad():
        right = agent.network.act(patches) == (torch.arange(36) % 6 >= 3)
    assert right.float().mean() > 0.9


def test_each_choice_is_learned_by_itself() -> None:
    agent = trained(probes.RewardByEachChoice(), updates=80)
    obs = torch.tensor([[-1.0], [1.0]])
    with torch.no_grad():
        assert agent.network.act(obs).tolist() == [[2, 0, 0], [2, 1, 0]]
        # The answers of all three choices together, of 24 there are.
        assert agent.network.policy(obs).log_prob(torch.tensor([[2, 0, 0], [2, 1, 0]])).exp().min() > 0.8
    assert value(agent, 1.0) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("masked", [True, False])
def test_what_is_masked_need_not_be_learned(masked: bool) -> None:
    agent, env = trained(probes.Trapdoors(masked=masked), updates=40), probes.Trapdoors(masked=masked)
    scores = run_episodes(agent.network, env, episodes=80, seed=0, stochastic=True)
    # Ten steps worth 1 each, or at best 1/8 + 1/8^2 + ... = 1/7.
    assert statistics.fmean(scores.returns) > 9.5 if masked else statistics.fmean(scores.returns) < 0.5
    assert set(scores.lengths) == {10} if masked else max(scores.lengths) < 10


def test_a_continuous_action_is_found() -> None:
    agent = trained(probes.RewardByContinuousAction(), updates=100, entropy_coef=CoefficientConfig(peak=0.0))
    assert best_action(agent, 0.0) == pytest.approx(0.5, abs=0.1)
    assert agent.network.log_std is not None
    assert agent.network.log_std.exp().item() < 0.5


def test_truncation_is_no_end_of_rewards() -> None:
    agent = trained(probes.EndlessReward(), updates=150)
    # V(1) = 1 / (1 - 0.9) = 10 and V(0) = 0.9 * 10. Taken for a termination, V(1) would be at most
    # 1 + 0.9 + 0.9^2 + 0.9^3 = 3.4; with the value of the reset observation at the cut, about 8.2.
    assert value(agent, 1.0) == pytest.approx(10.0, abs=0.5)
    assert value(agent, 0.0) == pytest.approx(9.0, abs=0.5)


@pytest.mark.parametrize("remembers", [True, False])
def test_what_was_seen_once_is_remembered_by_an_lstm_alone(remembers: bool) -> None:
    network = NetworkConfig(hidden_sizes=(8,), lstm_size=8 if remembers else None)
    agent, env = trained(probes.Cue(), updates=40, network=network), probes.Cue()
    score = statistics.fmean(run_episodes(agent.network, env, episodes=80, seed=0).returns)
    # Guessing the sign of something no longer seen is worth 0 on average; over 80 episodes 0.5 is 4 deviations off.
    assert score > 0.95 if remembers else score < 0.5
