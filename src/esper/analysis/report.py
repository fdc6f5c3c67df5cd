"""A run as one HTML page."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from esper.analysis import charts
from esper.analysis.charts_report import charts_of
from esper.analysis.growth import pictures_of, table_of
from esper.analysis.measures import FINAL_SHARE, MEASURES
from esper.analysis.page import answer, folded, heading, page, picture, table, text
from esper.analysis.panels import is_drawn
from esper.analysis.plots import plot_report
from esper.analysis.record import Record
from esper.analysis.record import ReportError as ReportError
from esper.analysis.record import read_record as read_record
from esper.analysis.schedules import schedules_of
from esper.storage import files

InTwo: TypeAlias = Callable[[Mapping[str, Any]], tuple[Mapping[str, str], Mapping[str, str]]]


def write_report(run_dir: Path, folder: Path | None, in_two: InTwo) -> list[Path]:
    """Write `report.html` and its plots, as PNG files, into `folder`, by default `report` in the run's folder.

    `in_two` parts its settings, as in config.json: those that differ from their defaults, and the others, as text.

    Returns the files, the page first.

    Raises:
        ReportError: as `read_record`.
        OSError: when it cannot be written.
    """
    record = read_record(run_dir, is_drawn)
    pictures = plot_report(record.updates, record.anomalies) | pictures_of(record.episodes)
    written = {
        "report.html": _page(run_dir.absolute().name, record, pictures, in_two).encode(errors="backslashreplace"),
        **dict(pictures.values()),
    }
    if folder is None:
        root, folder = run_dir, run_dir / "report"
        files.make_folder(folder)
    else:
        root = folder
        files.make_named_folder(folder)
    for name, data in written.items():
        files.write(folder / name, data, root=root)
    return [folder / name for name in written]


def _page(name: str, record: Record, pictures: Mapping[str, tuple[str, bytes]], in_two: InTwo) -> str:
    sections = [answer(_result(record)), text(f"{name}: {_how_it_went(record)}")]
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
    drawn = charts_of(record.updates, record.anomalies, record.evaluations) if pictures and charts.available() else {}
    if drawn:
        sections += [text("drag to zoom, double-click to zoom out, click a name to switch a curve off")]
    for title, (_, png) in pictures.items():
        sections += [heading(title), charts.figures(drawn[title]) if title in drawn else picture(title, png)]
    sections += [*schedules_of(record), *_tables(record, in_two)]
    return page(
        f"{record.started['config']['env']}, seed {record.started['seed']}", sections, charts.scripts() if drawn else ()
    )


def _tables(record: Record, in_two: InTwo) -> list[str]:
    changed, others = in_two(record.settings())
    sections = [heading("Settings"), table(changed.items())]
    sections += [folded(f"{len(others)} more have their defaults", table(others.items()))] if others else []
    resumed = {f"update {event['update']}": event["checkpoint"] for event in record.resumed}
    for title, rows in {"Resumed": resumed, "Versions": record.started["versions"]}.items():
        if rows:
            sections += [heading(title), table(rows.items())]
    return sections


def _result(record: Record) -> str:
    """What came out of it, in one line."""
    found = []
    if {"episode_return_mean", "episodes"} <= record.updates.keys():
        final = MEASURES["final_return"].of(record.updates)
        if math.isfinite(final):
            found.append(f"return {final:.4g} over the last {FINAL_SHARE:.0%} of updates".replace("%", " %"))
    known = [event for event in record.evaluations if "eval_return_mean" in event]
    if known:
        best = max(known, key=_eval_return)
        found.append(f"{_eval_return(known[-1]):.4g} in the latest evaluation")
        found.append(f"{_eval_return(best):.4g} in the best, after update {best['update']}")
    return (", ".join(found) or "no episode ended").capitalize()


def _eval_return(event: Mapping[str, Any]) -> float:
    return float(event.get("eval_return_mean", -math.inf))


def _evaluations(events: Sequence[Mapping[str, Any]]) -> str:
    """The best and the latest evaluation, as a table; rows without a value are left out."""
    best = max(events, key=_eval_return)
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
        (which, *(f"{event.get(name, math.nan):.6g}" for name in known.values()))
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
