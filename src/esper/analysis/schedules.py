"""What a report has of a run's schedules: small pictures of those that change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from esper.analysis.page import heading, schedule, text
from esper.analysis.record import Record

_POINTS = 200


def schedules_of(record: Record) -> list[str]:
    """A section with a picture for each schedule that changes, over all updates, and a line with the others."""
    last = [record.started, *record.resumed][-1]
    total, updates = max(1, last["total_updates"] - 1), record.updates["update"]
    pictures, unchanged = [], []
    for name, declared in last["schedules"].items():
        column = name.removesuffix("_lr")
        values = record.updates.get(name if column == name else f"lr/{column}", np.array([]))
        known = values[np.isfinite(values)]
        if not len(known) or np.ptp(known) == 0:
            unchanged.append(f"{name} {_number(declared.get('peak'))}")
            continue
        kept = np.unique(np.linspace(0, len(updates) - 1, _POINTS).astype(int))
        x, y = updates[kept] / total, values[kept] / known.max()
        points = [point for point in zip(x.tolist(), y.tolist(), strict=True) if point[1] == point[1]]
        pictures.append(schedule(name, _says(declared), points))
    sections = [f'<div class="schedules">{"".join(pictures)}</div>'] if pictures else []
    sections += [text(f"unchanged: {', '.join(unchanged)}")] if unchanged else []
    return [heading("Schedules"), *sections] if sections else []


def _says(declared: Mapping[str, Any]) -> str:
    parts = [f"{declared.get('decay')} from {_number(declared.get('peak'))} to {_number(declared.get('floor'))}"]
    parts += [f"{name} {declared[name]}" for name in ("delay", "warmup") if declared.get(name)]
    return ", ".join(parts)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float | int) else str(value)
