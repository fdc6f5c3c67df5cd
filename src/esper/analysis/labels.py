"""Names from files as texts in pictures."""

from __future__ import annotations

from esper.storage import files


def plain(name: str) -> str:
    """`name` as it is: matplotlib would read a formula between two dollars, and fail on one that is none."""
    return files.printable(name).replace("$", r"\$")
