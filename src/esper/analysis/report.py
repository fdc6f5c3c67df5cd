"""A run as one HTML page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from esper.analysis.anomalies import AnomalySummary, summarize_anomalies
from esper.analysis.growth import pictures_of, table_of
from esper.analysis.page import heading, page, picture, table, text
from esper.analysis.plots import plot_report
from esper.analysis.runs import ROWS, Columns, columns_of, ratio_quantiles, read_events
from esper.storage import files
from esper.telemetry.declared import missing_field, unreadable_schema
from esper.telemetry.diagnosis import diagnose
from esper.telemetry.events import LearningStalled


class ReportError(ValueError):
    """A run cannot be reported; the message says which, and why."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """The content of `events.jsonl`, by kind."""

    started: Mapping[str, Any]
    finished: Mapping[str, Any] | None
    resumed: Sequence[Mapping[str, Any]]
    updates: Columns
    anomalies: Sequence[AnomalySummary]
    stalled: LearningStalled | None
    evaluations: Sequence[Mapping[str, Any]]
    episodes: Sequence[Mapping[str, Any]]


def read_record(run_dir: Path) -> Record:
    """The record of a run, which may still be running.

    Raises:
        ReportError: when it cannot be read, or has no completed update.
    """
    try:
        events = list(read_events(run_dir))
    except (OSError, ValueError) as error:
        raise ReportError(f"{run_dir / 'events.jsonl'}: cannot be read: {files.why(error)}") from None
    if not events or events[0].get("event") != "run_started":
        raise ReportError(f"{run_dir / 'events.jsonl'}: does not begin with run_started")
    _check(run_dir, events)
    updates = columns_of(events)
    if not len(updates.get("update", ())):
        raise ReportError(f"{run_dir}: has no completed update yet")
    last = events[-1]
    return Record(
        started=events[0],
        finished=last if last["event"] == "run_finished" else None,
        resumed=[event for event in events if event["event"] == "run_resumed"],
        updates={**updates, **ratio_quantiles(events, updates["update"])},
        anomalies=summarize_anomalies(events),
        stalled=diagnose(events),
        evaluations=[event for event in events if event["event"] == "evaluation_completed"],
        episodes=[event for event in events if event["event"] == "growth_episode"],
    )


def _check(run_dir: Path, events: Sequence[Mapping[str, Any]]) -> None:
    """Refuse records of another version, without required fields, or with updates that have non-numbers."""
    for event in events:
        if reason := unreadable_schema(event):
            raise ReportError(f"{run_dir}: {reason}")
    if not isinstance(events[0].get("config", {}).get("env"), str):
        raise ReportError(f"{run_dir}: its run_started names no environment")
    for event in events:
        if name := missing_field(event):
            raise ReportError(f"{run_dir}: one of its {event['event']} has no {name}")
        if event["event"] in ROWS:
            for name, value in event.items():
                if name != "event" and not name.startswith("lr_phase/") and type(value) not in (int, float):
                    raise ReportError(f"{run_dir}: one of its {name} is {value!r:.40}, not a number")


def write_report(run_dir: Path, folder: Path | None) -> list[Path]:
    """Write `report.html` and its plots, as PNG files, into `folder`, by default `report` in the run's folder.

    Returns the files, the page first.

    Raises:
        ReportError: as `read_record`.
        OSError: when it cannot be written.
    """
    record = read_record(run_dir)
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
