"""How an event declares the metrics of an update, one field each: everything else that is said of them follows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

# `std` is of all samples of an update: its column has the mean of (x - 1)^2, and the metric NAME_mean that of x.
Summary: TypeAlias = Literal["mean", "min", "max", "std"]

# Groups of parameters, by which rates and norms are given.
GROUPS = ("policy", "value", "shared")

# Of the importance ratio: what a `DebugSnapshot` has of each minibatch beside the metrics of an update.
RATIO_QUANTILES = {f"ratio_p{percent:02}": percent / 100 for percent in (5, 25, 50, 75, 95)}


class Metric(NamedTuple):
    """`summary` makes one number of those of the minibatches; None: it is of the update as a whole.

    `column` is what a minibatch has of it, its name unless that is another number. Snapshots have statistics of it
    where it is `in_snapshots`. `section` is its group in TensorBoard.
    """

    name: str
    meaning: str
    unit: str
    summary: Summary | None
    column: str
    by_group: bool
    in_snapshots: bool
    section: str


def metric(
    meaning: str,
    *,
    unit: str = "",
    summary: Summary | None = "mean",
    column: str | None = None,
    by_group: bool = False,
    in_snapshots: bool = False,
    section: str | None = None,
    default: Any = dataclasses.MISSING,
) -> Any:
    """A field of an event that is a metric: summed up over the minibatches that the optimizer stepped on, or not."""
    declared: dict[str, Any] = {"meaning": meaning, "unit": unit, "summary": summary, "column": column}
    # What minibatches have is of the losses, unless it says otherwise.
    section = section or ("train" if summary is None else "losses")
    declared |= {"by_group": by_group, "in_snapshots": in_snapshots, "section": section}
    return dataclasses.field(default=default, metadata=declared)


def of_rollout(meaning: str, **declared: Any) -> Any:
    """A metric of the rollout, before the update."""
    return metric(meaning, summary=None, section="rollout", **declared)


def metrics_of(event: type) -> tuple[Metric, ...]:
    """The metrics that `event` declares, in order."""
    return tuple(_metrics_of(event))


def columns_of(event: type) -> tuple[Metric, ...]:
    """Those of its metrics that are one number of a minibatch."""
    return tuple(metric for metric in metrics_of(event) if metric.summary is not None and not metric.by_group)


def in_snapshots(event: type) -> tuple[str, ...]:
    """The names, in a record, of its metrics that snapshots have statistics of."""
    found = (metric for metric in metrics_of(event) if metric.in_snapshots)
    return tuple(name for metric in found for name in _recorded_as(metric))


def by_group(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What `record` has of mapping `name`."""
    prefix = f"{name}/"
    return {key.removeprefix(prefix): value for key, value in record.items() if key.startswith(prefix)}


def _recorded_as(metric: Metric) -> Iterator[str]:
    yield from (f"{metric.name}/{group}" for group in GROUPS) if metric.by_group else (metric.name,)


def _metrics_of(event: type) -> Iterator[Metric]:
    for field in dataclasses.fields(event):
        if field.metadata:
            declared = {**field.metadata, "column": field.metadata["column"] or field.name}
            yield Metric(name=field.name, **declared)
