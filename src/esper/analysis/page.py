"""Self-contained HTML pages: images are embedded, and there is no script."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from typing import Any

# Colours keep their hue in dark mode, so that texts that name colours stay right.
_STYLE = """
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #222 }
h1 { font-size: 1.5rem; margin-bottom: .5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
img { display: block; width: 100% } div { overflow-x: auto }
table { border-collapse: collapse } td, th { padding: .15rem 1rem .15rem 0; text-align: left; vertical-align: top }
td + td { font-family: ui-monospace, monospace; font-size: 13px } tr.group td { padding-top: .8rem }
.bad { color: #a40000 }
@media (prefers-color-scheme: dark) {
  body { background: #161616; color: #ddd } img { filter: invert(.92) hue-rotate(180deg) } .bad { color: #ff7b72 }
}
"""


def page(title: str, sections: Iterable[str]) -> str:
    """A page of `sections`, which are HTML, under `title`, which is text."""
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}</style>'
    body = f"<h1>{html.escape(title)}</h1>{''.join(sections)}"
    return f"<!doctype html><html lang=en><head>{head}</head><body>{body}</body></html>\n"


def text(*lines: str) -> str:
    """A paragraph."""
    return f"<p>{'<br>'.join(map(html.escape, lines))}</p>"


def heading(words: str, *, bad: bool = False) -> str:
    """The heading of a section."""
    return f"<h2{' class=bad' * bad}>{html.escape(words)}</h2>"


def picture(alt: str, png: bytes) -> str:
    """An embedded image."""
    return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def table(rows: Iterable[Sequence[Any]], headings: Sequence[str] = ()) -> str:
    """Cells are text. A row of one cell begins a group."""
    lines = [_row("th", headings)] if headings else []
    lines += [_row("td", row) if len(row) > 1 else _group(row[0], len(headings)) for row in rows]
    return f"<div><table>{''.join(lines)}</table></div>"


def _row(tag: str, cells: Sequence[Any]) -> str:
    return f"<tr>{''.join(f'<{tag}>{html.escape(str(cell))}</{tag}>' for cell in cells)}</tr>"


def _group(cell: Any, columns: int) -> str:
    return f'<tr class="group"><td colspan="{columns}"><b>{html.escape(str(cell))}</b></td></tr>'
