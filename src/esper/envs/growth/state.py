"""Hosts as trees of arrays and JSON values, and back to the bit."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from esper.envs.base import StateTree
from esper.envs.growth.stages import Blend, Host, Slot, Stage

_COUNTS = ("stage", "blueprint", "blend", "age", "stage_epochs", "steps")
_NUMBERS = ("alpha", "planted_at", "entered_at", "improvement", "contribution", "gradient_ratio")


def encoded(host: Host) -> StateTree:
    """`host` as arrays; NaN is a contribution that is None."""
    counts = [[int(getattr(slot, name)) for name in _COUNTS] for slot in host.slots]
    numbers = [[_number(getattr(slot, name)) for name in _NUMBERS] for slot in host.slots]
    return {
        "slot_counts": np.array(counts, dtype=np.int64),
        "slot_numbers": np.array(numbers, dtype=np.float64),
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
        counts, numbers, val, train = (
            np.asarray(state[name]) for name in ("slot_counts", "slot_numbers", "val", "train")
        )
        epoch, parameters, seed_parameters = np.asarray(state["counts"]).tolist()
        losses, accuracies = val.tolist()
        train_loss, train_accuracy = train.tolist()
        slots = tuple(_slot(*row) for row in zip(counts.tolist(), numbers.tolist(), strict=True))
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


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _slot(counts: list[int], numbers: list[float]) -> Slot:
    fields: dict[str, Any] = {
        **dict(zip(_COUNTS, counts, strict=True)),
        **dict(zip(_NUMBERS, numbers, strict=True)),
    }
    fields["stage"], fields["blend"] = Stage(fields["stage"]), Blend(fields["blend"])
    if np.isnan(fields["contribution"]):
        fields["contribution"] = None
    return dataclasses.replace(Slot(), **fields)
