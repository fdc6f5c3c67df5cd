"""Rows of levels in which every few factors meet with each of their levels."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

Row: TypeAlias = Mapping[str, str]
# Whether a row, or a part of one, can be.
Rule: TypeAlias = Callable[[Row], bool]
Cell: TypeAlias = frozenset[tuple[str, str]]
# Rows to choose from, and tries to find them: a search that goes back from dead ends may take for ever.
CANDIDATES, TRIES = 10, 200


def cover(factors: Mapping[str, Sequence[str]], allowed: Rule, strength: int = 2, seed: int = 0) -> list[Row]:
    """Rows in which every combination of the levels of `strength` factors is, if any allowed row has it.

    Greedy: of some random rows with a combination that is missing, the one with the most that are. The first rows have
    the most combinations.
    """
    rng = random.Random(seed)
    missing = {
        frozenset(zip(names, levels, strict=True))
        for names in itertools.combinations(factors, strength)
        for levels in itertools.product(*(factors[name] for name in names))
    }
    rows: list[Row] = []
    for cell in sorted(missing, key=sorted):
        if cell not in missing:
            continue
        if not allowed(dict(cell)):
            missing.discard(cell)
            continue
        tries = (_complete(dict(cell), factors, allowed, rng) for _ in range(TRIES))
        candidates = list(itertools.islice((row for row in tries if row is not None), CANDIDATES))
        if not candidates:
            missing.discard(cell)  # no allowed row has it
            continue
        best = max(candidates, key=lambda row: len(missing & cells(row, strength)))
        missing -= cells(best, strength)
        rows.append(best)
    return rows


def levels_first(rows: Sequence[Row]) -> list[Row]:
    """`rows`, those first that together have every level of every factor."""
    first: list[Row] = []
    missing = set().union(*(row.items() for row in rows))
    while missing:
        first.append(max(rows, key=lambda row: len(missing & row.items())))
        missing -= first[-1].items()
    return [*first, *(row for row in rows if row not in first)]


def cells(row: Row, strength: int) -> set[Cell]:
    """The combinations of levels of `strength` factors in `row`."""
    return set(map(frozenset, itertools.combinations(row.items(), strength)))


def _complete(
    row: dict[str, str], factors: Mapping[str, Sequence[str]], allowed: Rule, rng: random.Random
) -> Row | None:
    """An allowed row with the levels of `row`, and random ones of the other factors; None at a dead end."""
    if not allowed(row):
        return None
    for name in _shuffled((name for name in factors if name not in row), rng):
        level = next((level for level in _shuffled(factors[name], rng) if allowed(row | {name: level})), None)
        if level is None:
            return None
        row = row | {name: level}
    return {name: row[name] for name in factors}


def _shuffled(levels: Iterable[str], rng: random.Random) -> list[str]:
    levels = list(levels)
    rng.shuffle(levels)
    return levels
