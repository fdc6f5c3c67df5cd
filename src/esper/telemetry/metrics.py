"""How an event declares metrics of minibatches: name, meaning, unit, and how they become one number of an update.

`python -m esper.telemetry.metrics` prints the table of docs/telemetry.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, TypeAlias

# `std` is of all samples of an update: its column has the mean of (x - 1)^2, and the metric NAME_mean that of x.
Summary: TypeAlias = Literal["mean", "min", "max", "std"]


class Metric(NamedTuple):
    """`column` is what a minibatch has of it, its name unless that is another number."""

    name: str
    meaning: str
    unit: str
    summary: Summary
    column: str


def metric(meaning: str, *, unit: str = "", summary: Summary = "mean", column: str | None = None) -> Any:
    """A field of an event that is a metric of minibatches, summed up over those that the optimizer stepped on."""
    return dataclasses.field(metadata={"meaning": meaning, "unit": unit, "summary": summary, "column": column})


def metrics_of(event: type) -> tuple[Metric, ...]:
    """The metrics that `event` declares, in order."""
    return tuple(_metrics_of(event))


def _metrics_of(event: type) -> Iterator[Metric]:
    for field in dataclasses.fields(event):
        if field.metadata:
            meaning, unit, summary, column = field.metadata.values()
            yield Metric(field.name, meaning, unit, summary, column or field.name)


def table(event: type) -> str:
    """The metrics of `event` in Markdown."""
    rows = [f"| `{m.name}` | {m.meaning} | {m.unit} | {m.summary} |" for m in metrics_of(event)]
    return "\n".join(("| metric | what it is | unit | over minibatches |", "|---|---|---|---|", *rows))


if __name__ == "__main__":
    from esper.telemetry.events import UpdateCompleted

    print(table(UpdateCompleted))
