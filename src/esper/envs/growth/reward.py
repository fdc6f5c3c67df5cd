"""The reward of one epoch, in named terms. Pure functions of the host before and after it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from esper.envs.growth.config import GrowthConfig
from esper.envs.growth.stages import LIVE, Action, Host, Operation, Slot, Stage

# What a seed in a stage is worth, for potential-based shaping (Ng, Harada and Russell 1999).
POTENTIAL = {
    Stage.GERMINATED: 1.0,
    Stage.TRAINING: 2.0,
    Stage.BLENDING: 3.5,
    Stage.HOLDING: 5.5,
    Stage.FOSSILIZED: 6.0,
}
COSTS = {Operation.GERMINATE: 0.02, Operation.CULL: 0.05, Operation.FOSSILIZE: 0.01}


@dataclass(frozen=True, kw_only=True)
class Reward:
    """The terms of a reward, which is their sum."""

    contribution: float = 0.0
    shaping: float = 0.0
    rent: float = 0.0
    operation: float = 0.0
    accuracy: float = 0.0
    fossils: float = 0.0

    @property
    def terms(self) -> dict[str, float]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def total(self) -> float:
        return math.fsum(self.terms.values())


def reward_of(before: Host, done: Action, after: Host, *, ended: bool, config: GrowthConfig) -> Reward:
    """The reward for the epoch from `before` to `after`, in which `done` was done; `ended`: it was the last one.

    A host that diverged has no accuracy, and nothing in it contributes.
    """
    if config.reward == "sparse":
        return Reward(accuracy=_final(after, config), rent=-rent(after, config)) if ended else Reward()
    return Reward(
        contribution=config.contribution_weight * sum(attributed(slot, after) for slot in after.slots),
        shaping=config.shaping_weight
        * (config.shaping_gamma * (0.0 if ended else potential(after)) - potential(before)),
        rent=-rent(after, config),
        operation=-COSTS.get(done.operation, 0.0),
        accuracy=_final(after, config) if ended else 0.0,
        fossils=config.fossil_bonus * useful_fossils(after, config) if ended else 0.0,
    )


def attributed(slot: Slot, host: Host) -> float:
    """The points of accuracy that are put down to the seed in `slot`.

    Its contribution; where this is more than the host's progress since the seed was planted, the geometric mean of
    both, 0 without progress: a host that leans on a seed loses all without it, though it gained little.
    """
    if host.diverged or slot.stage not in LIVE or slot.contribution is None:
        return 0.0
    progress = max(host.val_accuracy - slot.planted_at, 0.0)
    if slot.contribution <= progress:
        return slot.contribution
    return math.sqrt(slot.contribution * progress)


def potential(host: Host) -> float:
    """The sum over the slots; that of an episode's end is 0, so that shaping changes no policy's rank."""
    return sum(POTENTIAL.get(slot.stage, 0.0) for slot in host.slots)


def rent(host: Host, config: GrowthConfig) -> float:
    """What the parameters in the slots cost."""
    return min(config.rent_weight * math.log1p(host.seed_parameters / host.parameters), config.max_rent)


def useful_fossils(host: Host, config: GrowthConfig) -> int:
    """How many fossilized seeds contribute enough to pass their gate."""
    if host.diverged:
        return 0
    fossils = (slot.contribution for slot in host.slots if slot.stage is Stage.FOSSILIZED)
    return sum(points is not None and points >= config.min_contribution for points in fossils)


def _final(host: Host, config: GrowthConfig) -> float:
    return 0.0 if host.diverged else config.accuracy_weight * host.val_accuracy
