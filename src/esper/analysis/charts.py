"""Curves that a page draws itself, with values under the pointer. Only this module imports plotly."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Literal, TypeAlias

from numpy.typing import NDArray

from esper.analysis.page import asset
from esper.analysis.panels import FEW
from esper.storage import files

Dash: TypeAlias = Literal["solid", "dash", "dot", "dashdot"]
# As Plotly takes them.
Trace: TypeAlias = dict[str, Any]
_DASHES: Mapping[Dash, str] = {"solid": "none", "dash": "6 3", "dot": "2 2", "dashdot": "6 2 2 2"}
# What a page does not take from the layouts of other libraries.
_OF_PAGE = ("template", "title", "plot_bgcolor", "paper_bgcolor")


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One figure; `log` is whether its axis is logarithmic at first, and None where it cannot be."""

    title: str
    traces: Sequence[Trace]
    log: bool | None = False
    layout: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Whole:
    """A figure of another library that draws with Plotly, as its JSON; `width` is the least, in pixels."""

    title: str
    figure: str
    width: int | None = None


def available() -> bool:
    """Whether there is a library that draws them."""
    return find_spec("plotly") is not None


def library() -> str:
    """The library, in JavaScript."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def scripts() -> tuple[str, ...]:
    """What a page with `figures` needs."""
    return library(), asset("charts.js")


def figures(panels: Iterable[Panel | Whole]) -> str:
    """Figures side by side, as HTML."""
    each = [{"title": files.printable(p.title), **(_whole(p) if isinstance(p, Whole) else _panel(p))} for p in panels]
    # No text in it can end the element.
    data = json.dumps(each, allow_nan=False).replace("<", "\\u003c")
    return f'<div class="plots"><script type="application/json">{data}</script></div>'


def _panel(panel: Panel) -> dict[str, Any]:
    return {"log": panel.log, "traces": panel.traces, "layout": panel.layout}


def _whole(panel: Whole) -> dict[str, Any]:
    """Its background, its texts' colour and its title are those of the page."""
    found = json.loads(panel.figure)
    layout = {name: value for name, value in found["layout"].items() if name not in _OF_PAGE}
    for note in layout.get("annotations", ()):
        note.get("font", {}).pop("color", None)
    return {"log": None, "whole": True, "width": panel.width, "traces": found["data"], "layout": layout}


def switches(groups: Iterable[tuple[str, str, Dash]]) -> str:
    """A box for each group of lines, by name, colour and dash, that switches it on and off in all figures."""
    found = []
    for name, colour, dash in groups:
        line = f'<line x2="24" y1="4" y2="4" stroke="{colour}" stroke-width="2.5" stroke-dasharray="{_DASHES[dash]}"/>'
        box = f'<input type="checkbox" value="{html.escape(name)}" checked>'
        found.append(f'<label>{box} <svg viewBox="0 0 24 8">{line}</svg> {html.escape(name)}</label>')
    return f'<p class="switches">{"".join(found)}</p>'


def line(
    x: NDArray[Any],
    y: NDArray[Any],
    *,
    name: str,
    colour: str,
    dash: Dash = "solid",
    group: str | None = None,
    texts: Sequence[str] | None = None,
    steps: bool = False,
) -> Trace:
    """`y` over `x`; `texts` are said beside the values. A line of a `group` is switched with it."""
    trace: Trace = {"x": numbers(x), "y": numbers(y), "name": words(name), "connectgaps": True}
    trace |= {"line": {"color": colour, "dash": dash, "width": 1.5} | ({"shape": "hv"} if steps else {})}
    trace |= {"mode": "lines" if len(x) >= FEW else "lines+markers", "hovertemplate": "%{y:.4g}"}
    if texts is not None:
        trace |= {"text": [words(each) for each in texts], "hovertemplate": "%{y:.4g} %{text}"}
    return trace | ({} if group is None else {"legendgroup": group, "showlegend": False})


def band(
    x: NDArray[Any], low: NDArray[Any], high: NDArray[Any], *, colour: str, opacity: float, group: str | None = None
) -> list[Trace]:
    """The area between `low` and `high`, as two lines, without values under the pointer."""
    shared: Trace = {"x": numbers(x), "mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    shared |= {"connectgaps": True} | ({} if group is None else {"legendgroup": group})
    red, green, blue = (int(colour[begin : begin + 2], 16) for begin in (1, 3, 5))
    fill = {"fill": "tonexty", "fillcolor": f"rgba({red},{green},{blue},{opacity})"}
    return [shared | {"y": numbers(low)}, shared | {"y": numbers(high)} | fill]


def words(text: str) -> str:
    """`text` for Plotly, which reads markup."""
    return html.escape(files.printable(text), quote=False)


def numbers(values: NDArray[Any]) -> list[float | None]:
    """For JSON, as `rounded`."""
    return [rounded(value) for value in values.tolist()]


def rounded(value: float | None) -> float | None:
    """For JSON: 7 digits, whole numbers in full, None for what is not finite."""
    if value is None or not math.isfinite(value):
        return None
    return value if value == int(value) else float(f"{value:.7g}")
