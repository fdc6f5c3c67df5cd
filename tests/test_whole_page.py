"""The scores of `benchmarks/whole_page.py`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from whole_page import interquartile


def test_tasks_weigh_the_same_however_many_seeds_they_have() -> None:
    tasks = [[0.0, 1.0], [2.0, 4.0], [5.0, 7.0], [8.0, 9.0]]
    # Of eight, the two lowest and the two highest go.
    expected = (2 + 4 + 5 + 7) / 4
    assert interquartile([np.array(task) for task in tasks])[0] == expected
    tasks[2] *= 5
    mean, (low, high) = interquartile([np.array(task) for task in tasks])
    assert mean == pytest.approx(expected)
    assert low < mean < high
    # No value is cut in two: 9, a sixth of the weight, goes, and 0, half of it, stays.
    assert interquartile([np.array([0.0]), np.array([3.0, 6.0, 9.0])])[0] == pytest.approx((3 * 0 + 3 + 6) / 5)
