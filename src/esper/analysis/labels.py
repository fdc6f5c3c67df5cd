"""Names from files as text in plots."""

from __future__ import annotations

from esper.storage import files


def plain(name: str) -> str:
    """`name`, escaped: matplotlib would parse text between two dollars as a formula, and fail if it is not one."""
    return files.printable(name).replace("$", r"\$")
