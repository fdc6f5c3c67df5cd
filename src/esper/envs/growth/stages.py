"""The life of a seed: its stages, the gates between them, and how it is blended in. Pure functions of numbers.

Accuracies are those of validation, in percent; gains and contributions are differences of them, in points.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol


class Stage(IntEnum):
    """What the seed in a slot does. In each stage but the first and the last there is a seed."""

    DORMANT = 0  # there is none, and one can be planted
    GERMINATED = 1  # it is planted, and has no effect yet
    TRAINING = 2  # it learns what it would do: the forward pass is the host's, gradients reach the seed
    BLENDING = 3  # its share of the forward pass, alpha, rises to 1
    HOLDING = 4  # it is a full part of the host, and can still be culled
    FOSSILIZED = 5  # part of the host for good
    CULLED = 6  # it was removed; dormant after two epochs


class Blend(IntEnum):
    """How alpha rises over the steps of blending."""

    LINEAR = 0
    SIGMOID = 1
    GATED = 2  # linear, in steps that wait while the seed's gradient is small


class Operation(IntEnum):
    """What an action does to the slot that it chooses."""

    WAIT = 0
    GERMINATE = 1
    CULL = 2
    FOSSILIZE = 3


PLANTED = frozenset({Stage.GERMINATED, Stage.TRAINING, Stage.BLENDING, Stage.HOLDING, Stage.FOSSILIZED})
# The seed has a part in the forward pass.
LIVE = frozenset({Stage.BLENDING, Stage.HOLDING, Stage.FOSSILIZED})
# How long a slot stays empty after its seed was culled: the epoch of the action, and one more.
_EMPTY_EPOCHS = 2
CAN_BE_CULLED = PLANTED - {Stage.FOSSILIZED}


class Gates(Protocol):
    """The conditions between stages; `GrowthConfig` has them."""

    @property
    def min_epochs(self) -> int: ...
    @property
    def min_gain(self) -> float: ...
    @property
    def min_gradient(self) -> float: ...
    @property
    def min_alpha(self) -> float: ...
    @property
    def min_contribution(self) -> float: ...
    @property
    def blend_steps(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A slot of one host, after the latest epoch.

    `blueprint` is the number of the planted one, from 1; 0 is none. `alpha` is the seed's share of the forward pass in
    the next epoch. `age` counts epochs since the seed was planted, `stage_epochs` those in its stage, `steps` those of
    its blending. `planted_at` and `entered_at` are the host's accuracies when the seed was planted, and when its stage
    began. `improvement` is the gain since its stage began. `contribution` is the accuracy less that with alpha 0; None
    while the seed is not live. `gradient_ratio` is the root mean square of the gradients of the seed's parameters,
    divided by that of the host's, over the latest epoch.
    """

    stage: Stage = Stage.DORMANT
    blueprint: int = 0
    blend: Blend = Blend.LINEAR
    alpha: float = 0.0
    age: int = 0
    stage_epochs: int = 0
    steps: int = 0
    planted_at: float = 0.0
    entered_at: float = 0.0
    improvement: float = 0.0
    contribution: float | None = None
    gradient_ratio: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Host:
    """One host of an environment, after the latest epoch; `epoch` is 0 before the first.

    Losses are mean cross-entropies, accuracies are in percent. `train_loss` and `train_accuracy` are means over the
    minibatches of the epoch, 0 before the first. `val_losses` and `val_accuracies` are of all epochs so far, that of
    the untrained host first. `parameters` are the host's own, `seed_parameters` those in its slots. `diverged`: a
    number in the latest epoch was not finite.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    val_losses: tuple[float, ...]
    val_accuracies: tuple[float, ...]
    slots: tuple[Slot, ...]
    parameters: int
    seed_parameters: int = 0
    diverged: bool = False

    @property
    def val_loss(self) -> float:
        return self.val_losses[-1]

    @property
    def val_accuracy(self) -> float:
        return self.val_accuracies[-1]


@dataclass(frozen=True, kw_only=True)
class Action:
    """One action in words: the operation on a slot, and for GERMINATE the blueprint, from 1, and the blend."""

    operation: Operation = Operation.WAIT
    slot: int = 0
    blueprint: int = 0
    blend: Blend = Blend.LINEAR

    @property
    def numbers(self) -> tuple[int, int, int, int]:
        """As the environment takes it: slot, blueprint, blend, operation."""
        return (self.slot, self.blueprint, int(self.blend), int(self.operation))

    @classmethod
    def of(cls, numbers: tuple[int, int, int, int]) -> Action:
        slot, blueprint, blend, operation = map(int, numbers)
        return cls(operation=Operation(operation), slot=slot, blueprint=blueprint, blend=Blend(blend))


def can(operation: Operation, slot: Slot, gates: Gates) -> bool:
    """Whether `operation` does anything in `slot`; waiting is always possible."""
    match operation:
        case Operation.GERMINATE:
            return slot.stage is Stage.DORMANT
        case Operation.CULL:
            return slot.stage in CAN_BE_CULLED
        case Operation.FOSSILIZE:
            return slot.stage is Stage.HOLDING and not closed(slot, gates)
    return True


def act(slot: Slot, action: Action, accuracy: float, gates: Gates) -> Slot:
    """The slot after `action` on it, at the host's `accuracy`; unchanged where the action cannot be done in it."""
    if not can(action.operation, slot, gates):
        return slot
    match action.operation:
        case Operation.GERMINATE if action.blueprint:
            return Slot(
                stage=Stage.GERMINATED,
                blueprint=action.blueprint,
                blend=action.blend,
                planted_at=accuracy,
                entered_at=accuracy,
            )
        case Operation.CULL:
            return Slot(stage=Stage.CULLED, entered_at=accuracy)
        case Operation.FOSSILIZE:
            return _enter(slot, Stage.FOSSILIZED, accuracy)
    return slot


def measured(slot: Slot, accuracy: float, contribution: float | None, gradient_ratio: float) -> Slot:
    """The slot after one more epoch, with what was measured in it."""
    if slot.stage is Stage.DORMANT:
        return slot
    return dataclasses.replace(
        slot,
        age=slot.age + (slot.stage in PLANTED),
        stage_epochs=slot.stage_epochs + 1,
        improvement=accuracy - slot.entered_at,
        contribution=contribution,
        gradient_ratio=gradient_ratio,
    )


def closed(slot: Slot, gates: Gates) -> tuple[str, ...]:
    """Why the gate to the next stage is closed, in words; empty if it is open."""
    match slot.stage:
        case Stage.TRAINING:
            return _unmet(
                (slot.stage_epochs >= gates.min_epochs, f"{slot.stage_epochs} of {gates.min_epochs} epochs"),
                (slot.improvement >= gates.min_gain, f"gained {slot.improvement:.3g} of {gates.min_gain:g} points"),
                (
                    slot.gradient_ratio >= gates.min_gradient,
                    f"gradient ratio {slot.gradient_ratio:.3g} of {gates.min_gradient:g}",
                ),
            )
        case Stage.BLENDING:
            return _unmet(
                (slot.stage_epochs >= gates.min_epochs, f"{slot.stage_epochs} of {gates.min_epochs} epochs"),
                (slot.alpha >= gates.min_alpha, f"alpha {slot.alpha:.3g} of {gates.min_alpha:g}"),
            )
        case Stage.HOLDING:
            contribution = -math.inf if slot.contribution is None else slot.contribution
            return _unmet(
                (
                    contribution >= gates.min_contribution,
                    f"contributes {contribution:.3g} of {gates.min_contribution:g} points",
                )
            )
        case Stage.CULLED:
            return _unmet((slot.stage_epochs >= _EMPTY_EPOCHS, f"{slot.stage_epochs} of {_EMPTY_EPOCHS} epochs"))
        case Stage.DORMANT | Stage.FOSSILIZED:
            return ("there is no next stage",)
    return ()


def _unmet(*conditions: tuple[bool, str]) -> tuple[str, ...]:
    return tuple(says for met, says in conditions if not met)


def advance(slot: Slot, accuracy: float, gates: Gates) -> Slot:
    """The slot at the end of an epoch: in its next stage where the gate is open, or one step further in blending.

    Holding ends by an action alone.
    """
    if slot.stage is Stage.BLENDING and closed(slot, gates):
        steps = slot.steps + (slot.blend is not Blend.GATED or slot.gradient_ratio >= gates.min_gradient)
        return dataclasses.replace(slot, steps=steps, alpha=alpha_at(slot.blend, steps, gates.blend_steps))
    if slot.stage is Stage.HOLDING or closed(slot, gates):
        return slot
    if slot.stage is Stage.CULLED:
        return Slot()
    following = _enter(slot, Stage(slot.stage + 1), accuracy)
    match following.stage:
        case Stage.BLENDING:
            return dataclasses.replace(following, steps=1, alpha=alpha_at(slot.blend, 1, gates.blend_steps))
        case Stage.HOLDING:
            return dataclasses.replace(following, alpha=1.0)
    return following


def _enter(slot: Slot, stage: Stage, accuracy: float) -> Slot:
    return dataclasses.replace(slot, stage=stage, stage_epochs=0, entered_at=accuracy, improvement=0.0)


# A sigmoid over plus and minus half of this.
_STEEPNESS = 12.0


def alpha_at(blend: Blend, step: int, steps: int) -> float:
    """Alpha in the `step`-th of `steps` steps of blending: 0 before the first, 1 in the last and after it."""
    progress = min(step / steps, 1.0)
    if blend is not Blend.SIGMOID:
        return progress
    low, high = _sigmoid(-_STEEPNESS / 2), _sigmoid(_STEEPNESS / 2)
    return (_sigmoid(_STEEPNESS * (progress - 0.5)) - low) / (high - low)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))
