"""Learning rates that follow the measured KL: the rule, where it is applied, and what else may not change."""

from __future__ import annotations

import random
from typing import Any, ClassVar

import pytest
import torch
from torch._dynamo.utils import counters

import probes
from esper.schedules import FeedbackConfig, LimitConfig, ScheduleConfig
from esper.settings.options import ConfigError
from esper.simic.collect import Collector
from esper.simic.config import NetworkConfig, PPOConfig, RuntimeConfig
from esper.simic.feedback import Feedback, adjusted
from esper.simic.ppo import PPOAgent
from esper.simic.rollout import Rollout
from esper.simic.vectorized import Training

RULE = FeedbackConfig(target=0.01)


def make_agent(**changes: object) -> PPOAgent:
    settings: dict[str, object] = {
        "num_envs": probes.NUM_ENVS,
        "num_steps": 8,
        "update_epochs": 2,
        "num_minibatches": 2,
        "total_timesteps": 600 * probes.NUM_ENVS * 8,
        "policy_lr": ScheduleConfig(peak=3e-3, warmup_steps=20, decay="cosine"),
        "network": NetworkConfig(hidden_sizes=(8,)),
        "runtime": RuntimeConfig(compile="off"),
    }
    spec = probes.RewardByActionAndObservation().spec
    return PPOAgent(PPOConfig(**(settings | changes)), spec, seed=1)  # type: ignore[arg-type]


def collected(agent: PPOAgent) -> Rollout:
    rollout = agent.allocate_rollout()
    Collector(probes.RewardByActionAndObservation(), 0).collect(agent.network, rollout, agent.generators["actions"])
    return rollout


@pytest.fixture(params=["off", "native"])
def engine(request: pytest.FixtureRequest) -> RuntimeConfig:
    return RuntimeConfig(compile=request.param)


class TestRule:
    @pytest.mark.parametrize(
        ("factor", "approx_kl", "expected"),
        [
            (1.0, 0.021, 1 / 1.5),  # above 2 x 0.01
            (1.0, 0.02, 1.0),  # between half and twice the target nothing changes
            (1.0, 0.005, 1.0),
            (1.0, 0.0049, 1.5),
            (1.0, 0.0, 1.0),  # of 0, or of what rounding makes of it, it learns nothing
            (1.0, 9e-8, 1.0),
            (1.0, -1e-3, 1.0),
            (1.0, float("nan"), 1.0),
            (1.0, float("inf"), 1 / 1.5),
            (8.0, 0.001, 10.0),  # 12, but for the bound
            (0.012, 1.0, 0.01),
        ],
    )
    def test_is_that_of_rsl_rl(self, factor: float, approx_kl: float, expected: float) -> None:
        assert adjusted(torch.tensor(factor), torch.tensor(approx_kl), RULE).item() == pytest.approx(expected)

    def test_step_and_bounds_are_settings(self) -> None:
        config = FeedbackConfig(target=0.01, step=2.0, min_factor=0.3, max_factor=3.0)
        down, up = (adjusted(torch.tensor(1.0), torch.tensor(kl), config).item() for kl in (1.0, 1e-4))
        assert (down, up) == (0.5, 2.0)
        down, up = (adjusted(torch.tensor(x), torch.tensor(kl), config).item() for x, kl in ((0.5, 1.0), (2.0, 1e-4)))
        assert (down, up) == pytest.approx((0.3, 3.0))

    def test_a_long_random_walk_stays_within_its_bounds_and_depends_on_what_was_measured_alone(self) -> None:
        rng, feedback = random.Random(3), Feedback({"policy": RULE, "value": FeedbackConfig()}, torch.device("cpu"))
        walked = 0
        for _ in range(2000):
            before = feedback.factors[0].item()
            feedback.follow("update", torch.tensor(10 ** rng.uniform(-4, 0)), torch.tensor(rng.random() < 0.9))
            now = feedback.factors[0].item()
            walked += now != before
            assert 0.0099999 <= now <= 10.0
            assert now == before or 1 / 1.51 < now / before < 1.51
        assert walked > 500
        assert feedback.factors[1].item() == 1.0


class TestUpdate:
    def test_multiplies_the_rate_of_the_next_update(self, engine: RuntimeConfig) -> None:
        """A high rate moves the policy far, so the next one has the factor 1/1.5; an event has its own."""
        agent = make_agent(runtime=engine, policy_lr=0.05, policy_lr_kl=FeedbackConfig(target=1e-4))
        training = Training(agent, probes.RewardByActionAndObservation(), env_seed=0)
        first, second = training.update(), training.update()
        assert first.approx_kl > 2e-4  # type: ignore[union-attr]
        assert first.lr_factor == {"policy": 1.0, "value": 1.0}  # type: ignore[union-attr]
        assert second.lr_factor == {"policy": pytest.approx(1 / 1.5), "value": 1.0}  # type: ignore[union-attr]
        assert second.lr["policy"] == 0.05  # type: ignore[union-attr]

    def test_a_factor_is_as_good_as_that_rate(self, engine: RuntimeConfig) -> None:
        """Two thirds of the rate by the factor, or by the schedule: the same step, but for rounding."""
        ours = make_agent(runtime=engine, policy_lr=3e-3, policy_lr_kl=RULE)
        theirs = make_agent(runtime=engine, policy_lr=2e-3)
        rollout = collected(ours)
        ours.updater.feedback.factors[0].fill_(2 / 3)
        ours.update(rollout)
        theirs.update(rollout)
        for a, b in zip(ours.optimizer.parameters, theirs.optimizer.parameters, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)

    def test_by_minibatch_the_step_has_the_factor_that_its_own_divergence_gives(self, engine: RuntimeConfig) -> None:
        """Of the four minibatches the first, of the policy that collected, has no divergence: three steps down."""
        feedback = FeedbackConfig(target=1e-6, every="minibatch", step=2.0)
        agent = make_agent(runtime=engine, policy_lr=0.05, policy_lr_kl=feedback)
        result = agent.update(collected(agent))
        assert result.lr_factors == {"policy": 1 / 8, "value": 1.0}
        assert agent.updater.feedback.values() == result.lr_factors

    def test_what_is_undone_leaves_it_as_it_was(self, engine: RuntimeConfig) -> None:
        for every in ("update", "minibatch"):
            feedback = FeedbackConfig(target=1e-6, every=every)
            agent = make_agent(runtime=engine, policy_lr=1e38, policy_lr_kl=feedback, value_lr=1e-3)
            assert agent.update(collected(agent)).fault is not None
            assert agent.updater.feedback.values() == {"policy": 1.0, "value": 1.0}

    def test_a_rollout_that_is_refused_leaves_it_as_it_was(self, engine: RuntimeConfig) -> None:
        agent = make_agent(
            runtime=engine, policy_lr_kl=RULE, value_lr_kl=FeedbackConfig(target=1e-6, every="minibatch")
        )
        rollout = collected(agent)
        rollout.rewards[0, 0] = torch.nan
        assert agent.update(rollout).fault is not None
        assert agent.updater.feedback.values() == {"policy": 1.0, "value": 1.0}

    def test_an_update_over_target_kl_follows_the_steps_that_were_taken(self, engine: RuntimeConfig) -> None:
        """The only step taken is of a minibatch without divergence, so nothing is known."""
        settings: dict[str, Any] = {"policy_lr": 0.05, "target_kl": 1e-4}
        agent = make_agent(runtime=engine, policy_lr_kl=FeedbackConfig(target=1e-4), **settings)
        assert agent.update(collected(agent)).optimizer_steps == 1
        assert agent.updater.feedback.values() == {"policy": 1.0, "value": 1.0}
        by_minibatch = FeedbackConfig(target=1e-5, every="minibatch")
        agent = make_agent(runtime=engine, policy_lr_kl=by_minibatch, **settings)
        assert agent.update(collected(agent)).optimizer_steps == 1
        # The minibatch that ended the update was too far.
        assert agent.updater.feedback.factors[0].item() == pytest.approx(1 / 1.5)

    def test_a_shared_trunk_follows_its_owner(self) -> None:
        network = NetworkConfig(hidden_sizes=(8,), shared_trunk=True)
        for owner, config in (("policy", RULE), ("value", FeedbackConfig())):
            agent = make_agent(network=network, shared_lr=owner, policy_lr_kl=RULE)
            assert dict(zip(agent.optimizer.group_names, agent.updater.feedback.configs, strict=True)) == {
                "policy": RULE,
                "value": FeedbackConfig(),
                "shared": config,
            }
        with pytest.raises(ConfigError, match="needs the same lr_kl settings"):
            make_agent(network=network, shared_lr="min", policy_lr_kl=RULE)


class TestCost:
    BOTH: ClassVar[dict[str, Any]] = {
        "policy_lr_kl": FeedbackConfig(target=1e-4),
        "value_lr_kl": FeedbackConfig(target=1e-5, every="minibatch"),
    }

    def test_the_host_reads_once_an_update(self, host_reads: list[str]) -> None:
        agent = make_agent(**self.BOTH)
        rollout = collected(agent)
        host_reads.clear()
        assert agent.update(rollout).lr_factors is not None
        assert host_reads == ["tolist"]

    def test_nothing_is_compiled_anew_and_the_factors_are_those_of_eager_torch(self) -> None:
        agent, eager = make_agent(runtime=RuntimeConfig(compile="torch"), **self.BOTH), make_agent(**self.BOTH)
        rollout = collected(eager)
        assert agent.update(rollout).lr_factors == eager.update(rollout).lr_factors
        counters.clear()
        seen = {tuple((agent.update(rollout).lr_factors or {}).values()) for _ in range(50)}
        assert len(seen) > 3
        assert not counters["stats"]
        assert not counters["recompiles"]

    def test_a_factor_of_1_changes_no_bit(self, engine: RuntimeConfig) -> None:
        fixed = FeedbackConfig(target=1.0, min_factor=1.0, max_factor=1.0)
        plain, followed = make_agent(runtime=engine), make_agent(runtime=engine, policy_lr_kl=fixed)
        rollout = collected(plain)
        for _ in range(3):
            assert plain.update(rollout).lr_factors is None
            assert followed.update(rollout).lr_factors == {"policy": 1.0, "value": 1.0}
        for a, b in zip(plain.optimizer.tensors(), followed.optimizer.tensors(), strict=True):
            assert a.equal(b)


class TestState:
    def test_goes_on_where_it_was(self, engine: RuntimeConfig) -> None:
        agent = make_agent(runtime=engine, policy_lr=0.05, policy_lr_kl=FeedbackConfig(target=1e-4))
        rollout = collected(agent)
        agent.update(rollout)
        factors = agent.updater.feedback.factors
        state, again = agent.state_dict(), [agent.update(rollout).lr_factors for _ in range(3)]
        agent.load_state_dict(state)
        assert [agent.update(rollout).lr_factors for _ in range(3)] == again
        assert all(a is b for a, b in zip(factors, agent.updater.feedback.factors, strict=True))
        assert again[0] == {"policy": pytest.approx(1 / 1.5), "value": 1.0}

    def test_ends_where_it_is_switched_off_and_keeps_to_new_bounds(self) -> None:
        state = make_agent(policy_lr_kl=RULE, value_lr_kl=RULE).state_dict()
        state["lr_factors"] = {"policy": torch.tensor(0.02), "value": torch.tensor(0.02)}
        agent = make_agent(value_lr_kl=FeedbackConfig(target=0.01, min_factor=0.5))
        agent.load_state_dict(state)
        assert agent.updater.feedback.values() == {"policy": 1.0, "value": 0.5}

    def test_the_switch_turns_it_off(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ESPER_LR_SCHEDULE", "off")
        agent = make_agent(policy_lr_kl=RULE)
        assert agent.update(collected(agent)).lr_factors is None


@pytest.mark.parametrize(
    ("settings", "name", "message"),
    [
        ({"target": 0.0}, "target", "above 0|greater than 0"),
        ({"target": float("nan")}, "target", "finite|above 0|greater"),
        ({"min_factor": 0.5}, "min_factor", "needs a target beside it"),
        ({"every": "minibatch"}, "every", "needs a target beside it"),
        ({"target": 0.1, "min_factor": 2.0}, "min_factor", "1"),
        ({"target": 0.1, "max_factor": 0.5}, "max_factor", "1"),
        ({"target": 0.1, "step": 1.0}, "step", "1"),
        ({"target": 0.1, "every": "epoch"}, "every", "minibatch"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        FeedbackConfig(**settings)
    assert caught.value.name == name


def test_a_target_that_target_kl_hides_is_refused() -> None:
    falling = LimitConfig(peak=0.05, decay="linear", min_ratio=0.1)
    with pytest.raises(
        ConfigError, match=r"value_lr_kl_target = 0\.01: .* at most target_kl, whose lowest value is 0\.005"
    ):
        PPOConfig(target_kl=falling, value_lr_kl=RULE)
    PPOConfig(target_kl=LimitConfig(peak=0.01), value_lr_kl=RULE)
