"""What stands before the hidden layers: sizes, scaling, initialisation, and modules of the user."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from esper.envs.base import DiscreteActions, EnvSpec, Images, Observations, Vectors
from esper.settings.options import ConfigError
from esper.simic import NetworkConfig, PPOAgent, PPOConfig, RuntimeConfig
from esper.simic.nets.actor_critic import ActorCritic
from esper.simic.nets.encoders import Encoder

ATARI = Images(shape=(4, 84, 84))
SMALL = Images(shape=(4, 10, 10), highest=1)


def network(observations: Observations, seed: int = 0, **settings: Any) -> ActorCritic:
    usual: dict[str, Any] = {"hidden_sizes": (8,), "shared_trunk": True}
    config = NetworkConfig(**(usual | settings))
    return ActorCritic(observations, DiscreteActions(n=3), config, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("observations", "encoder", "features"),
    [
        # 84 -> (84 - 8) / 4 + 1 = 20 -> (20 - 4) / 2 + 1 = 9 -> 9 - 3 + 1 = 7, with 64 channels.
        (ATARI, "auto", 64 * 7 * 7),
        # 10 -> 10 - 3 + 1 = 8, with 16 channels.
        (SMALL, "auto", 16 * 8 * 8),
        # Pooling by two, padded: 84 -> 42 -> 21 -> 11, with 32 channels.
        (ATARI, "impala", 32 * 11 * 11),
        (SMALL, "flatten", 400),
        (Vectors(size=5), "auto", 5),
    ],
)
def test_features(observations: Observations, encoder: str, features: int) -> None:
    first = next(layer for layer in network(observations, encoder=encoder).trunk if isinstance(layer, nn.Linear))
    assert first.in_features == features


def layers_see(made: ActorCritic, obs: Tensor) -> Tensor:
    """What an encoder of nothing but flattening gives, or what the hidden layers get without one."""
    obs = made.normalize(obs)
    return made.trunk[0](obs) if isinstance(made.trunk[0], Encoder) else obs


@pytest.mark.parametrize("encoder", ["flatten", "networks_of_mine:flat"])
@pytest.mark.parametrize("highest", [1, 255])
def test_images_are_divided_by_their_highest_value(highest: int, encoder: str) -> None:
    made = network(Images(shape=(2, 3, 3), highest=highest), encoder=encoder)
    seen = layers_see(made, torch.full((5, 2, 3, 3), highest, dtype=torch.uint8))
    assert seen.dtype == torch.float32
    assert seen.equal(torch.ones(5, 18))


@pytest.mark.parametrize("encoder", ["flatten", "networks_of_mine:flat"])
def test_normalized_images_are_not_divided_again(encoder: str) -> None:
    made = network(Images(shape=(1, 1, 2), highest=4), encoder=encoder, normalize_observations=True)
    assert made.normalizer is not None
    first, second = torch.tensor([[[[0, 4]]], [[[4, 4]]]], dtype=torch.uint8)
    # Nothing has been seen: 4 is the highest value.
    assert layers_see(made, first[None]).tolist() == [[0.0, 1.0]]
    made.normalizer.update(torch.stack([first, second]))
    # The first pixel has mean 2 and deviation 2, the second never changed from 4.
    torch.testing.assert_close(layers_see(made, first[None]), torch.tensor([[-1.0, 0.0]]))
    # Both are 1 above their means; the second is clipped at 10.
    third = torch.tensor([[[[3, 5]]]], dtype=torch.uint8)
    torch.testing.assert_close(layers_see(made, third), torch.tensor([[0.5, 10.0]]))


def test_any_leading_dimensions() -> None:
    made, obs = network(SMALL), torch.randint(2, (6, 4, 10, 10), dtype=torch.uint8)
    torch.testing.assert_close(made.value(obs).view(2, 3), made.value(obs.view(2, 3, 4, 10, 10)))


def test_initialisation_is_decided_by_the_generator() -> None:
    first, again, other = network(ATARI), network(ATARI), network(ATARI, seed=1)
    filters = [made.get_parameter("trunk.0.layers.0.weight") for made in (first, again, other)]
    assert filters[0].equal(filters[1])
    assert not filters[0].equal(filters[2])
    # Orthogonal rows of norm sqrt(2): 32 filters of 4 * 8 * 8 numbers.
    rows = filters[0].flatten(1)
    torch.testing.assert_close(rows @ rows.T, 2 * torch.eye(32), atol=1e-4, rtol=0)


def test_actor_and_critic_share_nothing_unless_asked() -> None:
    apart, shared = network(SMALL, shared_trunk=False), network(SMALL)
    assert not apart.shared_parameters()
    assert {name.split(".")[0] for name in shared.shared_parameters()} == {"trunk"}
    assert len(apart.policy_parameters()) == len(apart.value_parameters()) == 6  # convolution, hidden layer, head
    assert len(shared.policy_parameters()) == len(shared.value_parameters()) == 2  # the head alone


@pytest.mark.parametrize(
    ("observations", "settings", "message"),
    [
        (SMALL, {"encoder": "nature"}, "encoder = nature: needs images of at least 36 pixels, not 10x10; use small"),
        (SMALL, {"encoder": "none"}, "encoder = none: is for vectors; images without an encoder need flatten"),
        (Vectors(size=3), {"encoder": "impala"}, "encoder = impala: is for images"),
        (
            ATARI,
            {"encoder": "resnet"},
            "encoder = resnet: must be auto, none, flatten, small, nature, impala or",
        ),
        (ATARI, {"encoder": "no_such_module:make"}, "cannot be loaded: No module named 'no_such_module'"),
        (ATARI, {"encoder": "math:no_such_name"}, "cannot be loaded: module 'math' has no attribute"),
        (ATARI, {"encoder": "math:prod"}, "must return a torch.nn.Module, not int"),
        (SMALL, {"encoder": "networks_of_mine:Wrong"}, r"fails on observations \[4, 10, 10\]: mat1 and mat2"),
    ],
)
def test_what_does_not_fit_is_refused(observations: Observations, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        network(observations, **settings)


class Mine(nn.Module):
    """Features that begin at 1, whatever the network's own initialisation is."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.layer = nn.Linear(shape[0], 6)
        nn.init.ones_(self.layer.bias)

    def forward(self, obs: Tensor) -> Tensor:
        features: Tensor = self.layer(obs)
        return features


@pytest.fixture(autouse=True)
def networks_of_mine(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("networks_of_mine")
    module.Mine, module.flat = Mine, lambda shape: nn.Flatten()  # type: ignore[attr-defined]
    module.Wrong = lambda shape: nn.Sequential(nn.Flatten(), nn.Linear(7, 2))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "networks_of_mine", module)


class TestAModuleOfTheUser:
    def test_is_used_and_its_initialisation_kept(self) -> None:
        before = torch.random.get_rng_state()
        made = [network(Vectors(size=5), seed, encoder="networks_of_mine:Mine") for seed in (0, 0, 1)]
        layers: list[Any] = [one.get_submodule("trunk.0.layers.layer") for one in made]
        assert layers[0].bias.eq(1).all()
        # Seeded by the run, and torch's global generator left as it was.
        assert layers[0].weight.equal(layers[1].weight)
        assert not layers[0].weight.equal(layers[2].weight)
        assert torch.random.get_rng_state().equal(before)

    def test_is_trained(self) -> None:
        config = PPOConfig(
            num_envs=4,
            num_steps=4,
            network=NetworkConfig(encoder="networks_of_mine:Mine", hidden_sizes=()),
            runtime=RuntimeConfig(compile="off"),
        )
        agent = PPOAgent(config, EnvSpec(num_envs=4, observations=Vectors(size=5), actions=DiscreteActions(n=3)))
        weight = agent.network.get_parameter("actor.0.layers.layer.weight")
        rollout, before = agent.allocate_rollout(), weight.clone()
        rollout.obs.normal_(generator=torch.Generator().manual_seed(0))
        rollout.rewards.normal_(generator=torch.Generator().manual_seed(1))
        assert agent.update(rollout).fault is None
        assert not weight.equal(before)


def test_a_rollout_of_images_is_evaluated_in_pieces() -> None:
    """Log probabilities and values of a minibatch's size at a time are those of all at once."""
    config = PPOConfig(
        num_envs=4, num_steps=8, num_minibatches=4, network=NetworkConfig(), runtime=RuntimeConfig(compile="off")
    )
    agent = PPOAgent(config, EnvSpec(num_envs=4, observations=SMALL, actions=DiscreteActions(n=3)))
    rollout = agent.allocate_rollout()
    assert rollout.obs.dtype == rollout.final_obs.dtype == torch.uint8
    assert rollout.obs.shape == (9, 4, 4, 10, 10)
    obs = torch.randint(2, (32, *SMALL.shape), dtype=torch.uint8)
    actions = torch.randint(3, (32,))
    log_probs, values = agent.updater.engine.evaluate(obs, actions)
    torch.testing.assert_close(values, agent.network.value(obs))
    torch.testing.assert_close(log_probs, agent.network.policy(obs).log_prob(actions))
