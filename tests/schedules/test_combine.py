"""Schedules made of others: exact values, other libraries, laws that hold for any of them, and what is refused."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LambdaLR, LinearLR, SequentialLR

from esper.schedules import ScheduleConfig, as_progress_callable, clamp, join, make_schedule, scale
from esper.settings.options import ConfigError

LINE = make_schedule(ScheduleConfig(peak=8.0, decay="linear"), 4)


def values(schedule: Callable[[int], float], updates: int) -> list[float]:
    return [schedule(update) for update in range(updates)]


class TestExactValues:
    def test_join_counts_each_schedule_from_where_it_begins(self) -> None:
        joined = join([LINE, 1.0, lambda update: 10.0 + update], [2, 5])
        assert values(joined, 8) == [8.0, 6.0, 1.0, 1.0, 1.0, 10.0, 11.0, 12.0]

    def test_of_one_schedule(self) -> None:
        assert values(join([LINE], []), 6) == [8.0, 6.0, 4.0, 2.0, 0.0, 0.0]

    def test_scale(self) -> None:
        assert values(scale(LINE, 0.5), 5) == [4.0, 3.0, 2.0, 1.0, 0.0]
        assert values(scale(3.0, 0.0), 2) == [0.0, 0.0]

    def test_clamp(self) -> None:
        assert values(clamp(LINE, 3.0, 7.0), 5) == [7.0, 6.0, 4.0, 3.0, 3.0]
        assert values(clamp(LINE, minimum=3.0), 5) == [8.0, 6.0, 4.0, 3.0, 3.0]
        assert values(clamp(LINE, maximum=5.0), 5) == [5.0, 5.0, 4.0, 2.0, 0.0]
        assert values(clamp(LINE, 5.0, 5.0), 2) == [5.0, 5.0]

    def test_of_each_other(self) -> None:
        schedule = clamp(join([scale(LINE, 2.0), LINE], [2]), 3.0, 14.0)
        assert values(schedule, 6) == [14.0, 12.0, 8.0, 6.0, 4.0, 3.0]

    def test_as_a_schedule_of_a_run(self) -> None:
        schedule = make_schedule(join([LINE, 1.0], [2]), 4)
        assert schedule.table() == [(0, 8.0, "custom"), (1, 6.0, "custom"), (2, 1.0, "custom"), (3, 1.0, "custom")]
        assert make_schedule(0.25, 2).table() == [(0, 0.25, "constant"), (1, 0.25, "constant")]

    def test_does_not_hide_what_is_not_a_number(self) -> None:
        for schedule in (clamp(lambda update: math.nan, 1.0, 2.0), scale(lambda update: math.nan, 2.0)):
            with pytest.raises(ConfigError, match="gives nan for update 0"):
                make_schedule(schedule, 3)


class TestOtherLibraries:
    # SequentialLR itself passes the deprecated epoch argument when it hands over.
    pytestmark = pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")

    def test_join_equals_optax(self) -> None:
        """Of optax 0.2.8, in float64, of its schedules linear (0 to 1 in 4), cosine_decay (1, 6 updates, alpha 0.1) and
        constant (0.05), joined at [4, 10].
        """
        expected = [
            *(0.0, 0.25, 0.5, 0.75),
            *(1.0, 0.9397114317029974, 0.775, 0.55, 0.3250000000000001, 0.16028856829700258),
            *(0.05, 0.05, 0.05),
        ]
        rise = make_schedule(ScheduleConfig(decay="piecewise", points=((0, 1.0), (4, 0.0))), 13)
        cosine = make_schedule(ScheduleConfig(peak=1.0, decay="cosine", decay_steps=6, min_ratio=0.1), 13)
        joined = join([lambda update: 1.0 - rise(update), cosine, 0.05], [4, 10])
        assert values(joined, 13) == pytest.approx(expected, rel=1e-12)

    def test_of_cycles_equals_optax(self) -> None:
        """Of optax 0.2.8: sgdr_schedule of two cycles of 6 updates, each with a warmup of 2 from 0.2.

        Their peaks are 1 and 0.5. There warmup begins with its first value, here one step of the rise above it.
        """
        expected = [1.0, 0.8535533905932737, 0.5, 0.14644660940672627]
        falls = [make_schedule(ScheduleConfig(peak=peak, decay="cosine", decay_steps=4), 6) for peak in (1.0, 0.5)]
        joined = join(falls, [4])
        assert values(joined, 8) == pytest.approx([*expected, *(0.5 * rate for rate in expected)], rel=1e-12)

    def test_join_equals_torch_sequential(self) -> None:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        parts = [
            ConstantLR(optimizer, factor=0.5, total_iters=99),
            CosineAnnealingLR(optimizer, T_max=10, eta_min=0.1),
            LinearLR(optimizer, start_factor=0.25, end_factor=0.0, total_iters=4),
        ]
        theirs = SequentialLR(optimizer, parts, milestones=[3, 13])
        cosine = make_schedule(ScheduleConfig(peak=1.0, decay="cosine", decay_steps=10, min_ratio=0.1), 20)
        line = make_schedule(ScheduleConfig(peak=0.25, decay="linear", decay_steps=4), 20)
        ours = join([0.5, cosine, line], [3, 13])
        seen = []
        for _ in range(20):
            seen.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            theirs.step()
        assert values(ours, 20) == pytest.approx(seen, rel=1e-9, abs=1e-15)

    def test_any_function_is_a_lambda_for_lambda_lr_of_rate_one(self) -> None:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        scheduler = LambdaLR(optimizer, join([LINE, 1.5], [2]))
        seen = []
        for _ in range(4):
            seen.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        assert seen == [8.0, 6.0, 1.5, 1.5]

    @pytest.mark.parametrize("schedule", [join([LINE, 1.5], [2]), lambda update: 5.0 - update, 0.25])
    def test_any_function_is_a_learning_rate_of_stable_baselines3(self, schedule: Any) -> None:
        learning_rate = as_progress_callable(schedule, 4)
        rates = [schedule] * 4 if isinstance(schedule, float) else values(schedule, 4)
        assert [learning_rate(1.0 - (update + 1) / 4) for update in range(4)] == rates
        assert learning_rate(1.0) == rates[0]


@st.composite
def shapes(draw: st.DrawFn) -> Callable[[int], float] | float:
    """A number, or a schedule by name."""
    peak = draw(st.floats(1e-6, 10.0))
    decay = draw(st.sampled_from(["number", "constant", "linear", "cosine", "triangular"]))
    if decay == "number":
        return peak
    parameters = {"triangular": {"cycles": 2, "min_ratio": 0.1}}.get(decay, {})
    return make_schedule(ScheduleConfig(peak=peak, decay=decay, **parameters), draw(st.integers(4, 40)))  # type: ignore[arg-type]


def _joined(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    def boundaries(schedules: list[Any]) -> st.SearchStrategy[Any]:
        starts = st.lists(st.integers(1, 60), min_size=len(schedules) - 1, max_size=len(schedules) - 1, unique=True)
        return starts.map(lambda found: join(schedules, sorted(found)))

    return st.lists(parts, min_size=1, max_size=3).flatmap(boundaries)


# Schedules of schedules of schedules.
compositions = st.recursive(
    shapes(),
    lambda parts: st.one_of(
        _joined(parts),
        st.builds(scale, parts, st.floats(0.0, 2.0)),
        st.builds(lambda part, low, more: clamp(part, low, low + more), parts, st.floats(0, 1), st.floats(0, 1)),
    ),
    max_leaves=6,
)


class TestLaws:
    @given(compositions, st.integers(1, 80))
    def test_are_schedules_of_a_run(self, schedule: Any, total: int) -> None:
        resolved = make_schedule(schedule, total)
        rates = [rate for _, rate, _ in resolved.table()]
        assert all(0.0 <= rate < math.inf for rate in rates)
        # Pure: the same again, and in any order.
        rate = join([schedule], [])
        assert [rate(update) for update in reversed(range(total))] == rates[::-1]

    @given(compositions, st.integers(1, 50), st.integers(0, 100))
    def test_a_schedule_that_is_cut_and_joined_is_the_same(self, schedule: Any, cut: int, update: int) -> None:
        whole = join([schedule], [])
        assert join([whole, lambda later: whole(cut + later)], [cut])(update) == whole(update)

    @given(compositions, compositions, compositions, st.integers(1, 30), st.integers(1, 30), st.integers(0, 100))
    def test_join_can_be_nested(self, first: Any, second: Any, third: Any, one: int, two: int, update: int) -> None:
        flat = join([first, second, third], [one, one + two])
        assert join([join([first, second], [one]), third], [one + two])(update) == flat(update)
        assert join([first, join([second, third], [two])], [one])(update) == flat(update)

    @given(compositions, st.floats(0, 5), st.floats(0, 5), st.integers(0, 100))
    def test_clamp_keeps_its_bounds_and_leaves_alone_what_is_within(
        self, schedule: Any, low: float, more: float, update: int
    ) -> None:
        clamped, rate = clamp(schedule, low, low + more)(update), join([schedule], [])(update)
        assert low <= clamped <= low + more
        assert clamped == rate or not low <= rate <= low + more
        assert clamp(clamp(schedule, low, low + more), low, low + more)(update) == clamped

    @given(compositions, st.integers(-10, 10), st.floats(0, 5), st.integers(0, 100))
    def test_to_scale_and_to_clamp_can_change_places(self, schedule: Any, power: int, low: float, update: int) -> None:
        factor = 2.0**power
        scaled = clamp(scale(schedule, factor), factor * low, factor * (low + 1))
        assert scale(clamp(schedule, low, low + 1), factor)(update) == pytest.approx(scaled(update), rel=1e-12)
        assert scale(schedule, 1.0)(update) == join([schedule], [])(update)


@pytest.mark.parametrize(
    ("combine", "message"),
    [
        (lambda: join([], []), "boundaries = : must be one fewer than the schedules, of which there are 0"),
        (lambda: join([1.0, 2.0], []), "boundaries = : must be one fewer than the schedules, of which there are 2"),
        (lambda: join([1.0], [3]), "boundaries = 3: must be one fewer than the schedules, of which there are 1"),
        (lambda: join([1.0, 2.0, 3.0], [5, 5]), "boundaries = 5,5: must be updates from 1 on in strictly increasing"),
        (lambda: join([1.0, 2.0], [0]), "boundaries = 0: must be updates from 1 on in strictly increasing order"),
        (lambda: join([1.0, 2.0], [2.5]), "boundaries = 2.5: must be whole numbers: updates"),  # type: ignore[list-item]
        (lambda: join([1.0, "x"], [2]), "schedules = x: must be a number or a function of the update index;"),  # type: ignore[list-item]
        (lambda: join([-1.0, 1.0], [2]), "schedules = -1: must be a number, at least 0, and finite"),
        (lambda: scale(None, 2.0), "schedule = none: must be a number or a function of the update index;"),  # type: ignore[arg-type]
        (lambda: scale(ScheduleConfig(), 2.0), "; make_schedule makes one of a ScheduleConfig"),  # type: ignore[arg-type]
        (lambda: scale(LINE, -1.0), "factor = -1: must be a number, at least 0, and finite"),
        (lambda: scale(LINE, math.nan), "factor = nan: must be a number, at least 0, and finite"),
        (lambda: scale(LINE, math.inf), "factor = inf: must be a number, at least 0, and finite"),
        (lambda: scale(LINE, "2"), "factor = 2: must be a number, at least 0, and finite"),  # type: ignore[arg-type]
        (lambda: clamp(True, 0.0, 1.0), "schedule = true: must be a number or a function of the update index;"),
        (lambda: clamp(LINE, 2.0, 1.0), "minimum = 2: must be a number, at least 0, and at most 1"),
        (lambda: clamp(LINE, -1.0, 1.0), "minimum = -1: must be a number, at least 0, and at most 1"),
        (lambda: clamp(LINE, 0.0, math.nan), "maximum = nan: must be a number, at least 0"),
        (lambda: as_progress_callable("x", 4), "schedule = x: must be a number or a function of the update index;"),  # type: ignore[arg-type]
        (lambda: make_schedule("linear", 4), "config = linear: must be a ScheduleConfig, a number, or a function"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_combined_is_named(combine: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        combine()
    assert message in str(error.value)


def test_all_of_it_works_without_torch() -> None:
    code = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "numpy", "gymnasium"):
            raise ImportError(name)

sys.meta_path.insert(0, Refuse())
from esper.schedules import SHAPES, ScheduleConfig, as_progress_callable, clamp, join, make_schedule, scale

for name, shape in SHAPES.items():
    make_schedule(ScheduleConfig(decay=name, **shape.example), 200).table()
line = make_schedule(ScheduleConfig(peak=8.0, decay="linear", decay_timesteps=400), 6, batch_size=100)
schedule = make_schedule(clamp(join([scale(line, 0.5), 1.0, lambda update: 2.0 + update], [2, 3]), 0.5, 3.0), 6)
assert schedule.table() == [(u, rate, "custom") for u, rate in enumerate([3.0, 3.0, 1.0, 2.0, 3.0, 3.0])]
assert as_progress_callable(schedule, 6)(0.5) == 1.0
assert [line.ratio(update) for update in range(4)] == [1.0, 0.75, 0.5, 0.25]
assert not {"torch", "numpy", "gymnasium"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: scale(1.0, 10**400), "factor"),
        (lambda: join([10**400], []), "schedules"),
        (lambda: clamp(1.0, 0, 10**400), "maximum"),
    ],
)
def test_integers_beyond_floats_are_refused(make: Any, name: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name} = .*: must be a number, at least 0"):
        make()


@pytest.mark.parametrize("total", [0, 2.5, True])
def test_progress_needs_a_number_of_updates(total: Any) -> None:
    with pytest.raises(ConfigError, match=r"^total_updates = .*at least 1$"):
        as_progress_callable(1e-3, total)
