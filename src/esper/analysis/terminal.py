"""Curves drawn with characters. The only module that imports plotext."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotext


def draw_curves(curves: Mapping[str, Sequence[float]], *, width: int, height: int = 16, colour: bool = True) -> str:
    """A text plot of `curves`, by name, over their index."""
    plotext.clear_figure()
    plotext.plotsize(width, height)
    plotext.xlabel("update")
    for name, values in curves.items():
        plotext.plot(list(range(len(values))), list(values), label=name, marker="braille")
    plotext.ylim(0, max(max(values) for values in curves.values()) or 1.0)
    text = str(plotext.build())
    return text if colour else str(plotext.uncolorize(text))
