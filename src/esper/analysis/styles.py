"""How arms look in pictures."""

from __future__ import annotations

# Colours for the colour-blind, too (Okabe and Ito 2008).
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_LINES = ("-", "--", ":", "-.")


def style_of(index: int) -> tuple[str, str]:
    """Colour and line of an arm: all colours with one line, then with the next."""
    return _COLOURS[index % len(_COLOURS)], _LINES[index // len(_COLOURS) % len(_LINES)]
