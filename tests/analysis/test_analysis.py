"""Runs as arrays, and summaries."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from esper.analysis.plots import plot_training
from esper.analysis.runs import load_updates
from esper.analysis.statistics import interquartile_mean
from esper.analysis.terminal import draw_curves
from esper.analysis.thinning import POINTS, thinned


def write(folder: Path, *events: dict[str, object]) -> Path:
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return folder


def test_columns_have_nan_where_a_number_was_not_computed(tmp_path: Path) -> None:
    run = write(
        tmp_path,
        {"event": "run_started"},
        {"event": "update_completed", "update": 0},
        {"event": "update_skipped", "update": 1},
        {"event": "update_completed", "update": 1, "episode_return_mean": 5.0},
    )
    updates = load_updates(run)
    assert updates["update"].tolist() == [0, 1]
    np.testing.assert_array_equal(updates["episode_return_mean"], [np.nan, 5.0])


def test_a_run_without_a_finished_update_can_be_drawn(tmp_path: Path) -> None:
    plot_training(load_updates(write(tmp_path, {"event": "run_started"})), tmp_path / "a.png", title="empty")
    assert (tmp_path / "a.png").stat().st_size > 0


def test_interquartile_mean_is_that_of_the_middle_half() -> None:
    # Of eight, the two lowest and the two highest go: (3 + 4 + 5 + 6) / 4.
    assert interquartile_mean([1, 2, 3, 4, 5, 6, 70, -800]) == pytest.approx((2 + 3 + 4 + 5) / 4)


def test_one_update_is_drawn_as_a_line_over_its_number() -> None:
    *plot, axis, _, _, key = draw_curves({"policy": [1e-3], "value": [1e-3]}, [7], width=60, colour=False).splitlines()
    assert (axis.split(), key) == (["7"], "⠒ policy, value")
    assert len(set(plot[1].partition("┤")[2].rstrip("│"))) == 1


def test_few_updates_have_whole_numbers_below_them() -> None:
    text = draw_curves({"policy": [3.0, 2.0, 1.0]}, range(3), width=60, colour=False)
    assert text.splitlines()[-4].split() == ["0", "1", "2"]


@pytest.mark.parametrize(("rate", "unit"), [(2e-40, "1e-40"), (3e38, "1e+38")])
def test_rates_that_are_no_usual_numbers_leave_room_for_the_curve(rate: float, unit: str) -> None:
    text = draw_curves({"policy": [rate, rate / 2]}, [0, 1], width=60, colour=False)
    assert f"times {unit}" in text
    assert max(len(line.split("┤")[0]) for line in text.splitlines() if "┤" in line) < 10


class TestThinning:
    def test_few_points_stay_as_they_are(self) -> None:
        values = np.array([3.0, np.nan, 1.0])
        for by in ("mean", "min", "max"):
            np.testing.assert_array_equal(thinned(values, by), values)

    def test_many_become_stretches(self) -> None:
        # Four values a stretch: 0, 1, 2, 3, then 4, 5, 6, 7.
        values = np.arange(4.0 * POINTS)
        assert thinned(values)[:2].tolist() == [1.5, 5.5]
        assert thinned(values, "min")[:2].tolist() == [0.0, 4.0]
        assert thinned(values, "max")[-1] == 4 * POINTS - 1
        assert len(thinned(values)) == POINTS

    def test_nan_counts_for_nothing(self) -> None:
        values = np.full((2, 2 * POINTS), np.nan)
        values[0, :2], values[1, 0] = (1.0, 3.0), 5.0
        assert thinned(values)[:, 0].tolist() == [2.0, 5.0]
        assert thinned(values, "max")[:, 0].tolist() == [3.0, 5.0]
        assert np.isnan(thinned(values)[:, 1:]).all()
