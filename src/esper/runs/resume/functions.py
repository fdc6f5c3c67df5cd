"""Functions as schedules where a run goes on: what they gave is stored, they themselves are not."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from esper.runs.config import RunConfig
from esper.schedules import Function
from esper.schedules.function import CUSTOM
from esper.simic.config import SCHEDULES


def with_stored_functions(settings: Mapping[str, Any], schedule: Any) -> dict[str, Any]:
    """The `settings` of a checkpoint with the rates that its functions gave, so that none has to be imported.

    `schedule` is the checkpoint's state of the schedules.

    Raises:
        ConfigError, AttributeError, LookupError, TypeError: for tables that no run stores.
    """
    tables = schedule.get("tables", {}) if isinstance(schedule, Mapping) else {}
    stored = {}
    for name, rates in tables.items():
        path = schedule["resolved"][name].get("function")
        stored[f"{name}_decay"] = Function(name=settings[f"{name}_decay"], path=path, table=tuple(rates.tolist()))
    return {**settings, **stored}


def names_of_functions(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The same `settings` with functions by name alone, which a new horizon calls again; one of Python is missing."""

    def name_of(value: Function) -> Function | str:
        return Function(path=value.path) if value.name == CUSTOM else value.name

    return {name: name_of(value) if isinstance(value, Function) else value for name, value in settings.items()}


def keep_functions(stored: RunConfig, now: RunConfig) -> RunConfig:
    """`now`, a run that keeps its horizon, with the rates that functions gave it in place of functions by that name.

    Raises:
        ValueError: for a function that was given again, and is another one.
    """
    kept = {}
    for name in SCHEDULES:
        before, after = getattr(stored.ppo, name), getattr(now.ppo, name)
        if not isinstance(before.decay, Function) or str(before.decay) != str(after.decay):
            continue
        table = before.decay.table or ()
        if isinstance(after.decay, Function) and (again := after.decay.rates(len(table))) != table:
            update = next(update for update, rate in enumerate(table) if again[update] != rate)
            raise ValueError(
                f"{name}_decay = {after.decay}: another function; for update {update} of its schedule "
                f"{table[update]:.6g}, now {again[update]:.6g}"
            )
        kept[name] = dataclasses.replace(after, decay=before.decay)
    return dataclasses.replace(now, ppo=dataclasses.replace(now.ppo, **kept)) if kept else now
