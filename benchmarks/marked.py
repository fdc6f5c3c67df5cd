"""Pages whose tables are made: each stands between `<!-- NAME -->` and `<!-- end -->`, in text written by hand."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path


def fill(page: Path, tables: Mapping[str, str]) -> None:
    """Put each of `tables` in its place; ends the program where there is none."""
    text = page.read_text()
    for name, content in tables.items():
        marked = re.compile(f"(<!-- {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not marked.search(text):
            raise SystemExit(f"{page} has no place for <!-- {name} -->")
        text = marked.sub(lambda match, content=content: f"{match[1]}{content}\n{match[2]}", text)  # type: ignore[misc]
    page.write_text(text)


def grid(header: str, rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; `header` has its columns between bars."""
    lines = [f"| {header} |", "|---" * (header.count("|") + 1) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
