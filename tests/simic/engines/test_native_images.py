"""The C++ learner computes what the torch learner computes, of images."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from esper.envs.base import DiscreteActions, EnvSpec, Images
from esper.simic.config import NetworkConfig, PPOConfig, RuntimeConfig
from esper.simic.ppo import PPOAgent
from esper.simic.rollout import Rollout

NUM_ENVS = 8
GAME = Images(shape=(4, 10, 10), highest=1)

CASES: dict[str, tuple[Images, dict[str, Any]]] = {
    "in a row": (Images(shape=(2, 3, 3), highest=9), {"encoder": "flatten"}),
    "many in a row": (GAME, {"encoder": "flatten"}),
    "one convolution": (GAME, {"encoder": "small"}),
    "one place": (Images(shape=(7, 3, 3), highest=9), {"encoder": "small"}),
    "no hidden layer": (GAME, {"encoder": "small", "hidden_sizes": ()}),
    "a shared trunk": (GAME, {"encoder": "small", "hidden_sizes": (9,), "shared_trunk": True}),
    "layer normalization, gelu": (GAME, {"encoder": "small", "layer_norm": True, "activation": "gelu"}),
    "below a recurrent layer": (GAME, {"encoder": "small", "hidden_sizes": (), "rnn": "gru", "rnn_size": 9}),
}


def make_agent(engine: str, observations: Images, network: NetworkConfig, threads: int | None = None) -> PPOAgent:
    spec = EnvSpec(num_envs=NUM_ENVS, observations=observations, actions=DiscreteActions(n=2))
    runtime = RuntimeConfig(compile=engine, threads=threads)  # type: ignore[arg-type]
    config = PPOConfig(num_envs=NUM_ENVS, num_steps=33, num_minibatches=1, network=network, runtime=runtime)
    return PPOAgent(config, spec, seed=1)


def random_rollout(agent: PPOAgent, dots: float, generator: torch.Generator) -> Rollout:
    """Of images in which so large a share is not 0."""
    rollout, observations = agent.allocate_rollout(), agent.spec.observations
    assert isinstance(observations, Images)
    for field in (rollout.obs, rollout.final_obs):
        field.random_(int(observations.highest) + 1, generator=generator)
        field.mul_(torch.rand(field.shape, generator=generator) < dots)
    rollout.rewards.normal_(generator=generator)
    rollout.truncated.bernoulli_(0.1, generator=generator)
    return rollout


def after_updates(agent: PPOAgent, dots: float) -> tuple[Tensor, list[Tensor]]:
    """Two updates, so that normalized images have statistics in the second one; then actions, and parameters."""
    generator = torch.Generator().manual_seed(2)
    for _ in range(2):
        rollout = random_rollout(agent, dots, generator)
        assert agent.update(rollout).fault is None
    parameters = [parameter.detach().clone() for parameter in agent.network.parameters()]
    # A policy that prefers something, on which the noise does not decide alone.
    agent.optimizer.parameters[0].mul_(3)
    noise, actions = agent.network.noise((NUM_ENVS,), generator), torch.zeros(NUM_ENVS, dtype=torch.int64)
    state = torch.zeros(NUM_ENVS, agent.network.state_size) if agent.network.state_size else None
    agent.updater.engine.actor(agent.network)(rollout.obs[0], noise, actions, None, state)
    return actions, parameters


# Images that are mostly 0 are convolved in another way.
@pytest.mark.parametrize("dots", [0.05, 1.0])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_acting_and_updates(case: tuple[Images, dict[str, Any]], normalize: bool, dots: float) -> None:
    observations, settings = case
    network = NetworkConfig(**settings, normalize_observations=normalize)
    ours, theirs = (after_updates(make_agent(engine, observations, network), dots) for engine in ("native", "off"))
    assert ours[0].equal(theirs[0])
    for a, b in zip(ours[1], theirs[1], strict=True):
        # Adam enlarges what rounding leaves of the smallest gradients.
        torch.testing.assert_close(a, b, rtol=1e-4, atol=5e-5)


@pytest.mark.parametrize("place_by_place", [False, True])
def test_images_in_a_row_scaled_by_statistics_that_stay(place_by_place: bool) -> None:
    """A run that does not normalize may have begun with the statistics of one that did."""
    results = []
    for engine in ("native", "off"):
        agent = make_agent(engine, Images(shape=(4, 5, 5), highest=255), NetworkConfig(encoder="flatten"))
        normalizer = agent.network.normalizer
        assert normalizer is not None
        normalizer.var.fill_(4.0)
        if place_by_place:
            normalizer.mean[1, 2, 3] = 100.0
        results.append(after_updates(agent, 0.1))
    ours, theirs = results
    assert ours[0].equal(theirs[0])
    for a, b in zip(ours[1], theirs[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=5e-5)


@pytest.mark.parametrize("encoder", ["small", "flatten"])
def test_the_number_of_threads_changes_no_bit(encoder: str) -> None:
    made = (make_agent("native", GAME, NetworkConfig(encoder=encoder), threads) for threads in (1, 2, 5))
    first, *others = (after_updates(agent, 0.05)[1] for agent in made)
    for parameters in others:
        assert all(a.equal(b) for a, b in zip(parameters, first, strict=True))


@torch.no_grad()
@pytest.mark.parametrize("engine", ["native", "off"])
def test_a_convolution_by_hand(engine: str) -> None:
    """One pixel of 1 is in the upper left corner, of the second of two channels: only the first place covers it.

    Filter f has the weight f + 1 there, the linear layer 1 + place for every filter. So the place gives
    1 + 2 + ... + 16 = 136, of which the others have only their bias, 0.5 each: 16 * 0.5 * (1 + 2 + 3 + 4) = 80.
    """
    agent = make_agent(engine, Images(shape=(2, 4, 4), highest=1), NetworkConfig(encoder="small", hidden_sizes=()))
    critic: Any = agent.network.critic
    convolution, linear = critic[0].layers[0], critic[1]
    convolution.weight.zero_()
    convolution.weight[:, 1, 0, 0] = torch.arange(1.0, 17.0)
    convolution.bias.fill_(0.5)
    linear.weight.copy_(torch.arange(1.0, 5.0).repeat(16)[None])
    linear.bias.zero_()
    obs = torch.zeros(1, 2, 4, 4, dtype=torch.uint8)
    obs[0, 1, 0, 0] = 1
    _, value = agent.updater.engine.evaluate(obs, torch.zeros(1, dtype=torch.int64))
    assert value.item() == pytest.approx(136 + 80)
