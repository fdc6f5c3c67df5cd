"""The optimisation phase: no recompilation, no host read, early stop and undo decided on the device."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

import probes
from esper.schedules import CoefficientConfig, ScheduleConfig
from esper.simic.collect import Collector
from esper.simic.config import NetworkConfig, PPOConfig, RuntimeConfig
from esper.simic.losses import Minibatch
from esper.simic.ppo import PPOAgent
from esper.simic.rollout import Rollout
from esper.simic.threads import torch_threads
from esper.simic.vectorized import Training
from esper.telemetry.events import UpdateSkipped

WARMUP_COSINE = ScheduleConfig(peak=3e-3, warmup_steps=20, decay="cosine")


def make_agent(**changes: object) -> PPOAgent:
    settings: dict[str, object] = {
        "num_envs": probes.NUM_ENVS,
        "num_steps": 8,
        "update_epochs": 2,
        "num_minibatches": 2,
        "total_timesteps": 600 * probes.NUM_ENVS * 8,
        "policy_lr": WARMUP_COSINE,
        "value_lr": ScheduleConfig(peak=1e-3, decay="linear", min_ratio=0.1),
        "network": NetworkConfig(hidden_sizes=(8,)),
        "runtime": RuntimeConfig(compile="off"),
    }
    spec = probes.RewardByActionAndObservation().spec
    return PPOAgent(PPOConfig(**(settings | changes)), spec, seed=1)  # type: ignore[arg-type]


def collected(agent: PPOAgent) -> Rollout:
    rollout = agent.allocate_rollout()
    Collector(probes.RewardByActionAndObservation(), 0).collect(agent.network, rollout, agent.generators["actions"])
    return rollout


def snapshot(agent: PPOAgent) -> list[Tensor]:
    return [tensor.clone() for tensor in agent.optimizer.tensors()]


def same(before: list[Tensor], agent: PPOAgent) -> bool:
    return all(a.equal(b) for a, b in zip(before, agent.optimizer.tensors(), strict=True))


@pytest.fixture(scope="module")
def compiled() -> PPOAgent:
    """Compiled once for this module: it takes long."""
    return make_agent(
        runtime=RuntimeConfig(compile="torch"),
        clip_coef=CoefficientConfig(peak=0.2, decay="linear", min_ratio=0.5),
        entropy_coef=CoefficientConfig(peak=0.01, decay="linear"),
    )


class TestCompiled:
    def test_equals_the_uncompiled_update(self, compiled: PPOAgent) -> None:
        eager = make_agent(clip_coef=compiled.config.clip_coef, entropy_coef=compiled.config.entropy_coef)
        eager.load_state_dict(compiled.state_dict())
        rollout = collected(eager)
        ours, theirs = compiled.update(rollout), eager.update(rollout)
        assert ours.metrics == pytest.approx(theirs.metrics, rel=1e-3, abs=1e-5)
        for a, b in zip(compiled.optimizer.parameters, eager.optimizer.parameters, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)

    def test_500_updates_with_all_rates_changing_compile_one_graph(self, compiled: PPOAgent) -> None:
        rollout = collected(compiled)
        compiled.update(rollout)
        counters.clear()
        seen = set()
        for update in range(500):
            # Rows that are replaced because an environment spent the step on a reset must not matter either.
            rollout.ignored[0, :] = update % 2 == 1
            # Nor must how many threads torch has for others.
            with torch_threads(1 + update % 3):
                result = compiled.update(rollout)
            seen.add(tuple(result.rates.learning_rates.values()))
        assert len(seen) == 500
        assert not counters["stats"]
        assert not counters["recompiles"]

    def test_what_is_not_finite_is_refused_and_undone(self, compiled: PPOAgent) -> None:
        rollout = collected(compiled)
        compiled.update(rollout)
        rollout.ignored[2, 5], rollout.obs[2, 5] = True, np.nan
        assert compiled.update(rollout).fault is None
        rollout.obs[3, 1] = np.inf
        before = snapshot(compiled)
        assert compiled.update(rollout).fault == "the observation of environment 1 was inf in step 3 of the rollout"
        assert same(before, compiled)

    def test_a_load_is_seen_by_the_graph_that_is_there(self, compiled: PPOAgent) -> None:
        rollout = collected(compiled)
        state = compiled.state_dict()
        rates = compiled.optimizer.learning_rates
        first = compiled.update(rollout)
        after_first = snapshot(compiled)
        for _ in range(20):
            compiled.update(rollout)
        counters.clear()
        compiled.load_state_dict(state)
        again = compiled.update(rollout)
        assert again.rates == first.rates
        assert same(after_first, compiled)
        assert all(a is b for a, b in zip(rates, compiled.optimizer.learning_rates, strict=True))
        assert not counters["stats"]


class TestHostReads:
    @pytest.mark.parametrize("target_kl", [None, 1e-6])
    def test_one_for_a_whole_update(self, host_reads: list[str], target_kl: float | None) -> None:
        agent = make_agent(target_kl=target_kl)
        rollout = collected(agent)
        host_reads.clear()
        agent.update(rollout)
        assert host_reads == ["tolist"]

    def test_the_count_sees_an_item(self, host_reads: list[str]) -> None:
        host_reads.clear()
        if torch.ones(()) > 0:
            torch.ones(2).sum().item()
        assert len(host_reads) == 2


@pytest.fixture(params=["off", "native"])
def engine(request: pytest.FixtureRequest) -> RuntimeConfig:
    """Decisions are the same, whatever computes."""
    return RuntimeConfig(compile=request.param)


class TestEarlyStop:
    def test_ends_at_the_first_minibatch_over_the_target_and_ticks_once(self, engine: RuntimeConfig) -> None:
        agent = make_agent(runtime=engine, target_kl=1e-9, policy_lr=ScheduleConfig(peak=1e-2))
        result = agent.update(collected(agent))
        # The first minibatch has the policy that collected: no divergence. The second sees the first step.
        assert result.optimizer_steps == 1
        assert agent.train_steps == 1
        assert agent.optimizer.state_dict()["step"].item() == 1

    def test_over_the_target_before_any_step_is_a_skipped_update(self, engine: RuntimeConfig) -> None:
        agent = make_agent(runtime=engine, target_kl=1e-3)
        rollout = collected(agent)
        prepare = agent.updater.prepare

        def with_other_log_probs(rollout: Rollout) -> Minibatch:
            batch = prepare(rollout)
            return batch._replace(log_probs=batch.log_probs - 1.0)

        agent.updater.prepare = with_other_log_probs  # type: ignore[method-assign]
        before = snapshot(agent)
        result = agent.update(rollout)
        assert (result.fault, result.optimizer_steps, agent.train_steps) == (None, 0, 1)
        assert same(before, agent)
        skipped = Training(agent, probes.RewardByActionAndObservation(), env_seed=0).update()
        assert isinstance(skipped, UpdateSkipped)
        assert "target_kl" in skipped.cause

    def test_does_not_end_below_the_target(self, engine: RuntimeConfig) -> None:
        agent = make_agent(runtime=engine, target_kl=10.0)
        assert agent.update(collected(agent)).optimizer_steps == 4


class TestNonFinite:
    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_undoes_the_whole_update_which_ticks_all_the_same(self, engine: RuntimeConfig, bad: float) -> None:
        normalizing = NetworkConfig(hidden_sizes=(8,), normalize_observations=True)
        agent = make_agent(runtime=engine, normalize_rewards=True, network=normalizing)
        rollout = collected(agent)
        agent.update(rollout)
        before, network, scaler = snapshot(agent), agent.state_dict()["network"], agent.state_dict()["reward_scaler"]
        rollout.rewards[3, 2] = bad
        result = agent.update(rollout)
        assert result.fault == f"the reward of environment 2 was {bad:g} in step 3 of the rollout"
        assert result.metrics == {}
        assert agent.train_steps == 2
        assert same(before, agent)
        after = agent.state_dict()
        assert all(tensor.equal(after["network"][name]) for name, tensor in network.items())
        assert all(scaler[name].equal(after["reward_scaler"][name]) for name in ("mean", "var", "count"))

    def test_a_sum_that_overflows_float32_is_not_finite_whatever_adds_it_up(self, engine: RuntimeConfig) -> None:
        """Two squared errors of 2.25e38 in a minibatch of 32: their mean would be 1.4e37."""
        agent = make_agent(runtime=engine, num_minibatches=1)
        batch = agent.updater.prepare(collected(agent))
        batch.returns[:2] = 1.5e19
        metrics, finite = agent.updater.optimize(batch, agent.updater.draw_orders(torch.Generator()))
        assert not finite
        assert metrics[0, agent.updater.metric_names.index("value_loss")].isinf()
        batch.returns[1] = 0.0
        assert agent.updater.optimize(batch, agent.updater.draw_orders(torch.Generator()))[1]

    def test_statistics_of_observations_are_of_steps_that_are_learned_from(self, engine: RuntimeConfig) -> None:
        agent = make_agent(runtime=engine, network=NetworkConfig(hidden_sizes=(8,), normalize_observations=True))
        rollout = collected(agent)
        rollout.obs.fill_(3.0)
        rollout.ignored[2, 5], rollout.obs[2, 5] = True, np.nan
        rollout.ignored[4, 1], rollout.obs[4, 1] = True, 100.0
        assert agent.update(rollout).fault is None
        normalizer = agent.network.normalizer
        assert normalizer is not None
        assert (normalizer.count.item(), normalizer.mean.item(), normalizer.var.item()) == (62, 3.0, 0.0)

    def test_what_follows_a_step_that_only_resets_is_of_the_next_rollout(self, engine: RuntimeConfig) -> None:
        agent = make_agent(runtime=engine)
        rollout = collected(agent)
        rollout.terminated[-2:, 3] = torch.tensor([True, False])
        rollout.ignored[-1, 3], rollout.obs[-1, 3] = True, np.nan
        assert agent.update(rollout).fault is None

    def test_discounted_returns_follow_the_episodes_through_an_undone_rollout(self, engine: RuntimeConfig) -> None:
        agent = make_agent(runtime=engine, normalize_rewards=True, gamma=0.5)
        rollout = collected(agent)
        rollout.rewards.fill_(1.0)
        rollout.terminated[:], rollout.terminated[5] = False, True
        rollout.rewards[3, 2] = rollout.rewards[6, 1] = np.nan
        agent.update(rollout)
        # Steps 6 and 7 are of an episode that goes on: 1, then 1 + 0.5; of environment 1 the first of them is unknown.
        assert agent.reward_scaler.discounted.tolist() == [1.5, 1.0, *[1.5] * 6]
        assert agent.reward_scaler.count.item() == 0

    def test_goes_on_afterwards_as_if_nothing_had_been(self, engine: RuntimeConfig) -> None:
        agent = make_agent(runtime=engine)
        rollout = collected(agent)
        agent.update(rollout)
        good = rollout.rewards.clone()
        rollout.rewards[:] = np.nan
        agent.update(rollout)
        rollout.rewards[:] = good
        before = snapshot(agent)
        result = agent.update(rollout)
        assert result.fault is None
        assert result.update == 2
        assert not same(before, agent)

    def test_is_found_in_the_parameters_after_the_last_step(self, engine: RuntimeConfig) -> None:
        agent = make_agent(runtime=engine, update_epochs=1, num_minibatches=1, policy_lr=ScheduleConfig(peak=1e38))
        rollout = collected(agent)
        before = snapshot(agent)
        assert agent.update(rollout).fault == "parameters after the last minibatch step"
        assert same(before, agent)
        assert agent.train_steps == 1

    @pytest.mark.parametrize("advantage", [1.0, -1.0])
    def test_is_found_in_a_ratio_that_overflows(self, engine: RuntimeConfig, advantage: float) -> None:
        """The objective is clipped to something finite where it gains by the ratio, but its gradient is 0 times it."""
        agent = make_agent(runtime=engine, normalize_advantages=False)
        batch = agent.updater.prepare(collected(agent))
        batch.log_probs[7], batch.advantages[7] = -100.0, advantage
        before = snapshot(agent)
        _, finite = agent.updater.optimize(batch, agent.updater.draw_orders(torch.Generator()))
        assert not finite
        assert same(before, agent)

    def test_is_found_in_a_late_minibatch_too(self, engine: RuntimeConfig) -> None:
        agent = make_agent(runtime=engine, update_epochs=1)
        agent.optimizer.set_learning_rates({"policy": 0.1, "value": 0.1})
        batch = agent.updater.prepare(collected(agent))
        before = snapshot(agent)
        last = torch.randperm(64, generator=torch.Generator().manual_seed(5))[-1]
        batch.returns[last] = torch.nan
        metrics, finite = agent.updater.optimize(batch, agent.updater.draw_orders(torch.Generator().manual_seed(5)))
        # The first of the two minibatches did step, and that step is undone.
        assert metrics[:, agent.updater.metric_names.index("stepped")].tolist() == [1, 0]
        assert not finite
        assert same(before, agent)
