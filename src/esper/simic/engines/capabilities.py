"""What an engine can compute, declared, and what an update needs: where they do not match another engine computes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from esper.simic import losses, metrics
from esper.simic.engines.protocol import Workload
from esper.simic.nets.encoders import Encoder


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What an engine computes. What is not declared here it is never given.

    `layers` are the classes that it knows of the layers of actor, critic and trunk, a subclass is another one, and
    `encoder_layers` those of encoders, of which it knows sequences.
    `loss_terms` are those it sums up, and `metrics` those it fills in, by column.
    """

    devices: frozenset[str]
    actions: frozenset[type]
    layers: frozenset[type[nn.Module]]
    encoder_layers: frozenset[type[nn.Module]]
    loss_terms: frozenset[str]
    metrics: tuple[str, ...]

    def missing(self, workload: Workload) -> str | None:
        """The first thing that `workload` needs and that is not declared; None where nothing is."""
        network = workload.network
        if workload.device.type not in self.devices:
            return f"device {workload.device.type}"
        if network.is_given:
            return "a network from Python"
        if workload.optimizer.is_given:
            return "an optimizer from Python"
        if type(network.actions) not in self.actions:
            return type(network.actions).__name__
        for layer in (*network.trunk, *network.actor, *network.critic):
            if isinstance(layer, Encoder):
                if (unknown_part := self._missing_of(layer)) is not None:
                    return unknown_part
            elif type(layer) not in self.layers:
                return type(layer).__name__
        terms = (*losses.LOSS_TERMS, *workload.given_terms)
        unknown = [f"loss term {term.name}" for term in terms if term.name not in self.loss_terms]
        if not unknown and self.metrics != metrics.COLUMNS:
            unknown = [f"metric {name}" for name in metrics.COLUMNS if name not in self.metrics]
            unknown = unknown or ["metrics in this order"]
        return unknown[0] if unknown else None

    def _missing_of(self, encoder: Encoder) -> str | None:
        if encoder.custom:
            return "an encoder from Python"
        layers = encoder.layers
        if type(layers) is not nn.Sequential:
            return f"an encoder that is no sequence of layers but {type(layers).__name__}"
        unknown = [type(layer).__name__ for layer in layers if type(layer) not in self.encoder_layers]
        return f"an encoder with {unknown[0]}" if unknown else None
