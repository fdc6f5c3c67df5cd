"""LSTM and GRU against PyTorch's own, and rollouts of a policy that remembers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import probes
from esper.envs.base import EnvSpec, Vectors
from esper.settings.options import ConfigError
from esper.simic import NetworkConfig, PPOAgent, PPOConfig, RuntimeConfig, ScheduleConfig
from esper.simic.collect import Collector
from esper.simic.nets.recurrent import LAYERS, Recurrent, Sequences
from esper.simic.rollout import Rollout
from esper.simic.sequences import evaluate_sequences
from esper.simic.vectorized import make_collector

CPU = torch.device("cpu")
B, T, D, H = 3, 6, 4, 5


KINDS = tuple(LAYERS)


def made(kind: str, dtype: torch.dtype = torch.float64) -> tuple[Recurrent, Any]:
    """A layer of ours and one of PyTorch's with the same weights; biases that are sums there are one here."""
    ours = LAYERS[kind](D, H).to(dtype)
    theirs: Any = {"lstm": nn.LSTM, "gru": nn.GRU}[kind](D, H, batch_first=True, dtype=dtype)
    ours.initialize(torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours.bias.normal_(generator=torch.Generator().manual_seed(1))
        theirs.weight_ih_l0.copy_(ours.weight_ih)
        theirs.weight_hh_l0.copy_(ours.weight_hh)
        theirs.bias_ih_l0.copy_(ours.bias)
        theirs.bias_hh_l0.zero_()
        if kind == "gru":
            theirs.bias_hh_l0[2 * H :].normal_(generator=torch.Generator().manual_seed(4))
            getattr(ours, "bias_hn").copy_(theirs.bias_hh_l0[2 * H :])  # noqa: B009
    return ours, theirs


def inputs(layer: Recurrent) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(B, T, D, generator=generator, dtype=torch.float64, requires_grad=True)
    return inputs, torch.randn(B, layer.state_size, generator=generator, dtype=torch.float64)


def as_theirs(state: Tensor) -> Any:
    """The state [B, S] as PyTorch's layers take it: a tuple for the LSTM."""
    parts = [part[None].contiguous() for part in state.split(H, 1)]
    return parts[0] if len(parts) == 1 else tuple(parts)


@pytest.mark.parametrize("kind", KINDS)
class TestLayer:
    def test_is_pytorchs_where_no_episode_begins(self, kind: str) -> None:
        ours, theirs = made(kind)
        seen, state = inputs(ours)
        expected, last = theirs(seen, as_theirs(state))
        outputs, states = ours(seen, Sequences(state, torch.zeros(B, T, dtype=torch.bool)))
        torch.testing.assert_close(outputs, expected)
        last = (last,) if kind == "gru" else last
        torch.testing.assert_close(states[:, -1], torch.cat([part[0] for part in last], 1))

    def test_gradients_are_those_of_pytorchs_over_each_episode_by_itself(self, kind: str) -> None:
        ours, theirs = made(kind)
        seen, state = inputs(ours)
        begins = torch.zeros(B, T, dtype=torch.bool)
        begins[0, 3] = begins[1, 0] = begins[1, 5] = True
        weights = torch.randn(B, T, H, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        parameters = dict(ours.named_parameters())
        gradients = torch.autograd.grad(
            (ours(seen, Sequences(state, begins))[0] * weights).sum(), (seen, *parameters.values())
        )
        # Row 0 is two episodes, of which the first goes on; row 1 two that begin; row 2 one that goes on.
        episodes = [(0, 0, 3, True), (0, 3, 6, False), (1, 0, 5, False), (1, 5, 6, False), (2, 0, 6, True)]
        total = torch.zeros((), dtype=torch.float64)
        for row, first, last, goes_on in episodes:
            before = state[row : row + 1] if goes_on else torch.zeros(1, ours.state_size, dtype=torch.float64)
            output, _ = theirs(seen[row : row + 1, first:last], as_theirs(before))
            total = total + (output * weights[row : row + 1, first:last]).sum()
        wanted = (seen, theirs.weight_ih_l0, theirs.weight_hh_l0, theirs.bias_ih_l0, theirs.bias_hh_l0)
        by_seen, *expected, by_bias_hh = torch.autograd.grad(total, wanted)
        if kind == "gru":
            expected.append(by_bias_hh[2 * H :])
        assert list(parameters) == ["weight_ih", "weight_hh", "bias", "bias_hn"][: len(expected)]
        for gradient, right in zip(gradients, (by_seen, *expected), strict=True):
            torch.testing.assert_close(gradient, right)

    def test_a_step_at_a_time_is_the_sequence(self, kind: str) -> None:
        layer, _ = made(kind)
        seen, state = inputs(layer)
        whole, _ = layer(seen, Sequences(state, torch.zeros(B, T, dtype=torch.bool)))
        with torch.no_grad():
            for step in range(T):
                one = Sequences(state, torch.zeros(B, 1, dtype=torch.bool))
                output, states = layer(seen[:, step : step + 1], one)
                state = states[:, -1]
                torch.testing.assert_close(output[:, 0], whole[:, step].detach())

    def test_a_state_that_is_not_finite_is_reset(self, kind: str) -> None:
        layer, _ = made(kind)
        seen, state = inputs(layer)
        begins = torch.zeros(B, T, dtype=torch.bool)
        begins[:, 0] = True
        outputs, _ = layer(seen, Sequences(torch.full_like(state, torch.nan), begins))
        assert outputs.isfinite().all()


def agent_for(spec: EnvSpec, **changes: Any) -> PPOAgent:
    network = {"hidden_sizes": (8,), "rnn": "lstm", "rnn_size": 6} | changes.pop("network", {})
    engine = changes.pop("engine", "auto")
    settings = {"num_envs": spec.num_envs, "num_steps": 12, "num_minibatches": 2, "gamma": 0.9} | changes
    config = PPOConfig(**settings, network=NetworkConfig(**network), runtime=RuntimeConfig(compile=engine))
    return PPOAgent(config, spec, seed=5)


def collected(env: Any, agent: PPOAgent, rollouts: int = 2) -> tuple[Collector, Rollout]:
    collector, rollout = make_collector(agent, env, 1), agent.allocate_rollout()
    assert isinstance(collector, Collector)
    for _ in range(rollouts):
        collector.collect(agent.network, rollout, agent.generators["actions"])
    return collector, rollout


class TestRollout:
    @pytest.mark.parametrize("resets_in_a_step", [False, True])
    @pytest.mark.parametrize("shared_trunk", [False, True])
    @pytest.mark.parametrize("kind", KINDS)
    def test_the_update_sees_the_policy_that_acted(self, kind: str, shared_trunk: bool, resets_in_a_step: bool) -> None:
        """At a rate near 0 every ratio of every minibatch is 1, whatever was remembered and wherever episodes began."""
        env, still = probes.Cue(resets_in_a_step=resets_in_a_step), ScheduleConfig(peak=1e-12)
        agent = agent_for(
            env.spec, policy_lr=still, value_lr=still, engine="off", network={"rnn": kind, "shared_trunk": shared_trunk}
        )
        acted: list[Tensor] = []
        unroll = agent.network.unroll

        def listening(obs: Tensor, sequences: Sequences) -> Any:
            outputs, values, memories = unroll(obs, sequences)
            if obs.shape[1] == 1:
                acted.append(outputs[:, 0])
            return outputs, values, memories

        agent.network.unroll = listening  # type: ignore[method-assign]
        _, rollout = collected(env, agent)
        logits = torch.stack(acted[-12:])
        agent.network.unroll = unroll  # type: ignore[method-assign]
        assert rollout.begins.any()
        assert rollout.ignored.any() == resets_in_a_step
        batch = agent.updater.prepare(rollout)
        expected = logits.log_softmax(-1).gather(-1, rollout.actions.unsqueeze(-1)).squeeze(-1).T
        if batch.selected is not None:
            expected = expected.gather(1, batch.selected)
        torch.testing.assert_close(batch.log_probs, expected)
        metrics = agent.update(rollout).metrics
        assert metrics["ratio_min"] == pytest.approx(1.0, abs=1e-5)
        assert metrics["ratio_max"] == pytest.approx(1.0, abs=1e-5)

    def test_what_was_remembered_is_forgotten_when_an_episode_begins(self) -> None:
        env = probes.Cue()
        agent = agent_for(env.spec)
        collector, rollout = collected(env, agent)
        # Episodes of 4 steps in rollouts of 12: each begins with one.
        assert rollout.begins[:, 0].tolist() == ([True] + [False] * 3) * 3 + [True]
        assert rollout.recurrent_state is not None
        assert rollout.recurrent_state.abs().sum() > 0  # from the rollout before, for what had gone on
        forgetful, other = rollout.recurrent_state, torch.randn_like(rollout.recurrent_state)
        before = agent.updater.prepare(rollout).values
        rollout.recurrent_state = other
        torch.testing.assert_close(agent.updater.prepare(rollout).values, before)
        # Where it goes on, it matters.
        rollout.begins[0] = False
        assert not torch.allclose(agent.updater.prepare(rollout).values, before)
        assert collector.state_dict()["memory"].shape == forgetful.shape

    def test_steps_that_reset_are_not_learned_from(self) -> None:
        env = probes.Cue(resets_in_a_step=True)
        agent = agent_for(env.spec)
        _, rollout = collected(env, agent)
        rows = agent.updater.prepare(rollout).selected
        assert rows is not None
        ignored = torch.from_numpy(rollout.ignored.T)
        assert not ignored.gather(1, rows).any()
        assert rows[~ignored].equal(torch.arange(12).expand(probes.NUM_ENVS, 12)[~ignored])
        # After the final observation comes the step that resets; the episode begins after it.
        begins = torch.from_numpy(rollout.begins[1:].T)
        assert begins[ignored].all()

    def test_a_cut_off_episode_is_worth_what_the_memory_of_it_says(self) -> None:
        env = probes.EndlessReward()
        agent = agent_for(env.spec)
        _, rollout = collected(env, agent)
        with torch.no_grad():
            _, _, next_values = evaluate_sequences(agent.network, rollout.normalized(agent.network.normalize), 4)
            env_index = 0
            memory = rollout.recurrent_state[env_index][None].clone()  # type: ignore[index]
            for step in range(12):
                if rollout.begins[step, env_index]:
                    memory.zero_()
                agent.network.act(rollout.obs[step, env_index][None], recurrent_state=memory)
                cut = rollout.truncated[step, env_index]
                after = rollout.final_obs[step, env_index] if cut else rollout.obs[step + 1, env_index]
                alone = Sequences(memory, torch.zeros(1, 1, dtype=torch.bool))
                expected = agent.network.unroll(after[None, None], alone)[1].item()
                assert next_values[step, env_index].item() == pytest.approx(expected, abs=1e-5)
        assert rollout.truncated[:, 0].any()


class TestState:
    @pytest.mark.parametrize("kind", KINDS)
    def test_a_collector_goes_on_with_what_it_remembers(self, kind: str) -> None:
        rollouts = []
        for interrupted in (False, True):
            env = probes.Cue()
            agent = agent_for(env.spec, network={"rnn": kind})
            collector, rollout = collected(env, agent, rollouts=1)
            if interrupted:
                state = collector.state_dict(), env.state_dict()
                env = probes.Cue()
                another = make_collector(agent, env, 77)
                assert isinstance(another, Collector)
                collector = another
                env.load_state_dict(state[1])
                collector.load_state_dict(state[0])
            collector.collect(agent.network, rollout, agent.generators["actions"])
            rollouts.append(rollout)
        for left, right in zip(rollouts[0].tensors(), rollouts[1].tensors(), strict=True):
            assert left.equal(right)
        memory, again = (rollout.recurrent_state for rollout in rollouts)
        assert memory is not None
        assert again is not None
        assert memory.equal(again)
        assert (rollouts[0].begins == rollouts[1].begins).all()

    def test_a_fresh_collector_remembers_nothing(self) -> None:
        env = probes.Cue()
        agent = agent_for(env.spec)
        collector, rollout = collected(env, agent)
        collector.reset(seed=3)
        collector.collect(agent.network, rollout, agent.generators["actions"])
        assert rollout.recurrent_state is not None
        assert not rollout.recurrent_state.any()


class TestSettings:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"num_minibatches": 3}, "num_minibatches = 3: must divide num_envs = 8 for a recurrent policy"),
            ({"network": {"rnn_size": 0}}, "rnn_size = 0: must be at least 1"),
            ({"network": {"rnn": "elman"}}, "rnn = elman: must be one of lstm, gru"),
            ({"network": {"rnn": None}}, r"rnn_size = 6: needs rnn \(lstm or gru\)"),
            ({"network": {"lstm_size": 3}}, "lstm_size = 3: says what rnn and rnn_size do"),
        ],
    )
    def test_what_cannot_be_is_refused(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            agent_for(probes.Cue().spec, **changes)

    def test_an_older_name_is_the_same_network(self) -> None:
        assert NetworkConfig(lstm_size=3) == NetworkConfig(rnn="lstm", rnn_size=3)

    def test_a_size_is_there_where_none_is_given(self) -> None:
        assert NetworkConfig(rnn="gru") == NetworkConfig(rnn="gru", rnn_size=64)

    @pytest.mark.parametrize("kind", KINDS)
    def test_torch_compile_is_refused(self, kind: Any) -> None:
        config = PPOConfig(num_envs=8, network=NetworkConfig(rnn=kind), runtime=RuntimeConfig(compile="torch"))
        with pytest.raises(ConfigError, match="a recurrent network's sequences"):
            PPOAgent(config, EnvSpec(num_envs=8, observations=Vectors(size=2), actions=probes.Probe.actions))

    @pytest.mark.parametrize(("kind", "parts"), [("lstm", 2), ("gru", 1)])
    def test_a_shared_trunk_has_one_state_and_its_own_rate(self, kind: str, parts: int) -> None:
        apart, shared = (
            agent_for(probes.Cue().spec, network={"rnn": kind, "shared_trunk": flag}) for flag in (False, True)
        )
        assert (apart.network.state_size, shared.network.state_size) == (2 * parts * 6, parts * 6)
        assert shared.optimizer.group_names == ("policy", "value", "shared")
        assert any("weight_hh" in name for name in shared.network.shared_parameters())
