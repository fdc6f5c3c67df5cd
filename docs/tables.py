"""Fills what pages have from the sources, and events.schema.json: python docs/tables.py.

Such a part of a page stands between `<!-- docs/tables.py: NAME ARGUMENTS -->` and `<!-- end -->`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import typing
from collections.abc import Callable, Iterable
from pathlib import Path

from esper.analysis.measures import MEASURES, MEASURES_AFTER, MEASURES_GROWTH
from esper.runs.config import RunConfig
from esper.schedules import SHAPES
from esper.schedules.shape import NEEDED
from esper.scripts.train import make_parsers
from esper.settings.layers import common_names
from esper.settings.options import ConfigError, Setting, settings_of
from esper.settings.values import format_value, parse
from esper.telemetry.anomalies import KINDS
from esper.telemetry.causes import CAUSES
from esper.telemetry.events import Event, UpdateCompleted
from esper.telemetry.metrics import RATIO_QUANTILES, metrics_of
from esper.telemetry.records import event_name
from esper.telemetry.schema import json_schema

DOCS = Path(__file__).parent
PART = re.compile(r"(<!-- docs/tables\.py: ([\w ]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def main() -> None:
    for path, text in made().items():
        path.write_text(text, encoding="utf-8")


def made() -> dict[Path, str]:
    """All files that are made, in whole or in part, with what they have to be."""
    pages = {page: filled(page.read_text(encoding="utf-8")) for page in sorted(DOCS.glob("*.md"))}
    return {**pages, DOCS / "events.schema.json": json.dumps(json_schema(), indent=1) + "\n"}


def filled(page: str) -> str:
    """`page` with its parts made anew."""

    def fill(part: re.Match[str]) -> str:
        name, *arguments = part[2].split()
        return f"{part[1]}{PARTS[name](part[3], *arguments)}\n{part[4]}"

    return PART.sub(fill, page)


def events(_: str) -> str:
    declared = [(f"`{event_name(event)}`", " ".join((event.__doc__ or "").split())) for event in typing.get_args(Event)]
    return table(("event", "content"), declared)


def metrics(_: str) -> str:
    declared = [
        (f"`{metric.name}`", metric.meaning, metric.unit, metric.summary or "", "yes" if metric.in_snapshots else "")
        for metric in metrics_of(UpdateCompleted)
    ]
    return table(("metric", "what it is", "unit", "over minibatches", "in snapshots"), declared)


def quantiles(_: str) -> str:
    names = ", ".join(f"`{name}` ({share:.0%})" for name, share in RATIO_QUANTILES.items())
    return f"Of each minibatch `debug_snapshot` also has quantiles of the importance ratio: {names}."


def anomalies(_: str) -> str:
    return table(("kind", "when"), [(f"`{kind}`", when) for kind, when in KINDS.items()])


def causes(_: str) -> str:
    rows = [(f"`{c.name}`", c.when, " or ".join(each.words for each in c.tries) or "nothing") for c in CAUSES]
    return table(("cause", "in the last quarter", "try"), rows)


def measures(_: str) -> str:
    every = MEASURES | MEASURES_AFTER | MEASURES_GROWTH
    rows = [(f"`{name}`", each.description, each.better) for name, each in every.items()]
    return table(("measure", "definition", "better"), rows)


def decays(_: str) -> str:
    rows = []
    for name, shape in SHAPES.items():
        kinds = typing.get_type_hints(shape)
        own = [field for field in dataclasses.fields(shape) if field.name in shape.__annotations__]
        parameters = "; ".join(parameter(field, kinds[field.name]) for field in own)
        rows.append((f"`{name}`", shape.__doc__ or "", parameters, f"![](images/decay-{name}.png)"))
    return table(("name", "rate", "its own flags (`--lr-` ...)", ""), rows)


def parameter(field: dataclasses.Field[object], kind: object) -> str:
    choices = f", {' or '.join(typing.get_args(kind))}" if typing.get_origin(kind) is typing.Literal else ""
    default = "" if field.default in (NEEDED, None) else f" ({format_value(field.default)})"
    return f"`{field.name.replace('_', '-')}`: {field.metadata['help']}{choices}{default}"


def flags(_: str, *names: str) -> str:
    """Flags of `esper ppo`, as its help has them."""
    _, commands = make_parsers(help_all=True)
    known = {action.dest: action for action in commands["ppo"]._actions}
    return table(("flag", ""), [(spelled(known[name]), text_of(known[name].help or "")) for name in names])


def spelled(action: argparse.Action) -> str:
    takes = "NAME" if "|" in str(action.metavar) else action.metavar
    return f"`{action.option_strings[0]} {takes}`" if takes else f"`{action.option_strings[0]}`"


def text_of(help_text: str) -> str:
    return help_text.replace("%%", "%").replace("<", "&lt;")


def defaults(part: str) -> str:
    """A table of others' settings in its first column and flags in its second: these get their defaults."""
    known = dict(settings_of(RunConfig))
    known |= {name: known[first] for name, (first, *_) in common_names(known).items()}

    def stated(match: re.Match[str]) -> str:
        setting = known[match[1].replace("-", "_")]
        return f"`--{match[1]}` ({match[2] if means(match[2], setting) else format_value(setting.default)})"

    def row(line: str) -> str:
        theirs, begin, rest = line.partition(" | ")
        ours, end, difference = rest.partition(" | ")
        return theirs + begin + re.sub(r"`--([a-z-]+)` \(([^)]+)\)", stated, ours) + end + difference

    return "\n".join(map(row, part.splitlines()))


def means(text: str, setting: Setting) -> bool:
    """Whether `text` is the default of `setting`, in whatever spelling."""
    try:
        return bool(parse(setting.name, text, setting.type) == setting.default)
    except ConfigError:
        return False


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    titles = tuple(head)
    return "\n".join(
        (f"| {' | '.join(titles)} |", "|---" * len(titles) + "|", *(f"| {' | '.join(row)} |" for row in rows))
    )


PARTS: dict[str, Callable[..., str]] = {
    part.__name__: part for part in (events, metrics, quantiles, anomalies, causes, measures, decays, flags, defaults)
}

if __name__ == "__main__":
    main()
