"""Run folders as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray

from esper.settings.values import as_path, nearest
from esper.telemetry.declared import always_numbers
from esper.telemetry.events import TIME_FIELDS, TIMED_EVENTS, UpdateCompleted
from esper.telemetry.jsonl import read_record

# The columns of what was added from Python: metrics of callbacks and terms of the loss.
OWN = ("user/", "loss_term/")

# The events that are rows: those of updates, and of controllers that do not learn.
ROWS = ("update_completed", "round_completed")

Columns: TypeAlias = Mapping[str, NDArray[Any]]


class Table(dict[str, NDArray[Any]]):
    """Columns by name, of one length; `pandas.DataFrame` and `polars.DataFrame` take it as it is."""

    def __missing__(self, name: object) -> NoReturn:
        raise KeyError(f"{name!s} is no column{nearest(str(name), self) or '; list(...) has their names'}")


def read_events(run_dir: Path) -> Iterator[dict[str, Any]]:
    """The records in `events.jsonl`, in order.

    Raises:
        OSError, ValueError: as `read_record` of `esper.telemetry.jsonl`.
    """
    yield from read_record(run_dir / "events.jsonl")


def repeatable_events(run_dir: Path) -> list[dict[str, Any]]:
    """The records without times, which are equal for two runs with the same settings and seed."""
    return [
        {name: value for name, value in event.items() if name not in TIME_FIELDS}
        for event in read_events(run_dir)
        if event["event"] not in TIMED_EVENTS
    ]


def load_updates(run_dir: str | Path) -> Table:
    """The completed updates of a run, a column per name; NaN where a number was not computed.

    Raises:
        ConfigError: for what is no path.
        OSError, ValueError: as `read_events`.
    """
    return columns_of(read_events(as_path("run_dir", run_dir)))


def columns_of(events: Iterable[Mapping[str, Any]]) -> Table:
    """The same for records that were read already."""
    rows = [event for event in events if event["event"] in ROWS]
    names = dict.fromkeys(name for row in rows for name in row)
    if any(row["event"] == "update_completed" for row in rows):
        # A number that was finite in no update is missing from all.
        names |= dict.fromkeys(always_numbers(UpdateCompleted))
    return Table({name: np.array([row.get(name, np.nan) for row in rows]) for name in names})


def ratio_quantiles(events: Iterable[Mapping[str, Any]], updates: NDArray[Any]) -> Columns:
    """The quantiles of the importance ratio by update, the mean over minibatches; empty without telemetry `debug`."""
    prefix = "minibatch/ratio_p"
    rows = {
        event["update"]: {name: values for name, values in event.items() if name.startswith(prefix)}
        for event in events
        if event["event"] == "debug_snapshot"
    }
    names = dict.fromkeys(name for row in rows.values() for name in row)
    return {
        name.removeprefix("minibatch/"): np.array([_mean(rows.get(update, {}).get(name, ())) for update in updates])
        for name in names
    }


def _mean(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else np.nan
