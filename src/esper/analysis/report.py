"""A run as one HTML page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from esper.analysis.growth import pictures_of, table_of
from esper.analysis.page import heading, page, picture, table, text
from esper.analysis.plots import is_drawn, plot_report
from esper.analysis.record import Record
from esper.analysis.record import ReportError as ReportError
from esper.analysis.record import read_record as read_record
from esper.storage import files


def write_report(run_dir: Path, folder: Path | None) -> list[Path]:
    """Write `report.html` and its plots, as PNG files, into `folder`, by default `report` in the run's folder.

    Returns the files, the page first.

    Raises:
        ReportError: as `read_record`.
        OSError: when it cannot be written.
    """
    record = read_record(run_dir, is_drawn)
    pictures = plot_report(record.updates, record.anomalies) | pictures_of(record.episodes)
    written = {
        "report.html": _page(run_dir.absolute().name, record, pictures).encode(errors="backslashreplace"),
        **dict(pictures.values()),
    }
    if folder is None:
        root, folder = run_dir, run_dir / "report"
        files.make_folder(folder)
    else:
        root = folder
        folder.mkdir(parents=True, exist_ok=True)
    for name, data in written.items():
        files.write(folder / name, data, root=root)
    return [folder / name for name in written]


def _page(name: str, record: Record, pictures: Mapping[str, tuple[str, bytes]]) -> str:
    config = record.started["config"]
    sections = [text(f"{name}: {_how_it_went(record)}")]
    if record.cut is not None:
        sections += [text(f"the record is cut: {record.cut}; nothing from there on is reported")]
    if record.stalled is not None:
        sections += [heading("Diagnosis", bad=True), text(record.stalled.says)]
    if record.anomalies:
        # Numbered as in the plots.
        rows = (
            (f"{i}. {a.kind}", f"from update {a.update}, in {a.updates}: {a.says}")
            for i, a in enumerate(record.anomalies, start=1)
        )
        sections += [heading("Anomalies", bad=True), table(rows)]
    if record.evaluations:
        sections += [heading("Evaluation"), _evaluations(record.evaluations)]
    if record.episodes:
        sections += [heading("Episodes"), table_of(record.episodes)]
    for title, (_, png) in pictures.items():
        sections += [heading(title), picture(title, png)]
    schedules = {
        group: ", ".join(f"{name} {value}" for name, value in schedule.items())
        for group, schedule in record.started["schedules"].items()
    }
    resumed = {f"update {event['update']}": event["checkpoint"] for event in record.resumed}
    settings = {name: value for name, value in config.items() if value is not None}
    tables = {"Schedules": schedules, "Resumed": resumed, "Settings": settings, "Versions": record.started["versions"]}
    for title, rows in tables.items():
        if rows:
            sections += [heading(title), table(rows.items())]
    return page(f"{config['env']}, seed {record.started['seed']}", sections)


def _evaluations(events: Sequence[Mapping[str, Any]]) -> str:
    """The best and the latest evaluation, as a table; rows without a value are left out."""
    best = max(events, key=lambda event: event.get("eval_return_mean", -math.inf))
    columns = {
        "after update": "update",
        "mean return": "eval_return_mean",
        "deviation": "eval_return_std",
        "success rate": "eval_success_rate",
        "episodes": "eval_episodes",
        "truncated by the evaluation": "eval_capped",
    }
    known = {title: name for title, name in columns.items() if name in best or name in events[-1]}
    rows = [
        (which, *(f"{event.get(name, math.nan):.10g}" for name in known.values()))
        for which, event in (("best", best), ("latest", events[-1]))
    ]
    return table(rows, ("", *known))


def _how_it_went(record: Record) -> str:
    # A resume can make a run longer.
    total = [record.started, *record.resumed][-1]["total_updates"]
    done = f"{len(record.updates['update']):,} of {total:,} {'rounds' if record.episodes else 'updates'}"
    steps = f"{int(record.updates['env_steps'][-1]):,} environment steps"
    if record.finished is None:
        return f"not finished, {done}, {steps}"
    cause = f" ({record.finished['cause']})" if "cause" in record.finished else ""
    return f"{record.finished['status']}{cause}, {done}, {steps}, {record.finished.get('seconds', math.nan):,.0f} s"
