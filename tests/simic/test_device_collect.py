"""Rollouts that stay on the device, against the same ones collected step by step on the host."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import pytest
import torch
from torch._dynamo.utils import counters

from esper.envs.base import DeviceEnv, EnvStates
from esper.envs.device.classic_control import CLASSIC_CONTROL
from esper.envs.device.minatar import MINATAR
from esper.envs.device.registry import DYNAMICS
from esper.envs.make import make_env
from esper.simic import NetworkConfig, PPOAgent, PPOConfig, RuntimeConfig
from esper.simic.collect import Collector
from esper.simic.device_collect import DeviceCollector, Unrolled
from esper.simic.engines.choice import choose_engine
from esper.simic.engines.protocol import Engine, Workload
from esper.simic.rollout import Rollout
from esper.simic.vectorized import Training, make_collector
from esper.telemetry.events import UpdateCompleted

NUM_ENVS = 5
CPU = torch.device("cpu")


@dataclass
class Setting:
    """An agent, and an environment in which episodes are cut after `limit` steps."""

    name: str = "CartPole-v1"
    limit: int = 7
    num_steps: int = 18
    scale_actions: Literal["auto", "on"] = "auto"
    rnn: Literal["lstm", "gru"] | None = None
    encoder: str = "flatten"
    normalize: bool = True
    compile: Literal["off", "native"] = "off"

    def __post_init__(self) -> None:
        env = make_env(
            f"torch/{self.name}",
            num_envs=NUM_ENVS,
            max_episode_steps=self.limit,
            scale_actions=self.scale_actions,
        )
        assert isinstance(env, DeviceEnv)
        config = PPOConfig(
            num_envs=NUM_ENVS,
            num_steps=self.num_steps,
            num_minibatches=1,
            update_epochs=1,
            normalize_rewards=True,
            network=NetworkConfig(
                encoder=self.encoder, hidden_sizes=(8,), normalize_observations=self.normalize, rnn=self.rnn
            ),
            runtime=RuntimeConfig(compile=self.compile),
        )
        self.env, self.agent = env, PPOAgent(config, env.spec)

    def device_collector(self, *, compiled: bool = False, native: bool = False) -> DeviceCollector:
        fill = self.native().fill(self.env) if native else Unrolled(self.env, compiled=compiled)
        assert fill is not None
        return DeviceCollector(self.env, 3, CPU, fill, recurrent_state=self.recurrent_state())

    def host_collector(self, engine: Engine) -> Collector:
        return Collector(self.env, 3, engine.actor, recurrent_state=self.recurrent_state())

    def recurrent_state(self) -> torch.Tensor | None:
        return None if self.rnn is None else torch.zeros(NUM_ENVS, self.agent.network.state_size)

    def native(self) -> Engine:
        """One that computes with this agent's parameters."""
        agent, optimization = self.agent, self.agent.updater
        config = replace(agent.config, runtime=RuntimeConfig(compile="native"))
        workload = Workload(
            network=agent.network,
            optimizer=agent.optimizer,
            coefficients=agent.updater.coefficients,
            feedback=agent.updater.feedback,
            skip=optimization._skip,
            reward_statistics=(),
            config=config,
        )
        return choose_engine(workload).engine

    def rollouts(self, collector: Collector | DeviceCollector, number: int) -> list[Rollout]:
        """With statistics of the observations that change after each, as they do in training."""
        found = []
        for _ in range(number):
            rollout = self.agent.allocate_rollout()
            collector.collect(self.agent.network, rollout, self.agent.generators["actions"])
            if self.normalize:
                assert self.agent.network.normalizer is not None
                self.agent.network.normalizer.update(rollout.obs[:-1].flatten(0, 1))
            found.append(rollout)
        return found


def cut(rollout: Rollout) -> torch.Tensor:
    return rollout.truncated & ~rollout.terminated


class TestAgainstTheHost:
    @pytest.mark.parametrize("name", list(DYNAMICS))
    def test_the_same_to_the_last_bit(self, name: str) -> None:
        ours, theirs = Setting(name, limit=5), Setting(name, limit=5)
        pairs = zip(
            ours.rollouts(ours.device_collector(), 3), theirs.rollouts(Collector(theirs.env, 3), 3), strict=True
        )
        for on_device, on_host in pairs:
            for a, b in zip(on_device.tensors()[:-1], on_host.tensors()[:-1], strict=True):
                assert a.dtype == b.dtype
                assert a.equal(b)
            assert cut(on_device).sum() >= 2 * NUM_ENVS
            assert on_device.final_obs[cut(on_device)].equal(on_host.final_obs[cut(on_host)])
            assert not on_device.ignored.any()
        assert str(ours.env.state_dict()) == str(theirs.env.state_dict())

    @pytest.mark.parametrize("native", [False, True])
    def test_scaled_actions_do_the_same(self, native: bool) -> None:
        """Pendulum's bounds are twice what a policy's are."""
        ours, theirs = (Setting("Pendulum-v1", scale_actions="on") for _ in range(2))
        unscaled = Setting("Pendulum-v1")
        (on_device,) = ours.rollouts(ours.device_collector(native=native), 1)
        (on_host,) = theirs.rollouts(Collector(theirs.env, 3), 1)
        (other,) = unscaled.rollouts(Collector(unscaled.env, 3), 1)
        assert on_device.obs.equal(on_host.obs)
        assert on_device.actions.equal(on_host.actions)
        assert not on_host.obs[1].equal(other.obs[1])
        assert on_host.actions[0].equal(other.actions[0])

    def test_episodes_end_by_themselves_too(self) -> None:
        setting = Setting(limit=500, num_steps=100)
        (rollout,) = setting.rollouts(setting.device_collector(), 1)
        assert rollout.terminated.any()
        # An episode begins within 0.05 of upright; none ends there.
        assert (rollout.obs[1:][rollout.terminated].abs() <= 0.05).all()
        assert (rollout.final_obs[rollout.terminated].abs().amax(-1) > 0.2).all()


class TestCompiled:
    def test_equals_eager_in_one_graph(self) -> None:
        eager, compiled = Setting(num_steps=4, limit=3), Setting(num_steps=4, limit=3)
        collector = compiled.device_collector(compiled=True)
        ours = compiled.rollouts(collector, 1)
        counters.clear()
        ours += compiled.rollouts(collector, 4)
        assert not counters["stats"]
        for a, b in zip(ours, eager.rollouts(eager.device_collector(), 5), strict=True):
            assert a.actions.equal(b.actions)
            assert a.truncated.equal(b.truncated)
            for name in ("obs", "rewards", "final_obs"):
                torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", list(DYNAMICS))
def test_the_kernels_walk_the_same_way(name: str) -> None:
    ours, theirs = Setting(name, limit=13), Setting(name, limit=13)
    pairs = zip(
        ours.rollouts(ours.device_collector(native=True), 3), theirs.rollouts(theirs.device_collector(), 3), strict=True
    )
    for a, b in pairs:
        assert a.truncated.equal(b.truncated)
        assert a.terminated.equal(b.terminated)
        torch.testing.assert_close((a.actions, a.obs, a.rewards), (b.actions, b.obs, b.rewards), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(a.final_obs[cut(a)], b.final_obs[cut(b)], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(tuple(ours.env.states), tuple(theirs.env.states), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("name", list(MINATAR))
def test_the_kernels_see_a_game_through_convolutions_as_torch_does(name: str, normalize: bool) -> None:
    """Scaled images have no zeros, and are convolved in another way."""
    ours, theirs = (Setting(name, encoder="small", normalize=normalize) for _ in range(2))
    for setting in (ours, theirs):
        # Of a policy that prefers something the noise does not decide alone.
        setting.agent.optimizer.parameters[0].mul_(3)
    collectors = ours.device_collector(native=True), theirs.device_collector()
    for a, b in zip(ours.rollouts(collectors[0], 2), theirs.rollouts(collectors[1], 2), strict=True):
        assert a.actions.equal(b.actions)
        assert a.obs.equal(b.obs)
        assert a.rewards.equal(b.rewards)
    assert ours.env.states.state.equal(theirs.env.states.state)


@pytest.mark.parametrize("rnn", ["lstm", "gru"])
@pytest.mark.parametrize("name", list(DYNAMICS))
def test_the_kernels_carry_a_recurrent_state_as_on_the_host(name: str, rnn: Literal["lstm", "gru"]) -> None:
    ours, theirs = Setting(name, limit=13, rnn=rnn), Setting(name, limit=13, rnn=rnn)
    collectors = ours.device_collector(native=True), theirs.host_collector(theirs.native())
    for a, b in zip(ours.rollouts(collectors[0], 3), theirs.rollouts(collectors[1], 3), strict=True):
        torch.testing.assert_close((a.actions, a.obs, a.rewards), (b.actions, b.obs, b.rewards), rtol=1e-4, atol=1e-4)
        assert a.begins[1:].any()
        assert (a.begins == b.begins).all()
        torch.testing.assert_close(a.recurrent_state, b.recurrent_state, rtol=1e-4, atol=1e-4)
        assert not a.recurrent_resets.any()
    states = [collector.state_dict() for collector in collectors]
    assert set(states[0]) == set(states[1]) == set(collectors[0].state_form()) == set(collectors[1].state_form())
    torch.testing.assert_close(states[0]["memory"], states[1]["memory"], rtol=1e-4, atol=1e-4)


def test_a_recurrent_state_that_is_not_finite_is_reset() -> None:
    setting = Setting(rnn="gru", limit=500)
    collector = setting.device_collector(native=True)
    setting.env.states.state[2, 1] = torch.nan
    (rollout,) = setting.rollouts(collector, 1)
    # A position that is not a number ends no episode, until the pole falls.
    assert rollout.recurrent_resets[:5, 2].all()
    assert rollout.begins[:6, 2].all()
    assert not rollout.recurrent_resets[:, [0, 1, 3, 4]].any()
    assert collector.state_dict()["memory"].isfinite().all()


@pytest.mark.parametrize("engine", ["off", "native"])
def test_torch_steps_a_recurrent_policy_on_the_host_and_the_kernels_do_not(engine: Literal["off", "native"]) -> None:
    setting = Setting(rnn="lstm")
    config = replace(setting.agent.config, runtime=RuntimeConfig(compile=engine))
    collector = make_collector(PPOAgent(config, setting.env.spec), setting.env, 1)
    assert isinstance(collector, DeviceCollector if engine == "native" else Collector)


@pytest.mark.parametrize("name", list(MINATAR))
def test_the_kernels_play_whole_games_by_the_same_rules(name: str) -> None:
    """The same actions and random numbers lead to the same states, exactly."""
    setting = Setting(name, limit=900, num_steps=1_000)
    env, network = setting.env, setting.agent.network
    fill, rollout = setting.native().fill(env), setting.agent.allocate_rollout()
    assert fill is not None
    env.reset(0)
    states, uniform = env.states, env.draw(1_000)
    after = fill(network, states, network.noise((1_000, NUM_ENVS), torch.Generator()), uniform, rollout)
    for t in range(1_000):
        assert rollout.obs[t].equal(env.observe(states))
        states, reward, terminated, truncated, final_obs = env.advance(states, rollout.actions[t], uniform[t])
        assert rollout.rewards[t].equal(reward)
        assert rollout.terminated[t].equal(terminated)
        assert rollout.truncated[t].equal(truncated)
        ended = terminated | truncated
        assert rollout.final_obs[t][ended].equal(final_obs[ended])
    assert after.state.equal(states.state)
    assert rollout.terminated.any() or rollout.truncated.any()


@pytest.mark.parametrize("name", list(MINATAR))
def test_the_kernels_step_any_state_of_a_game(name: str) -> None:
    """Also those that are seldom met, or never."""
    setting = Setting(name, limit=900, num_steps=1)
    env, network, generator = setting.env, setting.agent.network, torch.Generator().manual_seed(0)
    fill = setting.native().fill(env)
    assert fill is not None
    limits = [
        (0, env.spec.actions.outputs - 1),
        *((max(low, -10), high) for low, high, n in MINATAR[name].fields for _ in range(n)),
    ]
    low, high = (torch.tensor(limit).float() for limit in zip(*limits, strict=True))
    for _ in range(300):
        shares = torch.rand(NUM_ENVS, len(low), generator=generator)
        states = EnvStates((low + (high - low) * shares).round(), torch.zeros(NUM_ENVS, dtype=torch.int32))
        uniform, rollout = (
            torch.rand(1, NUM_ENVS, env.draw(1).shape[-1], generator=generator),
            setting.agent.allocate_rollout(),
        )
        after = fill(network, states, network.noise((1, NUM_ENVS), generator), uniform, rollout)
        expected = env.advance(states, rollout.actions[0], uniform[0])
        assert rollout.obs[0].equal(env.observe(states))
        assert rollout.rewards[0].equal(expected.reward)
        assert rollout.terminated[0].equal(expected.terminated)
        assert rollout.final_obs[0][expected.terminated].equal(expected.final_obs[expected.terminated])
        assert after.state.equal(expected.states.state)


@pytest.mark.parametrize("name", list(CLASSIC_CONTROL))
def test_the_kernels_take_every_step_that_torch_takes(name: str) -> None:
    """From states all over, as rollouts seldom get far: one step of many states."""
    setting = Setting(name, num_steps=1, limit=500)
    generator = torch.Generator().manual_seed(0)
    env, scale = setting.env, {"CartPole-v1": 1.5, "Acrobot-v1": 3.0, "Pendulum-v1": 3.0}.get(name, 0.5)
    walk, wrapped = setting.native().fill(env), torch.tensor(2 * torch.pi)
    assert walk is not None
    for _ in range(40):
        state = scale * torch.randn(env.states.state.shape, generator=generator)
        states = EnvStates(state, torch.zeros(NUM_ENVS, dtype=torch.int32))
        noise = setting.agent.network.noise((1, NUM_ENVS), generator)
        uniform = torch.rand(1, *state.shape, generator=generator)
        rollouts = [setting.agent.allocate_rollout() for _ in range(2)]
        with torch.no_grad():
            ours, theirs = (
                fill(setting.agent.network, states, noise, uniform, rollout)
                for fill, rollout in zip((walk, Unrolled(env, compiled=False)), rollouts, strict=True)
            )
        a, b = rollouts
        assert a.terminated.equal(b.terminated)
        torch.testing.assert_close((a.actions, a.rewards), (b.actions, b.rewards), rtol=1e-4, atol=1e-4)
        # An angle at pi may be wrapped to either end by the rounding.
        error = (ours.state - theirs.state).abs()
        assert torch.minimum(error, (error - wrapped).abs()).max() < 1e-4
        assert states.state.equal(state)


class TestTraining:
    def test_the_host_reads_nothing_before_the_update_is_read(self, host_reads: list[str]) -> None:
        setting = Setting()
        training = Training(setting.agent, setting.env, env_seed=1)
        host_reads.clear()
        training.update()
        # Rewards and ends, while a device computes: they were copied before. Then the results, at once.
        assert host_reads == ["numpy"] * 3 + ["tolist"]

    @pytest.mark.parametrize("rnn", [None, "lstm"])
    def test_goes_on_to_the_last_bit(self, rnn: Literal["lstm"] | None) -> None:
        first, second = (Setting(rnn=rnn, compile="native" if rnn else "off") for _ in range(2))
        training, resumed = (Training(s.agent, s.env, env_seed=seed) for s, seed in ((first, 1), (second, 9)))
        for _ in range(3):
            training.update()
        resumed.load_state_dict(training.state_dict(), env_seed=9)
        events = [t.update() for t in (training, resumed) for _ in range(3)]
        events = [replace(event, steps_per_second=0.0) for event in events if isinstance(event, UpdateCompleted)]
        assert len(events) == 6
        assert events[:3] == events[3:]
        assert str(training.state_dict()) == str(resumed.state_dict())

    def test_begins_fresh_episodes_without_the_environments_state(self) -> None:
        setting = Setting()
        training = Training(setting.agent, setting.env, env_seed=1)
        training.update()
        training.load_state_dict({**training.state_dict(), "environment": None}, env_seed=4)
        assert setting.env.states.steps.tolist() == [0] * NUM_ENVS
        assert training.state_dict()["collector"]["lengths"].tolist() == [0] * NUM_ENVS

    def test_values_at_truncations_are_the_same_where_all_rows_are_evaluated(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        setting = Setting()
        agent, (rollout,) = setting.agent, setting.rollouts(setting.device_collector(), 1)
        with torch.no_grad():
            rollout = rollout.normalized(agent.network.normalize)
            selected = agent.updater.engine.evaluate_rollout(rollout)[2]
            monkeypatch.setattr("esper.simic.rollout.selects_rows", lambda tensor: False)
            torch.testing.assert_close(agent.updater.engine.evaluate_rollout(rollout)[2], selected)
        assert not selected.equal(agent.network.value(rollout.obs)[1:])
