"""What the policy sees of a host: numbers near 1, each with a name."""

from __future__ import annotations

import numpy as np

from esper.envs.base import FloatArray
from esper.envs.growth.config import GrowthConfig
from esper.envs.growth.stages import Host, Slot, Stage, closed

# Numbers are clipped at plus and minus this; one that is not finite, as a loss of a host that diverged, becomes it.
LIMIT = 10.0
_HISTORY = 5
_POINTS = 10.0


def names(config: GrowthConfig) -> tuple[str, ...]:
    """The names of the numbers of an observation, in order; `docs/growth.md` has what they mean."""
    past = [f"{name}_{ago}_ago" for name in ("val_loss", "val_accuracy") for ago in range(1, _HISTORY + 1)]
    of_host = (
        *("epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "gain", "best_accuracy"),
        *("epochs_since_best", "seed_parameters", "fossils"),
    )
    planted = [f"is_{name}" for name in config.choices[1]]
    stages = [f"is_{stage.name.lower()}" for stage in Stage]
    of_slot = (
        *("alpha", "age", "stage_epochs", "improvement", "contribution", "has_contribution"),
        *("gradient_ratio", "gate_open"),
    )
    return (
        *of_host,
        *past,
        *(f"{slot}.{name}" for slot in config.slots for name in (*stages, *planted, *of_slot)),
    )


def observation(host: Host, config: GrowthConfig) -> FloatArray:
    """[D], in the order of `names`: accuracies as shares, points in tens, epochs as shares of an episode."""
    numbers = [*_of_host(host, config), *(number for slot in host.slots for number in _of_slot(slot, config))]
    array = np.nan_to_num(np.array(numbers), nan=LIMIT, posinf=LIMIT, neginf=-LIMIT)
    clipped: FloatArray = np.clip(array, -LIMIT, LIMIT).astype(np.float32)
    return clipped


def _of_host(host: Host, config: GrowthConfig) -> list[float]:
    losses, accuracies = host.val_losses, host.val_accuracies
    best = accuracies.index(max(accuracies))
    return [
        host.epoch / config.epochs,
        host.train_loss,
        host.train_accuracy / 100,
        host.val_loss,
        host.val_accuracy / 100,
        (accuracies[-1] - accuracies[-2]) / _POINTS if host.epoch else 0.0,
        accuracies[best] / 100,
        (len(accuracies) - 1 - best) / config.epochs,
        host.seed_parameters / host.parameters,
        float(sum(slot.stage is Stage.FOSSILIZED for slot in host.slots)),
        *_past(losses, 1.0),
        *_past(accuracies, 100.0),
    ]


def _past(values: tuple[float, ...], unit: float) -> list[float]:
    """Those before the latest one, the newest first; the earliest one stands for those before it."""
    return [values[max(-1 - ago, -len(values))] / unit for ago in range(1, _HISTORY + 1)]


def _of_slot(slot: Slot, config: GrowthConfig) -> list[float]:
    return [
        *(float(slot.stage is stage) for stage in Stage),
        *(float(slot.blueprint == blueprint) for blueprint in range(len(config.blueprints) + 1)),
        slot.alpha,
        slot.age / config.epochs,
        slot.stage_epochs / config.epochs,
        slot.improvement / _POINTS,
        (slot.contribution or 0.0) / _POINTS,
        float(slot.contribution is not None),
        slot.gradient_ratio,
        float(not closed(slot, config)),
    ]
