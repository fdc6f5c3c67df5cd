"""The actor-critic network."""

from __future__ import annotations

import importlib
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from esper.envs.base import Actions, ContinuousActions, Images, MultiDiscreteActions, Observations
from esper.settings.options import ConfigError
from esper.simic.nets.activations import ACTIVATIONS
from esper.simic.nets.config import NetworkConfig
from esper.simic.nets.distributions import Categorical, DiagGaussian, Distribution, MultiCategorical, masked
from esper.simic.nets.encoders import Encoder, drawn_from, make_encoder
from esper.simic.nets.given import Layers
from esper.simic.nets.normalization import ObservationNormalizer
from esper.simic.nets.recurrent import LAYERS, Recurrent, Sequences, Unrolling


class Evaluation(NamedTuple):
    """What the loss needs of the network, each [B]."""

    log_prob: Tensor
    entropy: Tensor
    value: Tensor


class ActorCritic(nn.Module):
    """Policy and value function.

    `trunk` is empty unless shared. Methods take observations already normalized by `normalize`, so that a rollout is
    normalized once and not in every minibatch; of a recurrent policy they are sequences [B, T, ...]. Its recurrent
    state has `state_size` numbers for each environment. `given` layers are a user's and already initialised.
    """

    def __init__(
        self,
        observations: Observations,
        actions: Actions,
        config: NetworkConfig,
        generator: torch.Generator | None = None,
        given: Layers | None = None,
    ) -> None:
        super().__init__()
        self.observations, self.actions, self.config = observations, actions, config
        self.action_size = actions.outputs
        # Encoders scale images; without one they are scaled here, by their highest value until the first update.
        self._images_in_a_row = given is None and config.encoder == "flatten" and isinstance(observations, Images)
        self.normalizer: ObservationNormalizer | None = None
        if config.normalize_observations or self._images_in_a_row:
            highest = observations.highest if isinstance(observations, Images) else 1
            self.normalizer = ObservationNormalizer(observations.shape, highest)
        # What layers compute with where it is not float32; outputs are float32 all the same.
        self.autocast: torch.dtype | None = None
        self.is_given = given is not None
        self.trunk, self.actor, self.critic = given or _layers(observations, self.action_size, config, generator)
        continuous = isinstance(actions, ContinuousActions)
        self.log_std = nn.Parameter(torch.full((self.action_size,), config.log_std_init)) if continuous else None
        self.state_size = sum(layer.state_size for layer in self.modules() if isinstance(layer, Recurrent))
        if given is None:
            self._initialize(generator)

    def _initialize(self, generator: torch.Generator | None) -> None:
        """Orthogonal, with a small policy head so that the first policy is near uniform (Andrychowicz et al. 2021)."""
        for layer in _ours(self):
            if isinstance(layer, nn.Linear | nn.Conv2d):
                nn.init.orthogonal_(layer.weight, math.sqrt(2), generator=generator)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)
            elif isinstance(layer, Recurrent):
                layer.initialize(generator)
        for head, gain in ((self.actor[-1], 0.01), (self.critic[-1], 1.0)):
            assert isinstance(head, nn.Linear)
            nn.init.orthogonal_(head.weight, gain, generator=generator)

    def normalize(self, obs: Tensor) -> Tensor:
        """Observations [..., *shape] as input of the layers."""
        if self.normalizer is not None:
            obs = self.normalizer(obs)
        return obs.flatten(-3) if self._images_in_a_row else obs

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """[*shape, A]: noise that `act` turns into actions."""
        distribution = Categorical if self.log_std is None else DiagGaussian
        return distribution.noise((*shape, self.action_size), generator)

    def policy(self, obs: Tensor, masks: Tensor | None = None) -> Distribution:
        return self.distribution(self._outputs(obs, self.actor)[0], masks)

    def value(self, obs: Tensor) -> Tensor:
        return self._outputs(obs, self.critic)[0].squeeze(-1)

    def act(
        self,
        obs: Tensor,
        noise: Tensor | None = None,
        masks: Tensor | None = None,
        recurrent_state: Tensor | None = None,
    ) -> Tensor:
        """Actions for raw observations [N, ...]: sampled by `noise`, or the most likely ones without it.

        `masks` [N, M], bool, are the allowed ones; without them all are. `recurrent_state` [N, S], if there is one, is
        updated in place.
        """
        obs = self.normalize(obs)
        if recurrent_state is None:
            policy = self.policy(obs, masks)
        else:
            begins = torch.zeros((obs.shape[0], 1), dtype=torch.bool, device=obs.device)
            outputs, _, states = self.unroll(obs.unsqueeze(1), Sequences(recurrent_state, begins))
            recurrent_state.copy_(states.squeeze(1))
            policy = self.distribution(outputs.squeeze(1), masks)
        return policy.mode() if noise is None else policy.sample(noise)

    def forward(
        self, obs: Tensor, actions: Tensor, masks: Tensor | None = None, sequences: Sequences | None = None
    ) -> Evaluation:
        if sequences is None:
            outputs, values = self._outputs(obs, self.actor, self.critic)
        else:
            outputs, values, _ = self.unroll(obs, sequences)
        policy = self.distribution(outputs, masks)
        return Evaluation(policy.log_prob(actions), policy.entropy(), values.squeeze(-1))

    def _outputs(self, obs: Tensor, *heads: nn.Module) -> list[Tensor]:
        """What the `heads` make of the features of `obs`, float32."""
        if self.autocast is None:
            features = self.trunk(obs)
            return [head(features) for head in heads]
        # Weights kept in another precision would be those of the first call of a graph that is replayed.
        with torch.autocast(obs.device.type, self.autocast, cache_enabled=False):
            features = self.trunk(obs)
            return [head(features).float() for head in heads]

    def unroll(self, obs: Tensor, sequences: Sequences) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs of actor [B, T, A] and critic [B, T, 1] for observations [B, T, ...], and the state after each."""
        unrolling = Unrolling(sequences)
        features = unrolling.through(self.trunk, obs)
        outputs, values = (unrolling.through(head, features) for head in (self.actor, self.critic))
        return outputs, values, unrolling.states

    def distribution(self, output: Tensor, masks: Tensor | None) -> Distribution:
        """The distribution of actions from the output of the actor."""
        if self.log_std is not None:
            return DiagGaussian(output, self.log_std)
        if masks is not None:
            output = masked(output, masks)
        if isinstance(self.actions, MultiDiscreteActions):
            return MultiCategorical(output, self.actions.nvec)
        return Categorical(output)

    def policy_parameters(self) -> dict[str, nn.Parameter]:
        return self._parameters_below("actor", "log_std")

    def value_parameters(self) -> dict[str, nn.Parameter]:
        return self._parameters_below("critic")

    def shared_parameters(self) -> dict[str, nn.Parameter]:
        return self._parameters_below("trunk")

    def encoder_parameters(self) -> set[str]:
        """The names of the parameters of encoders that actor and critic have apart, not of a trunk."""
        encoders = (name for name, module in self.named_modules() if isinstance(module, Encoder))
        below = tuple(f"{name}." for name in encoders if not name.startswith("trunk."))
        return {name for name, each in self.named_parameters() if each.requires_grad and name.startswith(below)}

    def _parameters_below(self, *roots: str) -> dict[str, nn.Parameter]:
        below = ((name, parameter) for name, parameter in self.named_parameters() if name.split(".")[0] in roots)
        return {name: parameter for name, parameter in below if parameter.requires_grad}


def _ours(module: nn.Module) -> Iterator[nn.Module]:
    """`module` and all below, except what a user made and initialised."""
    yield module
    for child in module.children():
        if not (isinstance(module, Encoder) and module.custom):
            yield from _ours(child)


def _linear(before: int, after: int) -> nn.Module:
    # Its own initialisation would draw from torch's global generator, and be overwritten. nn.utils.skip_init does the
    # same, but imports sympy, which takes three quarters of a second.
    layer = nn.Linear(before, after, device="meta")
    layer.weight = nn.Parameter(torch.empty(after, before))
    layer.bias = nn.Parameter(torch.empty(after))
    return layer


def _activation(given: str | Callable[[], Any], width: int, generator: torch.Generator | None) -> nn.Module:
    """The activation called `given`, or made by it, for `width` features."""
    if given in ACTIVATIONS:
        module, _, attribute = ACTIVATIONS[str(given)].partition(":")
        ours: nn.Module = getattr(importlib.import_module(module), attribute)()
        return ours
    if isinstance(given, str):
        again = "was given in Python, where it must be given again, as an object: activation=..."
        raise ConfigError("activation", given, f"{again}; by name there are {', '.join(ACTIVATIONS)}")
    if isinstance(given, nn.Module):
        raise ConfigError("activation", given, "must be what makes a module: a class or a function of no argument")
    try:
        with drawn_from(generator), torch.no_grad():
            made = given()
            found = made(torch.zeros(2, width)) if isinstance(made, nn.Module) else None
    except (RuntimeError, TypeError, ValueError) as error:
        raise ConfigError("activation", given, f"fails on features [N, {width}]: {error}") from None
    if not isinstance(made, nn.Module):
        raise ConfigError("activation", given, f"must return a torch.nn.Module, not {type(made).__name__}")
    shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
    if shape != [2, width]:
        raise ConfigError("activation", given, f"must keep the shape of features [2, {width}], and returns {shape}")
    return made


def _layers(
    observations: Observations, action_size: int, config: NetworkConfig, generator: torch.Generator | None
) -> Layers:
    bodies = [_body(observations, config, sizes, generator) for sizes in config.sizes_of_bodies()]
    heads = [_linear(width, size) for (_, width), size in zip((bodies * 2)[:2], (action_size, 1), strict=True)]
    own: list[list[nn.Module]] = [[], []] if config.shared_trunk else [layers for layers, _ in bodies]
    trunk = nn.Sequential(*(bodies[0][0] if config.shared_trunk else ()))
    return Layers(trunk, nn.Sequential(*own[0], heads[0]), nn.Sequential(*own[1], heads[1]))


def _body(
    observations: Observations, config: NetworkConfig, hidden_sizes: tuple[int, ...], generator: torch.Generator | None
) -> tuple[list[nn.Module], int]:
    """The layers before a head, and the number of their features."""
    encoder = make_encoder(config.encoder, observations, generator)
    layers: list[nn.Module] = [] if encoder is None else [encoder]
    width = math.prod(observations.shape) if encoder is None else encoder.count_features()
    for before, after in itertools.pairwise((width, *hidden_sizes)):
        normalization = [nn.LayerNorm(after)] if config.layer_norm else []
        layers += [_linear(before, after), *normalization, _activation(config.activation, after, generator)]
        width = after
    if config.rnn is not None and config.rnn_size is not None:
        layers.append(LAYERS[config.rnn](width, config.rnn_size))
        width = config.rnn_size
    return layers, width
