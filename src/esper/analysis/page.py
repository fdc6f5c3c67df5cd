"""Self-contained HTML pages: style, images and scripts are embedded."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any

# What a browser may load for a page with scripts: what is in it.
POLICY = (
    "default-src 'none'; {}; style-src 'self' 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
)
# Scripts are compressed: the one that draws curves would be 5 MB.
_UNPACK = """
(async () => {
  for (const packed of document.querySelectorAll('script[type="application/gzip"]')) {
    const bytes = Uint8Array.from(atob(packed.textContent), (letter) => letter.charCodeAt(0));
    const script = document.createElement("script");
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    script.textContent = await new Response(stream).text();
    document.body.append(script);
  }
})();
"""


def page(title: str, sections: Iterable[str], scripts: Sequence[str] = ()) -> str:
    """A page of `sections`, which are HTML, under `title`, which is text; `scripts` run at its end, in order."""
    policy, code = embedded(scripts) if scripts else ("", "")
    head = f'<meta charset="utf-8">{policy}<meta name="viewport" content="width=device-width">'
    head += f"<title>{html.escape(title)}</title><style>{asset('page.css')}</style>"
    body = f"<h1>{html.escape(title)}</h1>{''.join(sections)}{code}"
    return f"<!doctype html><html lang=en><head>{head}</head><body>{body}</body></html>\n"


def embedded(scripts: Sequence[str]) -> tuple[str, str]:
    """A line for the head of a page, which says that no other script may run, and `scripts` for its end."""
    hashes = (base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in (_UNPACK, *scripts))
    sources = " ".join(f"'sha256-{each}'" for each in hashes)
    allowed = POLICY.format(f"script-src {sources}")
    packed = (base64.b64encode(gzip.compress(each.encode(), mtime=0)).decode() for each in scripts)
    code = "".join(f'<script type="application/gzip">{each}</script>' for each in packed)
    code += f"<noscript><p>The curves need JavaScript.</p></noscript><script>{_UNPACK}</script>"
    return f'<meta http-equiv="Content-Security-Policy" content="{allowed}">', code


def asset(name: str) -> str:
    """A file that all pages share."""
    return (resources.files("esper.analysis") / name).read_text("utf-8")


def text(*lines: str) -> str:
    """A paragraph."""
    return f"<p>{'<br>'.join(map(html.escape, lines))}</p>"


def answer(line: str) -> str:
    """What a page says in one line."""
    return f'<p class="answer">{html.escape(line)}</p>'


def heading(words: str, *, bad: bool = False) -> str:
    """The heading of a section."""
    return f"<h2{' class=bad' * bad}>{html.escape(words)}</h2>"


def picture(alt: str, png: bytes) -> str:
    """An embedded image."""
    data = base64.b64encode(png).decode()
    return f'<div class="wide"><img alt="{html.escape(alt)}" src="data:image/png;base64,{data}"></div>'


def folded(summary: str, content: str) -> str:
    """`content`, which is HTML, below a line that unfolds it."""
    return f"<details><summary>{html.escape(summary)}</summary>{content}</details>"


def schedule(name: str, says: str, points: Sequence[tuple[float, float]]) -> str:
    """A small picture of a schedule: `points` of the window's width and height, which are 1; the height is upward."""
    line = " ".join(f"{200 * x:.4g},{47 - 44 * y:.4g}" for x, y in points)
    drawn = f'<svg class="line" viewBox="0 0 200 50" preserveAspectRatio="none"><polyline points="{line}"/></svg>'
    return f"<figure>{drawn}<figcaption>{html.escape(name)} <span>{html.escape(says)}</span></figcaption></figure>"


def table(rows: Iterable[Sequence[Any]], headings: Sequence[str] = ()) -> str:
    """Cells are text. A row of one cell begins a group."""
    lines = [_row("th", headings)] if headings else []
    lines += [_row("td", row) if len(row) > 1 else _group(row[0], len(headings)) for row in rows]
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def _row(tag: str, cells: Sequence[Any]) -> str:
    return f"<tr>{''.join(f'<{tag}>{html.escape(str(cell))}</{tag}>' for cell in cells)}</tr>"


def _group(cell: Any, columns: int) -> str:
    return f'<tr class="group"><td colspan="{columns}"><b>{html.escape(str(cell))}</b></td></tr>'
