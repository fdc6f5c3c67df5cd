"""A comparison as rows of text, for the terminal and for pages."""

from __future__ import annotations

import math
from collections.abc import Mapping

from esper.analysis.comparison import Difference, Summary
from esper.analysis.statistics import Interval

# From here on numbers have exponents: all their digits would make columns wider than a terminal.
_WIDE = 1e12

HEADINGS = (
    *("arm", "runs", "mean [95 %]", "IQM"),
    *("less the first [95 %]", "relative [95 %]", "pairs", "P(better)", "effect"),
)
# How many of them are of the arm alone; the others are of its difference from the first.
OF_ARM = 4


def rows(summaries: Mapping[str, Summary]) -> list[tuple[str, ...]]:
    """A row for each arm, from the summaries of a measure; `runs` counts those that have a value."""
    return [
        (
            arm,
            f"{len(each.values)} of {len(each.values) + each.without}" if each.without else f"{len(each.values)}",
            with_interval(each.mean, each.interval),
            _number(each.iqm),
            *_difference(each.difference),
        )
        for arm, each in summaries.items()
    ]


def _difference(difference: Difference | None) -> tuple[str, ...]:
    if difference is None:
        return ("",) * (len(HEADINGS) - OF_ARM)
    return (
        with_interval(difference.mean, difference.interval),
        _relative(difference),
        f"{difference.pairs or 'none'}",
        f"{difference.probability_of_improvement:.2f}",
        "-" if math.isnan(difference.effect_size) else f"{difference.effect_size:+.2f}",
    )


def _relative(difference: Difference) -> str:
    """The ratio less 1, in percent: at least -100."""
    if math.isnan(difference.ratio):
        return "-"
    mean, low, high = (f"{100 * (ratio - 1):+,.0f}" for ratio in (difference.ratio, *difference.ratio_interval))
    return f"{mean} %" if math.isnan(difference.ratio_interval.low) else f"{mean} % [{low}, {high}]"


def with_interval(value: float, interval: Interval) -> str:
    """The value and, if it has one, its interval."""
    if math.isnan(interval.low):
        return _number(value)
    return f"{_number(value)} [{_number(interval.low, 3)}, {_number(interval.high, 3)}]"


def _number(value: float, digits: int = 4) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if 10 ** (digits - 1) <= abs(value) < _WIDE else f"{value:.{digits}g}"
