"""Converts states of older checkpoints to those of this version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from esper.simic.config import SCHEDULES


class UpgradeError(ValueError):
    """A state of an older schema cannot be resumed exactly by this version; the message says why."""


def upgraded_settings(settings: Any, schema: int) -> Any:
    """The settings of a checkpoint of `schema`.

    In schema 1 a piecewise schedule had an unused base rate beside it; since then the base rate is the first point's.
    """
    if schema > 1 or not isinstance(settings, dict):
        return settings
    return {**settings, **{name: points[0][1] for name, points in _piecewise(settings)}}


def upgraded_state(state: Mapping[str, Any], schema: int, fresh: Mapping[str, Any]) -> Mapping[str, Any]:
    """The state of a checkpoint of `schema`; `fresh` is that of the same run before its first update.

    In schema 1 undone updates did not advance the clock of schedules, and before the first rollout there was no
    recurrent state. Schema 1 and early schema 2 had no global generators, and no feedback.

    Raises:
        UpgradeError: when updates were undone.
        LookupError, TypeError: when it is not the state of a run.
    """
    stored = state.get("training")
    if isinstance(stored, Mapping):
        agent = {"lr_factors": fresh["training"]["agent"]["lr_factors"], **stored["agent"]}
        state = {**state, "training": {"generators": None, **stored, "agent": agent}}
    if schema > 1:
        return state
    training, schedule = dict(state["training"]), state["schedule"]
    updates, rollouts = training["agent"]["train_steps"], training.pop("rollouts")
    if updates != rollouts:
        raise UpgradeError(
            f"{rollouts - updates} of its {rollouts} updates were undone (or over target_kl at once); the version that "
            "wrote it did not count these in its schedules, this one does: a rate would jump; resume with that version"
        )
    peaks = {name: points[0][1] for name, points in _piecewise(state["config"])}
    resolved = {
        name: {**values, "peak": peaks.get(name, values["peak"])} for name, values in schedule["resolved"].items()
    }
    collector = {**fresh["training"]["collector"], **training["collector"]}
    return {
        **state,
        "schedule": {**schedule, "resolved": resolved},
        "training": {**training, "collector": collector, "first_update": 0, "undone": 0},
    }


def _piecewise(settings: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The schedules that have points, and their points."""
    found = [(name, settings.get(f"{name}_points")) for name in SCHEDULES]
    return [(name, points) for name, points in found if points]
