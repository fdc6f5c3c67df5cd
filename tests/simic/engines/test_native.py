"""The C++ learner computes what the torch learner computes."""

from __future__ import annotations

import ctypes
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from esper.envs.base import Actions, ContinuousActions, DiscreteActions, EnvSpec, MultiDiscreteActions, Vectors
from esper.schedules import CoefficientConfig, ScheduleConfig
from esper.settings.options import ConfigError
from esper.simic.advantages import compute_gae
from esper.simic.config import NetworkConfig, PPOConfig, RuntimeConfig
from esper.simic.engines.native import layout
from esper.simic.engines.native.library import BuildError
from esper.simic.losses import Minibatch
from esper.simic.metrics import explained_variance
from esper.simic.ppo import PPOAgent
from esper.simic.rollout import Rollout

NUM_ENVS = 8

CASES: dict[str, dict[str, object]] = {
    "as it comes": {},
    "five actions": {"actions": DiscreteActions(n=5)},
    "continuous": {"actions": ContinuousActions(size=6), "observation_size": 17},
    "one continuous action": {"actions": ContinuousActions(size=1), "observation_size": 1},
    "relu, odd widths": {"network": NetworkConfig(hidden_sizes=(33, 17, 5), activation="relu")},
    "wide": {"network": NetworkConfig(hidden_sizes=(130, 256)), "observation_size": 128},
    "no hidden layer": {"network": NetworkConfig(hidden_sizes=())},
    "a deeper critic": {"network": NetworkConfig(hidden_sizes=(9,), critic_hidden_sizes=(33, 17), activation="relu")},
    "a linear actor": {"network": NetworkConfig(actor_hidden_sizes=(), activation="relu")},
    "a linear critic": {"network": NetworkConfig(hidden_sizes=(7, 5), critic_hidden_sizes=())},
    "a shared trunk": {"network": NetworkConfig(shared_trunk=True)},
    "a shared trunk, odd widths": {
        "network": NetworkConfig(hidden_sizes=(33, 5), activation="relu", shared_trunk=True)
    },
    "a shared trunk, continuous": {
        "network": NetworkConfig(hidden_sizes=(20,), shared_trunk=True),
        "actions": ContinuousActions(size=3),
    },
    "elu": {"network": NetworkConfig(activation="elu")},
    "gelu": {"network": NetworkConfig(hidden_sizes=(33, 17, 5), activation="gelu")},
    "silu, a shared trunk": {"network": NetworkConfig(hidden_sizes=(33, 5), activation="silu", shared_trunk=True)},
    "layer normalization": {"network": NetworkConfig(layer_norm=True)},
    "layer normalization, odd widths": {
        "network": NetworkConfig(hidden_sizes=(33, 17, 5), activation="gelu", layer_norm=True)
    },
    "layer normalization in a shared trunk": {
        "network": NetworkConfig(hidden_sizes=(9, 40), activation="elu", layer_norm=True, shared_trunk=True),
        "actions": ContinuousActions(size=2),
    },
    "masks": {"actions": DiscreteActions(n=20), "masked": True},
    "several choices": {"actions": MultiDiscreteActions(nvec=(3, 2, 20, 1))},
    "several choices, masks": {"actions": MultiDiscreteActions(nvec=(3, 2, 5)), "masked": True},
    "several choices of the same size, a shared trunk": {
        "actions": MultiDiscreteActions(nvec=(2,) * 9),
        "network": NetworkConfig(shared_trunk=True),
    },
    "clipped values": {"value_clip_coef": 0.1},
    "no gradient clipping": {"max_grad_norm": None},
    "each group clipped by itself": {"max_grad_norm": 1e-3, "max_grad_norm_over": "group"},
    "raw advantages": {"normalize_advantages": False},
    "stopped by kl": {"target_kl": 0.02},
    "small minibatches": {"num_minibatches": 64},
    "minibatches that fill no block": {"num_steps": 9, "num_minibatches": 1},
    "many rows": {"num_steps": 1024},
}


def make_agent(engine: str, **changes: object) -> PPOAgent:
    spec = EnvSpec(
        num_envs=NUM_ENVS,
        observations=changes.pop("observations", None) or Vectors(size=changes.pop("observation_size", 4)),  # type: ignore[arg-type]
        actions=changes.pop("actions", DiscreteActions(n=2)),  # type: ignore[arg-type]
        masked=bool(changes.pop("masked", False)),
    )
    settings: dict[str, object] = {
        "num_envs": NUM_ENVS,
        "num_steps": 64,
        "entropy_coef": CoefficientConfig(peak=0.01),
        "policy_lr": ScheduleConfig(peak=1e-3),
        "value_lr": ScheduleConfig(peak=2e-3),
        "runtime": RuntimeConfig(compile=engine),  # type: ignore[arg-type]
    }
    debug = bool(changes.pop("debug", True))
    agent = PPOAgent(PPOConfig(**(settings | changes)), spec, seed=1, debug=debug)  # type: ignore[arg-type]
    agent.updater.set_rates(agent.schedules.at(0))
    return agent


def random_masks(agent: PPOAgent, rows: int, generator: torch.Generator) -> Tensor | None:
    """Half of all values, and the last one of each choice, so that there is one."""
    if not agent.spec.masked:
        return None
    masks = torch.rand(rows, agent.spec.actions.outputs, generator=generator) < 0.5
    masks[:, np.cumsum(sizes_of_choices(agent.spec.actions)) - 1] = True
    return masks


def sizes_of_choices(actions: Actions) -> tuple[int, ...]:
    return actions.nvec if isinstance(actions, MultiDiscreteActions) else (actions.outputs,)


@torch.no_grad()
def random_batch(agent: PPOAgent) -> Minibatch:
    """Rows whose ratios and values are on both sides of every limit."""
    generator = torch.Generator().manual_seed(3)
    rows = agent.config.batch_size
    obs = torch.randn(rows, *agent.spec.observations.shape, generator=generator)
    masks = random_masks(agent, rows, generator)
    policy = agent.network.policy(obs, masks)
    actions = policy.sample(agent.network.noise((rows,), generator))
    log_probs, values, advantages, returns = torch.randn(4, rows, generator=generator)
    return Minibatch(
        obs, actions, policy.log_prob(actions) + 0.2 * log_probs, agent.network.value(obs) + 0.1 * values,
        advantages, returns, masks,
    )  # fmt: skip


def after_an_update(agent: PPOAgent) -> tuple[Tensor, list[Tensor]]:
    metrics, finite = agent.updater.optimize(
        random_batch(agent), agent.updater.draw_orders(torch.Generator().manual_seed(5))
    )
    assert finite
    return metrics, [tensor.clone() for tensor in agent.optimizer.tensors()]


def evaluated_rollout(agent: PPOAgent) -> tuple[tuple[Tensor, ...], Rollout]:
    """A random rollout in which episodes end, truncated or terminated or both, and what the engine says of it."""
    generator, rollout = torch.Generator().manual_seed(4), agent.allocate_rollout()
    rollout.obs.normal_(generator=generator)
    rollout.final_obs.normal_(generator=generator)
    masks = random_masks(agent, rollout.rewards.numel(), generator)
    if rollout.masks is not None and masks is not None:
        rollout.masks.copy_(masks.view(rollout.masks.shape))
    policy = agent.network.policy(rollout.obs[:-1], rollout.masks)
    rollout.actions.copy_(policy.sample(agent.network.noise(rollout.rewards.shape, generator)))
    for ends in (rollout.terminated, rollout.truncated):
        ends.copy_(torch.rand(ends.shape, generator=generator) < 0.2)
    return agent.updater.engine.evaluate_rollout(rollout), rollout


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES.keys())
class TestAgainstTorch:
    def test_an_update(self, changes: dict[str, object]) -> None:
        (ours, our_state), (theirs, their_state) = (
            after_an_update(make_agent(engine, **changes)) for engine in ("native", "off")
        )
        torch.testing.assert_close(ours, theirs, rtol=2e-4, atol=2e-5)
        for a, b in zip(our_state, their_state, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)

    @torch.no_grad()
    def test_evaluation(self, changes: dict[str, object]) -> None:
        agent = make_agent("native", **changes)
        batch, learner = random_batch(agent), agent.updater.engine
        log_probs, values = learner.evaluate(batch.obs, batch.actions, batch.masks)
        expected = agent.network.policy(batch.obs, batch.masks).log_prob(batch.actions)
        torch.testing.assert_close(log_probs, expected)
        torch.testing.assert_close(values, agent.network.value(batch.obs), rtol=1e-5, atol=1e-6)

    @torch.no_grad()
    @pytest.mark.parametrize("threads", [1, 2])
    def test_evaluation_of_a_rollout(self, changes: dict[str, object], threads: int) -> None:
        runtime = {"runtime": RuntimeConfig(compile="native", threads=threads)}
        (ours, rollout), (theirs, _) = (
            evaluated_rollout(make_agent("off", **(changes | extra))) for extra in (runtime, {})
        )
        for mine, right in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, right, rtol=1e-5, atol=1e-5)
        cut = rollout.truncated & ~rollout.terminated
        assert ours[2][:-1][~cut[:-1]].equal(ours[1][1:][~cut[:-1]])

    @torch.no_grad()
    @pytest.mark.parametrize("normalize", [False, True])
    def test_acting(self, changes: dict[str, object], normalize: bool) -> None:
        settings = {"network": NetworkConfig(), **changes}
        network = dataclasses.replace(settings["network"], normalize_observations=normalize)  # type: ignore[type-var]
        agent = make_agent("native", **{**settings, "network": network})
        obs = 3 * torch.randn(70, *agent.spec.observations.shape, generator=torch.Generator().manual_seed(0)) + 1
        if agent.network.normalizer is not None:
            agent.network.normalizer.update(obs[:40])
        # A policy that prefers something, on which the noise does not decide alone.
        agent.optimizer.parameters[0].mul_(3)
        generator = torch.Generator().manual_seed(1)
        noise, masks = agent.network.noise((70,), generator), random_masks(agent, 70, generator)
        expected = agent.network.act(obs, noise, masks)
        actions = torch.zeros_like(expected)
        agent.updater.engine.actor(agent.network)(obs, noise, actions, masks)
        torch.testing.assert_close(actions, expected, rtol=1e-4, atol=1e-5)

    def test_the_number_of_threads_changes_no_bit(self, changes: dict[str, object]) -> None:
        results = []
        for threads in (1, 2, 5):
            runtime = RuntimeConfig(compile="native", threads=threads)
            results.append(after_an_update(make_agent("native", **changes, runtime=runtime)))
        for metrics, state in results[1:]:
            assert metrics.equal(results[0][0])
            assert all(a.equal(b) for a, b in zip(state, results[0][1], strict=True))


@torch.no_grad()
@pytest.mark.parametrize("engine", ["native", "off"])
def test_masks_and_choices_by_hand(engine: str) -> None:
    """With equal logits the allowed values share the probability: 1/2 of two choices, times 1/3 of three."""
    agent = make_agent(engine, actions=MultiDiscreteActions(nvec=(4, 3)), masked=True)
    agent.optimizer.parameters[0].zero_()
    masks = torch.tensor([[True, False, False, True, True, True, True]])
    obs, actions = torch.ones(1, 4), torch.tensor([[3, 1]])
    log_probs, _ = agent.updater.engine.evaluate(obs, actions, masks)
    assert log_probs.exp().item() == pytest.approx(1 / 2 * 1 / 3)
    # Noise would choose the values 1 and 2; of the first choice, 0 is the best that is allowed.
    noise = torch.tensor([[1.0, 9.0, 8.0, 0.0, 0.0, 1.0, 2.0]])
    agent.updater.engine.actor(agent.network)(obs, noise, actions, masks)
    assert actions.tolist() == [[0, 2]]


def test_advantages() -> None:
    agent = make_agent("native")
    generator = torch.Generator().manual_seed(0)
    rewards, values, next_values = torch.randn(3, 40, NUM_ENVS, generator=generator)
    terminated, truncated = torch.rand(2, 40, NUM_ENVS, generator=generator) < 0.1
    fields = (rewards, values, next_values, terminated, truncated)
    expected = compute_gae(*fields, gamma=agent.config.gamma, gae_lambda=agent.config.gae_lambda)
    for ours, theirs in zip(agent.updater.engine.advantages(*fields), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("mean", "deviation", "rows"),
    [
        (0.0, 1.0, 1000),
        (100.0, 1.9, 1000),
        (100.0, 2.1, 1000),
        (-1e6, 1e5, 17),
        (0.0, 1e30, 9),
        (3.0, 0.0, 5),
        (1.0, 1.0, 1),
    ],
)
def test_explained_variance(mean: float, deviation: float, rows: int) -> None:
    """Also where returns vary too little (1.9 of 100), or by more than float32 can hold: then there is none."""
    generator = torch.Generator().manual_seed(0)
    returns = mean + deviation * torch.randn(rows, generator=generator)
    values = returns + 0.3 * deviation * torch.randn(rows, generator=generator)
    expected = explained_variance(returns, values)
    found = make_agent("native").updater.engine.explained_variance(returns, values)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5, equal_nan=True)
    assert found.isnan() == (deviation in {1.9, 1e30, 0.0} or rows == 1)


def test_rates_and_coefficients_are_read_at_every_call() -> None:
    agent = make_agent("native")
    batch, generator = random_batch(agent), torch.Generator()
    policy, value = agent.optimizer.parameters
    before = policy.clone(), value.clone()
    agent.optimizer.set_learning_rates({"policy": 0.0, "value": 1e-3})
    agent.updater.optimize(batch, agent.updater.draw_orders(generator))
    assert policy.equal(before[0])
    assert not value.equal(before[1])
    # Adam's first step is as long as the rate, to within the share of epsilon in the denominator.
    fresh = make_agent("native", update_epochs=1, num_minibatches=1)
    start = fresh.optimizer.parameters[0].clone()
    fresh.optimizer.set_learning_rates({"policy": 0.25, "value": 0.0})
    fresh.updater.optimize(batch, fresh.updater.draw_orders(generator))
    assert (fresh.optimizer.parameters[0] - start).abs().max().item() == pytest.approx(0.25, rel=1e-2)
    metrics = {}
    for clip in (1e-6, 100.0):
        agent.updater.coefficients.clip_coef.fill_(clip)
        names = agent.updater.metric_names
        metrics[clip] = (
            agent.updater.optimize(batch, agent.updater.draw_orders(generator))[0][:, names.index("clip_fraction")]
            .mean()
            .item()
        )
    assert metrics[1e-6] > 0.99
    assert metrics[100.0] == 0.0


EDGES = [0.0, 1e-4, 0.1, 1.0, 3.0, 5.0, 9.0, 30.0, 86.9, 87.1, 88.1, 100.0, 1e30, math.inf, math.nan]


def one_unit(engine: str, activation: str) -> PPOAgent:
    """A critic that is the identity around one unit."""
    agent = make_agent(engine, observation_size=1, network=NetworkConfig(hidden_sizes=(1,), activation=activation))
    for name, parameter in agent.network.critic.named_parameters():
        parameter.data.fill_(1.0 if name.endswith("weight") else 0.0)
    return agent


@pytest.mark.parametrize("shared_trunk", [False, True])
def test_observations_that_are_mostly_zero(shared_trunk: bool) -> None:
    """Every third row has ten numbers of 130, every third all, the others none: kernels pass over what is 0."""
    network = NetworkConfig(hidden_sizes=(70, 9), shared_trunk=shared_trunk)
    ours, theirs = (make_agent(engine, observation_size=130, network=network) for engine in ("native", "off"))
    batch = random_batch(ours)
    rows, columns = torch.arange(len(batch.obs))[:, None], torch.arange(130)
    kept = (rows % 3 == 1) | ((rows % 3 == 0) & ((columns + rows) % 13 == 0))
    batch = batch._replace(obs=torch.where(kept, batch.obs, 0.0))
    with torch.no_grad():
        evaluated = [agent.updater.engine.evaluate(batch.obs, batch.actions) for agent in (ours, theirs)]
    batch = batch._replace(log_probs=evaluated[1][0].clone())
    orders = ours.updater.draw_orders(torch.Generator().manual_seed(5))
    metrics = [agent.updater.optimize(batch, orders)[0] for agent in (ours, theirs)]
    torch.testing.assert_close(*metrics, rtol=2e-4, atol=2e-5)
    for mine, right in zip(evaluated[0], evaluated[1], strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-5, atol=1e-5)
    for mine, right in zip(ours.optimizer.tensors(), theirs.optimizer.tensors(), strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-4, atol=1e-5)


# How far from torch's own, in double precision: torch's erf in float32 is as far.
@pytest.mark.parametrize(
    ("activation", "relative", "absolute"),
    [("tanh", 4e-7, 0), ("elu", 4e-7, 0), ("silu", 5e-7, 1e-35), ("gelu", 5e-7, 6e-7)],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_activations_to_the_last_digits(activation: str, relative: float, absolute: float, sign: int) -> None:
    agent = one_unit("native", activation)
    x = sign * torch.tensor(EDGES)[:, None]
    expected = agent.network.critic[1](x.double()).float().squeeze(1)
    _, ours = agent.updater.engine.evaluate(x, torch.zeros(len(x), dtype=torch.int64))
    torch.testing.assert_close(ours, expected, rtol=relative, atol=absolute, equal_nan=True)


@pytest.mark.parametrize("engine", ["native", "off"])
@pytest.mark.parametrize("value", [20.0, -20.0, 100.0, -1e30])
def test_a_unit_that_is_saturated_gives_no_gradient(engine: str, value: float) -> None:
    """Float32 has no number between its output and 1; what little was left would be times the observation."""
    network = NetworkConfig(hidden_sizes=(1,))
    agent = make_agent(engine, observation_size=1, network=network, num_steps=1, num_minibatches=1, update_epochs=1)
    for parameter in agent.network.parameters():
        parameter.data.fill_(1.0)
    batch = random_batch(agent)
    _, finite = agent.updater.optimize(
        batch._replace(obs=torch.full_like(batch.obs, value)),
        agent.updater.draw_orders(torch.Generator().manual_seed(5)),
    )
    assert finite
    critic = agent.network.critic
    assert [critic.get_parameter(name).item() for name in ("0.weight", "0.bias")] == [1.0, 1.0]
    assert critic.get_parameter("2.bias").item() != 1.0


@pytest.mark.parametrize("engine", ["native", "off"])
def test_looking_at_minibatches_changes_nothing(engine: str) -> None:
    seen, unseen = (after_an_update(make_agent(engine, debug=debug)) for debug in (True, False))
    assert seen[0][:, : unseen[0].shape[1]].equal(unseen[0])
    assert all(a.equal(b) for a, b in zip(seen[1], unseen[1], strict=True))


@pytest.mark.parametrize("engine", ["native", "off"])
def test_quantiles_of_the_ratio_by_hand(engine: str) -> None:
    """Of the ratios 1 to 8 the quantile q lies 7 q after the first."""
    agent = make_agent(engine, num_steps=1, num_minibatches=1, update_epochs=1)
    batch = random_batch(agent)
    log_probs = agent.network(batch.obs, batch.actions).log_prob.detach() - torch.arange(1.0, 9.0).log()
    orders = agent.updater.draw_orders(torch.Generator().manual_seed(5))
    metrics, _ = agent.updater.optimize(batch._replace(log_probs=log_probs), orders)
    assert metrics[0, -5:].tolist() == pytest.approx([1.35, 2.75, 4.5, 6.25, 7.65], rel=1e-5)
    nothing = batch._replace(log_probs=torch.full((8,), float("nan")))
    assert agent.updater.optimize(nothing, orders)[0][0, -5:].isnan().all()


@pytest.mark.parametrize("engine", ["native", "off"])
def test_adams_moments_after_equal_gradients(engine: str) -> None:
    """At a rate of 0 each step has the same gradient g: after k steps (1 - 0.9^k) g and (1 - 0.999^k) g^2.

    At k = 20 the second moment over the square of the first is 0.0198111 / 0.8784233^2, whatever g is.
    """
    agent = make_agent(engine, num_minibatches=1, update_epochs=20, max_grad_norm=None)
    agent.optimizer.set_learning_rates({"policy": 0.0, "value": 0.0})
    agent.updater.optimize(random_batch(agent), agent.updater.draw_orders(torch.Generator()))
    state = agent.optimizer.state_dict()
    for average, average_sq in zip(state["exp_avg"].values(), state["exp_avg_sq"].values(), strict=True):
        largest = average.abs().argmax()
        ratio = (average_sq[largest].double() / average[largest].double() ** 2).item()
        assert ratio == pytest.approx(0.019811135170 / 0.878423345409**2, rel=2e-6)


class TestGradientClipping:
    """After one step Adam's first moment is 0.1 of the gradient, as clipped, so its norm says at what."""

    LIMIT = 1e-3

    def norms(self, engine: str, over: str) -> list[float]:
        agent = make_agent(
            engine, max_grad_norm=self.LIMIT, max_grad_norm_over=over, update_epochs=1, num_minibatches=1
        )
        after_an_update(agent)
        return [10 * moment.norm().item() for moment in agent.optimizer.state_dict()["exp_avg"].values()]

    @pytest.mark.parametrize("engine", ["off", "native"])
    def test_over_all_the_larger_gradient_takes_the_smaller_ones_part(self, engine: str) -> None:
        policy, value = self.norms(engine, "all")
        assert math.hypot(policy, value) == pytest.approx(self.LIMIT, rel=1e-3)
        assert policy < value

    @pytest.mark.parametrize("engine", ["off", "native"])
    def test_each_group_by_itself_has_the_whole_limit(self, engine: str) -> None:
        assert self.norms(engine, "group") == pytest.approx([self.LIMIT] * 2, rel=1e-3)


class TestLayout:
    """What Python and the kernels share is compared when they are loaded."""

    def changed(self, monkeypatch: pytest.MonkeyPatch, *fields: Any) -> None:
        class Rollout(ctypes.Structure):
            _fields_ = fields

        monkeypatch.setattr(layout, "Rollout", Rollout)

    @pytest.mark.parametrize(
        ("change", "wrong"),
        [
            (lambda fields: (fields[1], fields[0], *fields[2:]), r"Rollout.actions is \(8, 8\), here \(0, 8\)"),
            (lambda fields: (*fields, ("masks", ctypes.c_void_p)), r"Rollout.masks is None, here \(104, 8\)"),
            (lambda fields: fields[:-1], r"Rollout.recurrent_resets is \(96, 8\), here None"),
            (lambda fields: (("obs", ctypes.c_int32), *fields[1:]), r"Rollout.obs is \(0, 8\), here \(0, 4\)"),
        ],
    )
    def test_a_struct_with_other_fields_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], Any], wrong: str
    ) -> None:
        self.changed(monkeypatch, *change(layout.Rollout._fields_))
        with pytest.raises(BuildError, match=wrong):
            layout.load_kernels()

    @pytest.mark.parametrize("name", ["METRICS", "ACTIVATIONS"])
    def test_so_are_numbers_in_another_order(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.setattr(layout, name, getattr(layout, name)[::-1])
        with pytest.raises(BuildError, match=rf"{name.lower()[:-1]}\.\w+ is \(\d, 4\), here \(0, 4\)"):
            layout.load_kernels()

    def test_then_torch_computes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.changed(monkeypatch, *layout.Rollout._fields_[:-1])
        assert make_agent("auto").updater.engine_name == "torch"
        with pytest.raises(ConfigError, match="the kernels have another layout: Rollout"):
            make_agent("native")
