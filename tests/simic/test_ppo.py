"""The agent: its clock, its rates, its state."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import probes
from esper.envs.base import ObsArray
from esper.schedules import CoefficientConfig
from esper.settings.options import ConfigError
from esper.simic import NetworkConfig, PPOAgent, PPOConfig, RuntimeConfig, ScheduleConfig, make_schedule
from esper.simic import train_ppo_vectorized as train
from esper.simic.metrics import explained_variance
from esper.simic.vectorized import Training
from esper.system.seeding import host_generator, integer_seed
from esper.telemetry.anomalies import AnomalyDetector
from esper.telemetry.events import Event, UpdateCompleted
from esper.telemetry.records import to_record

POLICY = ScheduleConfig(peak=3e-3, delay=2, warmup_steps=3, decay="cosine", min_ratio=0.1)
VALUE = ScheduleConfig(peak=1e-3, warmup_frac=0.2, decay="linear")
UPDATES = 20


def config(**changes: Any) -> PPOConfig:
    settings: dict[str, Any] = {
        "num_envs": probes.NUM_ENVS,
        "num_steps": 4,
        "update_epochs": 1,
        "num_minibatches": 2,
        # One step too few for a whole last rollout: the number of updates is rounded up.
        "total_timesteps": UPDATES * probes.NUM_ENVS * 4 - 1,
        "policy_lr": POLICY,
        "value_lr": VALUE,
        "network": NetworkConfig(hidden_sizes=(8,)),
        "runtime": RuntimeConfig(compile="off"),
    }
    return PPOConfig(**(settings | changes))


def run(agent: PPOAgent, env: probes.Probe | None = None) -> list[UpdateCompleted]:
    events: list[UpdateCompleted] = []
    train(agent, env or probes.RewardByObservation(), on_event=events.append)  # type: ignore[arg-type]
    return events


def training(settings: PPOConfig, seed: int = 1, env: probes.Probe | None = None) -> Training:
    return Training(agent_for(settings, seed, env), env or probes.RewardByObservation(), env_seed=1)


def agent_for(settings: PPOConfig, seed: int = 1, env: probes.Probe | None = None) -> PPOAgent:
    return PPOAgent(settings, (env or probes.RewardByObservation()).spec, seed=seed)


def test_a_callback_gets_completed_updates_alone() -> None:
    """An environment whose third rollout has a reward that is not finite: its update is skipped."""

    class Broken(probes.ConstantReward):
        steps = 0

        def outcome(self, obs: NDArray[Any], actions: NDArray[Any]) -> probes.Outcome:
            self.steps += 1
            reward, final_obs, terminated, truncated = super().outcome(obs, actions)
            return reward * (float("nan") if self.steps == 9 else 1.0), final_obs, terminated, truncated

    events: list[Event] = []
    updates: list[UpdateCompleted] = []
    env = Broken()
    train(agent_for(config(), env=env), env, on_event=events.append, on_update=updates.append)
    assert [type(event).__name__ for event in events].count("UpdateSkipped") == 1
    assert updates == [event for event in events if isinstance(event, UpdateCompleted)]
    assert len(updates) == UPDATES - 1


class TestExplainedVariance:
    @pytest.mark.parametrize(
        ("returns", "values", "expected"),
        [
            # Returns vary by 1, what is left by ((-2)^2 + 0 + 2^2) / 2 = 4: 1 - 4 / 1.
            ([1.0, 2.0, 3.0], [3.0, 2.0, 1.0], -3.0),
            # An offset is no variance: 1 - 0.
            ([1.0, 2.0, 3.0], [11.0, 12.0, 13.0], 1.0),
            # Half of each deviation is left, a quarter of the variance.
            ([-4.0, 0.0, 4.0], [-2.0, 0.0, 2.0], 0.75),
            # Deviation sqrt(2) * 2 = 2.83 around 100: over 2 % of 100. What is left varies by ((-4)^2 + 4^2) / 1 = 32
            # where returns vary by 8.
            ([98.0, 102.0], [102.0, 98.0], -3.0),
            ([-98.0, -102.0], [-102.0, -98.0], -3.0),
            # Deviation sqrt(2) = 1.41 around 100: below 2 %.
            ([99.0, 101.0], [101.0, 99.0], None),
            ([99.0, 101.0], [99.0, 101.0], None),
            ([0.0099, 0.0101], [0.0101, 0.0099], None),
            ([-99.0, -101.0], [-101.0, -99.0], None),
            ([5.0, 5.0], [4.0, 6.0], None),
            ([0.0, 0.0], [1.0, -1.0], None),
        ],
    )
    def test_of_a_rollout(self, returns: list[float], values: list[float], expected: float | None) -> None:
        found = explained_variance(torch.tensor(returns), torch.tensor(values))
        assert (found.shape, found.dtype) == ((), torch.float32)
        if expected is None:
            assert found.isnan()
        else:
            assert found.item() == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_of_what_is_not_finite_is_not_finite(self, value: float) -> None:
        assert not explained_variance(torch.tensor([1.0, value]), torch.tensor([1.0, 2.0])).isfinite()

    assert explained_variance(torch.tensor([1.0]), torch.tensor([2.0])).isnan()

    def test_is_absent_and_no_anomaly_where_the_reward_is_nearly_always_the_same(self) -> None:
        """Values that learn much too fast, and jump about by more than the reward does."""

        class Rewards(probes.ConstantReward):
            def outcome(self, obs: NDArray[Any], actions: NDArray[Any]) -> probes.Outcome:
                reward, final_obs, terminated, truncated = super().outcome(obs, actions)
                reward = reward + self._rng.choice([-0.001, 0.001], size=probes.NUM_ENVS)
                return reward, final_obs, terminated, truncated

            def start(self) -> ObsArray:
                return self._rng.normal(size=(probes.NUM_ENVS, 1)).astype(np.float32)

        env = Rewards()
        settings = config(value_lr=ScheduleConfig(peak=0.1), max_grad_norm=None, update_epochs=4)
        events = run(agent_for(settings, env=env), env)
        assert [event.explained_variance for event in events] == [None] * UPDATES
        assert self._anomalies(events) == []

    def test_a_value_function_that_collapses_is_an_anomaly(self) -> None:
        """V(o) = o is learned; from update 10 on it is -5 o: 1 - Var(6 o) / Var(o) = -35."""
        agent = agent_for(config(value_lr=ScheduleConfig(peak=0.03), max_grad_norm=None, update_epochs=8))
        events: list[UpdateCompleted] = []

        def break_once(event: Event) -> None:
            assert isinstance(event, UpdateCompleted)
            events.append(event)
            if event.update == 9:
                *_, weight, bias = agent.network.value_parameters().values()
                with torch.no_grad():
                    weight.mul_(-5.0)
                    bias.mul_(-5.0)

        train(agent, probes.RewardByObservation(), on_event=break_once)
        assert events[9].explained_variance == pytest.approx(1.0, abs=0.1)
        assert events[10].explained_variance == pytest.approx(-35.0, abs=4.0)
        assert self._anomalies(events)[0] == (10, "value_collapse")

    @staticmethod
    def _anomalies(events: list[UpdateCompleted]) -> list[tuple[int, str]]:
        detector = AnomalyDetector()
        detector.see({"event": "run_started", "total_updates": UPDATES})
        return [(event.update, anomaly.kind) for event in events for anomaly in detector.see(to_record(event))]


class TestRates:
    def test_traces_equal_the_schedules_at_every_update_for_each_component(self) -> None:
        events = run(agent_for(config()))
        policy, value = make_schedule(POLICY, UPDATES), make_schedule(VALUE, UPDATES)
        assert [event.update for event in events] == list(range(UPDATES))
        assert [event.lr for event in events] == [{"policy": policy(u), "value": value(u)} for u in range(UPDATES)]
        assert [event.lr_phase["policy"] for event in events] == [policy.phase(u) for u in range(UPDATES)]

    def test_the_optimizer_has_the_rate_that_is_reported(self) -> None:
        agent = agent_for(config())
        for event in run(agent):
            reported = torch.tensor([event.lr["policy"], event.lr["value"]])
        assert torch.stack(agent.optimizer.learning_rates).equal(reported)

    def test_delay_moves_the_critic_and_leaves_the_policy_exactly_where_it_was(self) -> None:
        agent = agent_for(config(total_timesteps=64, policy_lr=ScheduleConfig(peak=1.0, delay=1)))
        policy, value = (flat.clone() for flat in agent.optimizer.parameters)
        moved = []
        train(agent, probes.RewardByObservation(), on_event=lambda e: moved.append(self._moved(agent, policy, value)))
        assert moved == [(False, True), (True, True)]

    @staticmethod
    def _moved(agent: PPOAgent, policy: torch.Tensor, value: torch.Tensor) -> tuple[bool, bool]:
        now = agent.optimizer.parameters
        return (not now[0].equal(policy), not now[1].equal(value))

    @pytest.mark.parametrize(
        ("owner", "expected"), [("policy", [0.0, 0.003]), ("value", [0.002, 0.002]), ("min", [0.0, 0.002])]
    )
    def test_a_shared_trunk_follows_its_owner(self, owner: str, expected: list[float]) -> None:
        settings = config(
            policy_lr=ScheduleConfig(peak=0.003, delay=1),
            value_lr=ScheduleConfig(peak=0.002),
            shared_lr=owner,
            network=NetworkConfig(hidden_sizes=(8,), shared_trunk=True),
        )
        events = run(agent_for(settings))
        assert [event.lr["shared"] for event in events[:2]] == expected

    def test_coefficients_follow_their_schedules(self) -> None:
        linear: dict[str, Any] = {"decay": "linear", "min_ratio": 0.5}
        settings = config(
            clip_coef=CoefficientConfig(peak=0.2, **linear), entropy_coef=CoefficientConfig(peak=0.01, **linear)
        )
        events = run(agent_for(settings))
        # Halfway in time is three quarters of the way from half to all.
        assert events[10].clip_coef == pytest.approx(0.15)
        assert events[10].entropy_coef == pytest.approx(0.0075)

    def test_past_the_horizon_the_rate_stays_at_the_floor_and_that_is_said(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        agent = agent_for(config())
        run(agent)
        assert caplog.records == []
        assert run(agent)[-1].lr == pytest.approx({"policy": 3e-4, "value": 0.0})
        assert agent.train_steps == 2 * UPDATES
        (message,) = [record.getMessage() for record in caplog.records]
        assert message.startswith(f"the schedules end with update {UPDATES - 1} of the {2 * UPDATES} updates")
        assert "after that: policy_lr 0.0003, value_lr 0; agent.set_horizon sets a new horizon" in message

    def test_constant_schedules_leave_a_run_bit_identical_to_one_that_never_touches_its_rates(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        constant = {"policy_lr": ScheduleConfig(peak=3e-3), "value_lr": ScheduleConfig(peak=1e-3)}
        scheduled, untouched = agent_for(config(**constant)), agent_for(config(**constant))
        run(scheduled)
        untouched.optimizer.set_learning_rates({"policy": 3e-3, "value": 1e-3})
        monkeypatch.setattr(untouched.optimizer, "set_learning_rates", lambda rates: None)
        run(untouched)
        pairs = zip(scheduled.optimizer.tensors(), untouched.optimizer.tensors(), strict=True)
        assert all(a.equal(b) for a, b in pairs)


class TestSwitch:
    def test_off_makes_both_rates_constant_at_their_base(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ESPER_LR_SCHEDULE", "off")
        agent = agent_for(config())
        events = run(agent)
        assert not agent.lr_schedules_on
        assert all(event.lr == {"policy": 3e-3, "value": 1e-3} for event in events)
        assert all(event.lr_phase == {"policy": "constant", "value": "constant"} for event in events)

    def test_another_value_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ESPER_LR_SCHEDULE", "maybe")
        with pytest.raises(ConfigError, match="must be on or off"):
            agent_for(config())


class TestState:
    # After 5 updates of 4 steps a masked episode of 10 has just ended, and the next one begun.
    @pytest.mark.parametrize("stop", [1, 2, 5, 7])
    @pytest.mark.parametrize("probe", [probes.RewardByObservation, probes.Trapdoors, probes.RewardByEachChoice])
    def test_a_run_cut_in_two_ends_where_the_whole_run_ends(self, probe: type[probes.Probe], stop: int) -> None:
        settings = config(normalize_rewards=True, network=NetworkConfig(hidden_sizes=(8,), normalize_observations=True))
        whole, first = training(settings, env=probe()), training(settings, env=probe())
        events = [whole.update() for _ in range(UPDATES)]
        for _ in range(stop):
            first.update()
        resumed = training(settings, seed=99, env=probe())
        resumed.load_state_dict(first.state_dict(), env_seed=99)
        again = [resumed.update() for _ in range(UPDATES - stop)]
        assert [comparable(event) for event in again] == [comparable(event) for event in events[stop:]]
        pairs = zip(whole.agent.optimizer.tensors(), resumed.agent.optimizer.tensors(), strict=True)
        assert all(a.equal(b) for a, b in pairs)

    def test_without_the_environments_state_episodes_and_their_discounted_returns_begin_anew(self) -> None:
        first, resumed = (training(config(normalize_rewards=True), env=probes.EndlessReward()) for _ in range(2))
        first.update()
        resumed.load_state_dict({**first.state_dict(), "environment": None}, env_seed=3)
        state = resumed.state_dict()
        assert state["collector"]["lengths"].tolist() == [0] * probes.NUM_ENVS
        assert state["agent"]["reward_scaler"]["discounted"].tolist() == [0.0] * probes.NUM_ENVS
        assert state["agent"]["train_steps"] == 1

    @pytest.mark.parametrize(
        ("name", "value"),
        [("undone", 2), ("undone", -1), ("episodes", -1), ("skipped", -1), ("skipped", 1), ("first_update", 2)],
    )
    def test_counts_that_cannot_be(self, name: str, value: int) -> None:
        run = training(config())
        run.update()
        with pytest.raises(ValueError, match="do not fit together"):
            run.load_state_dict({**run.state_dict(), name: value}, env_seed=1)

    def test_two_runs_with_a_seed_are_identical_and_another_seed_is_not(self) -> None:
        first, second, other = agent_for(config()), agent_for(config()), agent_for(config(), seed=2)
        records = [[comparable(event) for event in run(agent)] for agent in (first, second, other)]
        assert records[0] == records[1]
        assert records[0] != records[2]
        pairs = zip(first.optimizer.tensors(), second.optimizer.tensors(), strict=True)
        assert all(a.equal(b) for a, b in pairs)

    def test_making_and_training_an_agent_leaves_torchs_own_generator_alone(self) -> None:
        before = torch.get_rng_state()
        run(agent_for(config()))
        assert torch.get_rng_state().equal(before)


def comparable(event: Event) -> dict[str, object]:
    record = to_record(event)
    record.pop("steps_per_second")
    return record


class TestInitialization:
    def test_is_orthogonal_with_a_small_policy_head(self) -> None:
        agent = agent_for(config(network=NetworkConfig(hidden_sizes=(8, 8))))
        hidden, head = (agent.network.actor[layer].get_parameter("weight") for layer in (2, -1))
        torch.testing.assert_close(hidden @ hidden.T, 2 * torch.eye(8))
        torch.testing.assert_close(head @ head.T, 1e-4 * torch.eye(2), atol=1e-9, rtol=1e-4)
        assert agent.network.actor[2].get_parameter("bias").eq(0).all()


class TestSeeding:
    def test_uses_have_streams_of_their_own(self) -> None:
        draws = {use: host_generator(1, use).integers(2**60) for use in ("init", "actions", "env", "minibatches")}
        assert len(set(draws.values())) == 4
        assert integer_seed(1, "env") == integer_seed(1, "env") != integer_seed(2, "env")


class TestBadInput:
    def test_another_number_of_environments(self) -> None:
        with pytest.raises(ConfigError, match="num_envs = 4: must be 8, as many as the environment has"):
            agent_for(config(num_envs=4))

    def test_a_device_that_is_not_there(self) -> None:
        with pytest.raises(ConfigError, match="device = gpu"):
            agent_for(config(runtime=RuntimeConfig(device="gpu")))

    @pytest.mark.parametrize("device", ["meta", "hpu"])
    def test_a_device_that_cannot_train(self, device: str) -> None:
        with pytest.raises(ConfigError, match=rf"device = {device}: .*, use cpu"):
            agent_for(config(runtime=RuntimeConfig(device=device)))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"num_minibatches": 3}, r"must divide num_envs \* num_steps = 8 \* 4 = 32; the nearest that does is 2"),
            ({"num_minibatches": 32}, "minibatches of at least 2"),
            ({"num_steps": 0}, "num_steps = 0: must be at least 1"),
            ({"gamma": 1.5}, "gamma = 1.5: must be at least 0 and at most 1"),
            ({"max_grad_norm": 0.0}, "max_grad_norm = 0: must be greater than 0"),
            ({"clip_coef": CoefficientConfig(peak=0.0)}, "clip_coef = 0: must be greater than 0"),
            ({"policy_lr": ScheduleConfig(warmup_steps=20)}, "policy_lr_warmup_steps = 20: warmup"),
            ({"value_lr": ScheduleConfig(decay="wsd", decay_frac=1.0, warmup_steps=1)}, "value_lr_decay_frac = 1"),
            ({"shared_lr": "both"}, "shared_lr = both: must be one of policy, value, min"),
        ],
    )
    def test_is_refused_by_name(self, changes: dict[str, object], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            config(**changes)

    def test_a_shared_trunk_without_layers(self) -> None:
        with pytest.raises(ConfigError, match="needs at least one hidden layer"):
            NetworkConfig(shared_trunk=True, hidden_sizes=())
