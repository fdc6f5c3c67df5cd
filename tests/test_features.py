"""docs/features.md: its tables are whole, and what others have and Esper has not says why."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parent.parent / "docs" / "features.md").read_text()
TABLES = [
    [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in table.splitlines()]
    for table in re.findall(r"(?:^\|.*\n)+", PAGE, re.MULTILINE)
]
VERSIONS, FEATURES = TABLES[0], TABLES[1:]
NOTES = set(re.findall(r"^(\d+)\. ", PAGE, re.MULTILINE))


def test_every_system_has_a_version_and_a_column() -> None:
    systems = [row[0] for row in VERSIONS[2:]]
    assert len(FEATURES) == 4
    for head, *rows in FEATURES:
        assert head == ["", "Esper", *systems]
        assert all(len(row) == len(head) and all(row) for row in rows)


@pytest.mark.parametrize("row", [row for _, _, *rows in FEATURES for row in rows], ids=lambda row: row[0])
def test_what_two_others_have_is_here_or_says_why_not(row: list[str]) -> None:
    _, ours, *others = row
    if ours != "yes" and sum(cell != "no" for cell in others) >= 2:
        assert (note := re.search(r"\((\d)\)$", ours)), ours
        assert note[1] in NOTES


def test_every_note_is_used() -> None:
    assert set(re.findall(r"\((\d)\) \|", PAGE)) == NOTES
