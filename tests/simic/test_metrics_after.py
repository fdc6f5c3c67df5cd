"""How far the policy is from that of the rollout after the update, which the steps' own metrics cannot say."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import probes
from esper.envs.base import DiscreteActions, EnvSpec, Images, MultiDiscreteActions, Observations, Vectors
from esper.schedules import CoefficientConfig, ScheduleConfig
from esper.simic import NetworkConfig, PPOAgent, PPOConfig, RuntimeConfig
from esper.simic.losses import Coefficients, ratio_metrics
from esper.simic.metrics import named_after
from esper.simic.rollout import Rollout
from esper.simic.vectorized import Training
from esper.telemetry.events import UpdateCompleted

AFTER = {"approx_kl_after", "clip_fraction_after", "ratio_std_after"}
NETWORKS = {
    "apart": NetworkConfig(hidden_sizes=(8,)),
    "shared": NetworkConfig(hidden_sizes=(8,), shared_trunk=True, normalize_observations=True),
    "lstm": NetworkConfig(hidden_sizes=(8,), rnn="lstm", rnn_size=5),
    "gru": NetworkConfig(hidden_sizes=(8,), rnn="gru", rnn_size=5, shared_trunk=True),
}


def make_agent(engine: str = "off", network: str = "apart", masked: bool = True, **changes: Any) -> PPOAgent:
    settings: dict[str, Any] = {
        "num_envs": 4,
        "num_steps": 8,
        "update_epochs": 1,
        "num_minibatches": 1,
        "metrics_after": True,
        "policy_lr": ScheduleConfig(peak=3e-2),
        "network": NETWORKS[network],
        "runtime": RuntimeConfig(compile=engine),  # type: ignore[arg-type]
    }
    actions = MultiDiscreteActions(nvec=(2, 3))
    spec = EnvSpec(num_envs=4, observations=Vectors(size=3), actions=actions, masked=masked)
    return PPOAgent(PPOConfig(**(settings | changes)), spec, seed=1)


@torch.no_grad()
def random_rollout(agent: PPOAgent, *, resets: bool = True) -> Rollout:
    """With episodes that end, and with `resets` with steps that only reset."""
    rollout, generator = agent.allocate_rollout(), torch.Generator().manual_seed(3)
    rollout.obs.copy_(torch.randn(rollout.obs.shape, generator=generator))
    rollout.rewards.normal_(generator=generator)
    rollout.begins[0] = True
    if resets:
        rollout.terminated[2, 1], rollout.truncated[4, 3] = True, True
        rollout.ignored[3, 1], rollout.ignored[5, 3] = True, True
        rollout.begins[3:5, 1] = rollout.begins[5:7, 3] = True
    if rollout.masks is not None:
        rollout.masks.bernoulli_(0.7, generator=generator)
        rollout.masks[..., [0, 2]] = True
        rollout.masks[0, 0, 1] = rollout.masks[0, 0, 3] = True
    return rollout


def test_by_hand() -> None:
    coefficients = Coefficients.allocate(torch.device("cpu"))
    coefficients.set({"clip_coef": 0.2})
    log_ratio = torch.tensor([1.5, 0.9, 1.2, 1.2]).log()
    found = named_after({k: v.item() for k, v in ratio_metrics(log_ratio, log_ratio.exp(), coefficients).items()})
    # 1.5 alone is further than 0.2 from 1, as long as 1.2 is no further in float32.
    assert found["clip_fraction_after"] in (0.25, 0.75)
    # Mean 1.2, deviations 0.3, -0.3, 0, 0.
    assert found["ratio_std_after"] == pytest.approx(math.sqrt(2 * 0.09 / 4), rel=1e-5)
    # The mean of (r - 1) - log r.
    each = [0.5 - math.log(1.5), -0.1 - math.log(0.9), 0.2 - math.log(1.2), 0.2 - math.log(1.2)]
    assert found["approx_kl_after"] == pytest.approx(sum(each) / 4, rel=1e-4)


def test_one_step_on_a_policy_of_two_numbers() -> None:
    """Logits are the biases of the last layer; Adam's first step is lr * sign of the gradient, but for eps."""
    spec = EnvSpec(num_envs=2, observations=Vectors(size=1), actions=DiscreteActions(n=2), masked=False)
    config = PPOConfig(
        num_envs=2,
        num_steps=1,
        update_epochs=1,
        num_minibatches=1,
        gamma=0.0,
        policy_lr=0.1,
        value_lr=1e-30,
        normalize_advantages=False,
        max_grad_norm=None,
        metrics_after=True,
        clip_coef=CoefficientConfig(peak=0.04),
        adam_eps=1e-12,
        network=NetworkConfig(hidden_sizes=()),
        runtime=RuntimeConfig(compile="off"),
    )
    agent = PPOAgent(config, spec, seed=1)
    for flat in agent.optimizer.parameters:
        flat.zero_()
    rollout = agent.allocate_rollout()
    rollout.actions[:] = torch.tensor([[0, 1]])
    rollout.rewards[:] = torch.tensor([[1.0, -1.0]])
    rollout.terminated[:] = True
    metrics = agent.update(rollout).metrics
    assert metrics["approx_kl"] == metrics["clip_fraction"] == metrics["ratio_std"] == 0
    # Both samples prefer action 0: the logits are 0.1 and -0.1, its probability 1 / (1 + e^-0.2) = 0.549834, where it
    # was 1/2. Ratios 1.099668 and 0.900332, on both sides of 1 by 0.099668: all beyond 0.04.
    assert metrics["clip_fraction_after"] == 1
    assert metrics["ratio_std_after"] == pytest.approx(0.099668, rel=1e-4)
    # -(log 1.099668 + log 0.900332) / 2 = -(0.095008 - 0.104992) / 2.
    assert metrics["approx_kl_after"] == pytest.approx(0.004992, rel=1e-2)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("engine", ["off", "native"])
class TestEngines:
    def test_says_what_the_one_step_of_an_update_cannot(self, engine: str, network: str) -> None:
        agent = make_agent(engine, network)
        metrics = agent.update(random_rollout(agent)).metrics
        assert metrics["approx_kl"] == pytest.approx(0, abs=1e-6)
        assert metrics["approx_kl_after"] > 1e-4
        assert metrics["ratio_std_after"] > 1e-2

    def test_is_0_where_rates_are_too_small_to_move(self, engine: str, network: str) -> None:
        """A row of another step, or another recurrent state, would have a ratio of its own."""
        still: dict[str, Any] = {"policy_lr": ScheduleConfig(peak=1e-30), "value_lr": ScheduleConfig(peak=1e-30)}
        agent = make_agent(engine, network, **still)
        metrics = agent.update(random_rollout(agent)).metrics
        assert {name: metrics[name] for name in AFTER} == dict.fromkeys(AFTER, 0.0)

    def test_is_of_the_policy_that_the_steps_left(self, engine: str, network: str) -> None:
        """A second update on the same rollout that moves nothing sees it in its only minibatch."""
        agent = make_agent(engine, network, masked=False)
        rollout = random_rollout(agent, resets=False)
        before = agent.updater.prepare(rollout).log_probs
        after = agent.update(rollout).metrics
        prepare = agent.updater.prepare

        def with_the_first_policy(rollout: Rollout) -> Any:
            return prepare(rollout)._replace(log_probs=before)

        if agent.network.normalizer is not None:
            agent.network.normalizer.load_state_dict(make_agent(engine, network).network.normalizer.state_dict())  # type: ignore[union-attr]
        agent.updater.prepare = with_the_first_policy  # type: ignore[method-assign]
        seen = agent.update(rollout).metrics
        for name in AFTER:
            assert seen[name.removesuffix("_after")] == pytest.approx(after[name], rel=1e-3, abs=1e-6)

    def test_changes_nothing(self, engine: str, network: str) -> None:
        ours, theirs = make_agent(engine, network), make_agent(engine, network, metrics_after=False)
        rollout = random_rollout(ours)
        for _ in range(2):
            measured, plain = ours.update(rollout), theirs.update(rollout)
            assert not AFTER & set(plain.metrics)
            assert {k: v for k, v in measured.metrics.items() if k not in AFTER} == plain.metrics
        for a, b in zip(ours.optimizer.tensors(), theirs.optimizer.tensors(), strict=True):
            assert a.equal(b)
        for name in ("minibatches", "actions"):
            assert ours.generators[name].get_state().equal(theirs.generators[name].get_state())
        assert ours.ignored_rows.bit_generator.state == theirs.ignored_rows.bit_generator.state


def test_an_update_that_was_undone_has_none() -> None:
    agent = make_agent()
    rollout = random_rollout(agent)
    rollout.rewards[0, 0] = torch.nan
    result = agent.update(rollout)
    assert (result.fault is not None, result.metrics) == (True, {})


def test_images_are_evaluated_in_pieces() -> None:
    images: Observations = Images(shape=(1, 36, 36))
    spec = EnvSpec(num_envs=4, observations=images, actions=DiscreteActions(n=3), masked=False)
    settings: dict[str, Any] = {"num_envs": 4, "num_steps": 4, "num_minibatches": 2, "update_epochs": 1}
    network = NetworkConfig(hidden_sizes=(8,), encoder="small", shared_trunk=True)
    config = PPOConfig(**settings, network=network, metrics_after=True, policy_lr=ScheduleConfig(peak=1e-2))
    agent = PPOAgent(config, spec, seed=1)
    rollout = agent.allocate_rollout()
    rollout.obs.copy_(torch.randint(0, 256, rollout.obs.shape, generator=torch.Generator().manual_seed(1)))
    rollout.rewards.normal_(generator=torch.Generator().manual_seed(2))
    assert agent.update(rollout).metrics["approx_kl_after"] > 0


@pytest.mark.parametrize("network", ["apart", "lstm"])
def test_the_host_reads_once(host_reads: list[str], network: str) -> None:
    agent = make_agent("off", network)
    rollout = random_rollout(agent, resets=False)
    host_reads.clear()
    agent.update(rollout)
    assert host_reads == ["tolist"]


def test_events_have_them() -> None:
    env = probes.RewardByActionAndObservation()
    config = PPOConfig(num_envs=probes.NUM_ENVS, num_steps=8, metrics_after=True, runtime=RuntimeConfig(compile="off"))
    event = Training(PPOAgent(config, env.spec, seed=1), env, env_seed=1).update()
    assert isinstance(event, UpdateCompleted)
    assert event.approx_kl_after is not None
    assert event.approx_kl_after > 0
