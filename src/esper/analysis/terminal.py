"""Curves drawn with characters. The only module that imports plotext."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import plotext

_INTERVALS = 4  # between the numbers below the plot
# A curve is told by its marks where there is no colour, too.
_MARKS = (("braille", "⠒"), ("x", "x"), ("o", "o"))


def draw_curves(
    curves: Mapping[str, Sequence[float]], updates: Sequence[int], *, width: int, height: int = 16, colour: bool = True
) -> str:
    """A text plot of `curves`, by name, over `updates`; below it which mark is whose.

    Curves that are the same are drawn once. The first are above the others.
    """
    ticks = sorted({updates[(len(updates) - 1) * part // _INTERVALS] for part in range(_INTERVALS + 1)})
    x: list[float] = list(updates)
    if len(x) == 1:
        # As wide as the update, as one point is hardly seen.
        x, curves = [x[0] - 0.5, x[0] + 0.5], {name: [*values, *values] for name, values in curves.items()}
    names: dict[tuple[float, ...], list[str]] = {}
    for name, values in curves.items():
        names.setdefault(tuple(values), []).append(name)
    plotext.clear_figure()
    plotext.plotsize(width, height)
    plotext.xlabel("update")
    highest = max(map(max, names))
    # plotext writes all digits of a number on its axis.
    unit = 1.0 if not highest or 1e-8 <= highest < 1e6 else 10.0 ** math.floor(math.log10(highest))
    if unit != 1:
        plotext.ylabel(f"times {unit:g}")
    marked = list(zip(names, _MARKS, strict=False))
    for values, (marker, _) in reversed(marked):
        # Of many points as many as a line has dots.
        step = max(1, len(values) // (4 * width)) if marker == "braille" else max(1, len(values) // (width // 3))
        plot = plotext.plot if marker == "braille" else plotext.scatter
        plot(x[::step], [value / unit for value in values[::step]], marker=marker)
    plotext.xticks(ticks, list(map(str, ticks)))
    plotext.ylim(0, highest / unit or 1.0)
    text = str(plotext.build())
    key = "   ".join(f"{mark} {', '.join(names[values])}" for values, (_, mark) in marked)
    return f"{text if colour else plotext.uncolorize(text)}\n{key}"
