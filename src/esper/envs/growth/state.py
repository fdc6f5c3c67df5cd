"""Hosts as trees of arrays and JSON values, and back to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np

from esper.envs.base import StateTree
from esper.envs.growth.stages import Blend, Host, Slot, Stage

_COUNTS = ("stage", "blueprint", "blend", "age", "stage_epochs", "steps")
_NUMBERS = ("alpha", "planted_at", "entered_at", "improvement", "gradient_ratio")


def encoded(host: Host) -> StateTree:
    """`host` as arrays without NaN, which equals nothing: 0 or 1 says whether there is a contribution."""
    counts = [[int(getattr(slot, name)) for name in _COUNTS] for slot in host.slots]
    numbers = [[getattr(slot, name) for name in _NUMBERS] for slot in host.slots]
    contributions = [[slot.contribution or 0.0, float(slot.contribution is not None)] for slot in host.slots]
    return {
        "slot_counts": np.array(counts, dtype=np.int64),
        "slot_numbers": np.array(numbers, dtype=np.float64),
        "contributions": np.array(contributions, dtype=np.float64),
        "val": np.array([host.val_losses, host.val_accuracies], dtype=np.float64),
        "train": np.array([host.train_loss, host.train_accuracy], dtype=np.float64),
        "counts": np.array([host.epoch, host.parameters, host.seed_parameters], dtype=np.int64),
    }


def decoded(state: StateTree) -> Host:
    """The host that `encoded` took; one that diverged is in no state.

    Raises:
        ValueError: when it is none.
    """
    try:
        counts, numbers, contributions = (state[name] for name in ("slot_counts", "slot_numbers", "contributions"))
        rows = zip(*(np.asarray(array).tolist() for array in (counts, numbers, contributions)), strict=True)
        slots = tuple(_slot(*row) for row in rows)
        epoch, parameters, seed_parameters = np.asarray(state["counts"]).tolist()
        losses, accuracies = np.asarray(state["val"]).tolist()
        train_loss, train_accuracy = np.asarray(state["train"]).tolist()
    except (KeyError, TypeError) as error:
        raise ValueError(f"is no state of a host: {error}") from None
    return Host(
        epoch=epoch,
        train_loss=train_loss,
        train_accuracy=train_accuracy,
        val_losses=tuple(losses),
        val_accuracies=tuple(accuracies),
        slots=slots,
        parameters=parameters,
        seed_parameters=seed_parameters,
    )


def _slot(counts: list[int], numbers: list[float], contribution: list[float]) -> Slot:
    fields: dict[str, Any] = {
        **dict(zip(_COUNTS, counts, strict=True)),
        **dict(zip(_NUMBERS, numbers, strict=True)),
    }
    fields["stage"], fields["blend"] = Stage(fields["stage"]), Blend(fields["blend"])
    points, known = contribution
    return Slot(**fields, contribution=points if known else None)
