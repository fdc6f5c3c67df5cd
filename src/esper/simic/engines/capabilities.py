"""What an engine can compute, declared, and what an update needs: where they do not match another engine computes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from esper.simic import losses, metrics
from esper.simic.engines.protocol import Workload
from esper.simic.nets.encoders import Encoder

# What users call these; everything else is called by its class.
_CALLED: dict[type, str] = {
    Encoder: "encoders",
}


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What an engine computes. What is not declared here it is never given.

    `layers` are the classes that it knows of the layers of actor, critic and trunk, a subclass is another one.
    `loss_terms` are those it sums up, and `metrics` those it fills in, by column.
    """

    devices: frozenset[str]
    actions: frozenset[type]
    layers: frozenset[type[nn.Module]]
    loss_terms: frozenset[str]
    metrics: tuple[str, ...]

    def missing(self, workload: Workload) -> str | None:
        """The first thing that `workload` needs and that is not declared; None where nothing is."""
        network = workload.network
        if workload.device.type not in self.devices:
            return f"device {workload.device.type}"
        if workload.config.runtime.precision == "bf16":
            return "bf16"
        if network.is_given:
            return "a network from Python"
        if workload.optimizer.is_given:
            return "an optimizer from Python"
        if type(network.actions) not in self.actions:
            return _called(type(network.actions))
        for layer in (*network.trunk, *network.actor, *network.critic):
            if type(layer) not in self.layers:
                return _called(type(layer))
        terms = (*losses.LOSS_TERMS, *workload.given_terms)
        unknown = [f"loss term {term.name}" for term in terms if term.name not in self.loss_terms]
        if not unknown and self.metrics != metrics.COLUMNS:
            unknown = [f"metric {name}" for name in metrics.COLUMNS if name not in self.metrics]
            unknown = unknown or ["metrics in this order"]
        return unknown[0] if unknown else None


def _called(kind: type) -> str:
    return _CALLED.get(kind, kind.__name__)
