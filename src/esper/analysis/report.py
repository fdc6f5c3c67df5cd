"""A run as one HTML page that needs nothing else: pictures are in it, and there is no script."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from esper.analysis.anomalies import Anomaly, find_anomalies
from esper.analysis.plots import plot_report
from esper.analysis.runs import Columns, columns_of, read_events

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #222 }
h1 { font-size: 1.5rem; margin-bottom: 0 } h2 { font-size: 1.1rem; margin-top: 2rem }
img { width: 100% } table { border-collapse: collapse } td, th { padding: .15rem .8rem .15rem 0; text-align: left }
td + td { font-family: ui-monospace, monospace; font-size: 13px } .bad { color: #a40000 }
@media (prefers-color-scheme: dark) { body { background: #161616; color: #ddd } img { filter: invert(.92) } }
"""


class ReportError(ValueError):
    """A run of which there is nothing to report: which, and why."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What `events.jsonl` has, sorted by kind."""

    started: Mapping[str, Any]
    finished: Mapping[str, Any] | None
    resumed: Sequence[Mapping[str, Any]]
    updates: Columns
    anomalies: Sequence[Anomaly]


def read_record(run_dir: Path) -> Record:
    """The record of a run, which may still be running.

    Raises:
        ReportError: when it cannot be read, or has no update.
    """
    try:
        events = list(read_events(run_dir))
    except (OSError, ValueError) as error:
        raise ReportError(f"{run_dir / 'events.jsonl'}: cannot be read: {error}") from None
    if not events or events[0].get("event") != "run_started":
        raise ReportError(f"{run_dir / 'events.jsonl'}: does not begin with run_started")
    updates = columns_of(events)
    if not len(updates.get("update", ())):
        raise ReportError(f"{run_dir}: has no completed update yet")
    last = events[-1]
    return Record(
        started=events[0],
        finished=last if last["event"] == "run_finished" else None,
        resumed=[event for event in events if event["event"] == "run_resumed"],
        updates=updates,
        anomalies=find_anomalies(updates, [event for event in events if event["event"] == "update_skipped"]),
    )


def write_report(run_dir: Path, folder: Path) -> list[Path]:
    """`report.html` and its pictures, as PNG files, into `folder`; returns what was written, the page first.

    Raises:
        ReportError: as `read_record`.
    """
    record = read_record(run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    pictures = plot_report(record.updates, record.anomalies, folder)
    page = folder / "report.html"
    page.write_text(_page(run_dir.name, record, pictures), encoding="utf-8")
    return [page, *pictures.values()]


def _page(name: str, record: Record, pictures: Mapping[str, Path]) -> str:
    config = record.started["config"]
    title = f"{config['env']}, seed {record.started['seed']}"
    sections = [f"<h1>{html.escape(title)}</h1><p>{html.escape(name)}: {html.escape(_how_it_went(record))}</p>"]
    if record.anomalies:
        rows = ((a.kind, f"from update {a.update}, in {a.updates}: {a.says}") for a in record.anomalies)
        sections.append(f'<h2 class="bad">Anomalies</h2>{_table(rows)}')
    for heading, picture in pictures.items():
        data = base64.b64encode(picture.read_bytes()).decode()
        sections.append(f'<h2>{heading}</h2><img alt="{heading}" src="data:image/png;base64,{data}">')
    schedules = (
        (group, ", ".join(f"{k} {v}" for k, v in s.items())) for group, s in record.started["schedules"].items()
    )
    sections.append(f"<h2>Schedules</h2>{_table(schedules)}")
    if record.resumed:
        rows = ((f"update {event['update']}", event["checkpoint"]) for event in record.resumed)
        sections.append(f"<h2>Resumed</h2>{_table(rows)}")
    sections.append(f"<h2>Settings</h2>{_table(config.items())}")
    sections.append(f"<h2>Versions</h2>{_table(record.started['versions'].items())}")
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}</style>'
    return f"<!doctype html><html lang=en><head>{head}</head><body>{''.join(sections)}</body></html>\n"


def _how_it_went(record: Record) -> str:
    done = f"{len(record.updates['update']):,} of {record.started['total_updates']:,} updates"
    steps = f"{int(record.updates['env_steps'][-1]):,} environment steps"
    if record.finished is None:
        return f"not finished, {done}, {steps}"
    cause = f" ({record.finished['cause']})" if "cause" in record.finished else ""
    return f"{record.finished['status']}{cause}, {done}, {steps}, {record.finished['seconds']:,.0f} s"


def _table(rows: Iterable[tuple[Any, Any]]) -> str:
    cells = "".join(f"<tr><td>{html.escape(str(a))}</td><td>{html.escape(str(b))}</td></tr>" for a, b in rows)
    return f"<table>{cells}</table>"
