"""Every shape behind a delay and a warmup, with a base rate that is not 1 and a floor that is not 0."""

import math

import pytest

from esper.schedules import Schedule, ScheduleConfig, make_schedule
from esper.schedules.shape import between
from esper.settings.options import ConfigError

# Two updates at 0, one halfway up to 8, the shape from update 3 on; where there is a floor, it is 2.
BEFORE: dict[str, object] = {"peak": 8.0, "delay": 2, "warmup_steps": 1}
RISE = [0.0, 0.0, 4.0]


def resolve(total: int, **parameters: object) -> Schedule:
    return make_schedule(ScheduleConfig(**(BEFORE | parameters)), total)  # type: ignore[arg-type]


# The run's length, the parameters, and the rates from update 3 on, past the end of the run.
SHAPES = [
    # 4 updates, of 6 / 4 each.
    (7, {"decay": "linear", "min_ratio": 0.25}, [8.0, 6.5, 5.0, 3.5, 2.0, 2.0]),
    # 3 updates, of 6 / 3 each, whatever the run's length.
    (99, {"decay": "linear", "min_ratio": 0.25, "decay_steps": 3}, [8.0, 6.0, 4.0, 2.0, 2.0]),
    # (1 + cos(pi / 3)) / 2 = 0.75 of the way from 2 to 8, then 0.25.
    (6, {"decay": "cosine", "min_ratio": 0.25}, [8.0, 6.5, 3.5, 2.0, 2.0]),
    # (1/2)^2 and (1/2)^3 of 6 above 2, at half the way.
    (5, {"decay": "polynomial", "min_ratio": 0.25}, [8.0, 3.5, 2.0, 2.0]),
    (5, {"decay": "polynomial", "min_ratio": 0.25, "power": 3.0}, [8.0, 2.75, 2.0, 2.0]),
    # sqrt(0.25) at half the way.
    (5, {"decay": "exponential", "min_ratio": 0.25}, [8.0, 4.0, 2.0, 2.0]),
    (9, {"decay": "step", "step_size": 2, "gamma": 0.5}, [8.0, 8.0, 4.0, 4.0, 2.0, 2.0, 1.0]),
    (9, {"decay": "step", "step_size": 2, "gamma": 0.5, "min_ratio": 0.375}, [8.0, 8.0, 4.0, 4.0, 3.0, 3.0]),
    # Milestones count from the end of the delay: 2 and 5 are updates 4 and 7 of the run.
    (9, {"decay": "multistep", "milestones": (2, 5), "gamma": 0.5}, [8.0, 4.0, 4.0, 4.0, 2.0, 2.0]),
    (9, {"decay": "multistep", "milestones": (2, 5), "gamma": 0.5, "min_ratio": 0.375}, [8.0, 4.0, 4.0, 4.0, 3.0]),
    # 8 sqrt(3 / (n + 3)): at n = 9 half of it.
    (99, {"decay": "inverse_sqrt", "timescale": 3.0}, [8.0, 8 * math.sqrt(3 / 4), 8 * math.sqrt(3 / 5)]),
    # Half of 10 updates is 5, the last ones: from update 5 on.
    (10, {"decay": "wsd", "decay_frac": 0.5, "min_ratio": 0.25}, [8.0, 8.0, 8.0, 6.8, 5.6, 4.4, 3.2, 2.0, 2.0]),
    # The same without a stable part, so that it begins where the warmup ends: 7 updates.
    (10, {"decay": "wsd", "decay_frac": 0.7}, [8.0, 8 * 6 / 7, 8 * 5 / 7]),
    # 1, 2 and 4 updates of 7: each begins at its peak, 8, 6 and 4.5, and ends above 2.
    (
        10,
        {"decay": "cosine_restarts", "cycles": 3, "cycle_mult": 2.0, "cycle_decay": 0.75, "min_ratio": 0.25},
        [8.0, 6.0, 4.0, 4.5, 2 + 2.5 * 0.8535534, 3.25, 2 + 2.5 * 0.1464466, 2.0, 2.0],
    ),
    # The third peak would be below the floor.
    (6, {"decay": "cosine_restarts", "cycles": 3, "cycle_decay": 0.4, "min_ratio": 0.25}, [8.0, 3.2, 2.0, 2.0]),
    (7, {"decay": "cosine_restarts", "cycles": 1}, [8.0, 8 * 0.8535534, 4.0, 8 * 0.1464466, 0.0]),
    (5, {"decay": "constant"}, [8.0] * 9),
]


@pytest.mark.parametrize(("total", "parameters", "expected"), SHAPES, ids=[f"{p}" for _, p, _ in SHAPES])
def test_behind_delay_and_warmup(total: int, parameters: dict[str, object], expected: list[float]) -> None:
    schedule = resolve(total, **parameters)
    rates = [schedule(update) for update in range(3 + len(expected))]
    assert rates == pytest.approx(RISE + expected, rel=1e-7, abs=1e-15)


@pytest.mark.parametrize(
    ("parameters", "span"),
    [
        ({"decay": "linear"}, (3, 10)),
        ({"decay": "cosine", "decay_steps": 4}, (3, 7)),
        ({"decay": "cosine_restarts", "cycles": 2, "decay_steps": 5}, (3, 8)),
        ({"decay": "wsd", "decay_frac": 0.25}, (7, 10)),
        ({"decay": "step", "step_size": 2, "gamma": 0.5}, (3, None)),
        ({"decay": "multistep", "milestones": (4,), "gamma": 0.5}, (3, None)),
        ({"decay": "inverse_sqrt"}, (3, None)),
        ({"decay": "constant"}, (3, None)),
        ({"decay": "piecewise", "points": ((0, 8.0), (4, 1.0)), "warmup_steps": None}, (2, 6)),
    ],
)
def test_where_the_decay_begins_and_ends(parameters: dict[str, object], span: tuple[int, int | None]) -> None:
    schedule = resolve(10, **parameters)
    assert (schedule.decay_start, schedule.decay_end) == span


@pytest.mark.parametrize(
    ("parameters", "floor"),
    [
        ({"decay": "linear"}, 0.0),
        ({"decay": "step", "step_size": 2, "gamma": 0.5, "min_ratio": 0.25}, 2.0),
        ({"decay": "constant"}, 8.0),
    ],
)
def test_the_lowest_rate_after_warmup(parameters: dict[str, object], floor: float) -> None:
    assert resolve(10, **parameters).floor == floor


def test_points_count_from_the_end_of_the_delay() -> None:
    points = ((0, 8.0), (2, 4.0), (6, 2.0))
    schedule = resolve(20, decay="piecewise", points=points, warmup_steps=None)
    # From 8 to 4 in 2 updates, to 2 in 4 more.
    expected = [0.0, 0.0, 8.0, 6.0, 4.0, 3.5, 3.0, 2.5, 2.0, 2.0]
    assert [schedule(update) for update in range(10)] == expected
    assert (schedule.decay_end, schedule.floor) == (8, 2.0)


def test_a_rate_that_is_rounded_to_zero_has_not_come_to_its_end() -> None:
    # (1 - 3/4)^999 is less than the smallest float.
    schedule = make_schedule(ScheduleConfig(peak=1.0, decay="polynomial", power=999.0), 4)
    assert schedule(3) == 0.0
    assert [schedule.phase(update) for update in (3, 4)] == ["decay", "floor"]


@pytest.mark.parametrize(("warmup", "timescale"), [(0, 1), (1, 1), (2, 2), (5, 5)])
def test_inverse_sqrt_falls_over_the_length_of_the_warmup_but_at_least_one_update(warmup: int, timescale: int) -> None:
    schedule = make_schedule(ScheduleConfig(peak=8.0, warmup_steps=warmup, decay="inverse_sqrt"), 99)
    # sqrt(t / (3t + t)) = 1/2.
    assert schedule(warmup + 3 * timescale) == pytest.approx(4.0)


class TestCycles:
    def test_may_be_one_update_long(self) -> None:
        # Then a cycle is nothing but its peak.
        schedule = make_schedule(ScheduleConfig(peak=8.0, decay="cosine_restarts", cycles=4, cycle_decay=0.5), 4)
        assert [schedule(update) for update in range(5)] == [8.0, 4.0, 2.0, 1.0, 0.0]

    def test_begin_on_the_update_nearest_to_their_share(self) -> None:
        # Thirds of 10 updates end at 3.33, 6.67 and 10.
        config = ScheduleConfig(peak=8.0, decay="cosine_restarts", cycles=3)
        schedule = make_schedule(config, 10)
        assert [update for update in range(10) if schedule(update) == 8.0] == [0, 3, 7]

    def test_shrink_with_a_factor_below_one(self) -> None:
        # 4, 2 and 1 updates of 7.
        config = ScheduleConfig(peak=8.0, decay="cosine_restarts", cycles=3, cycle_mult=0.5)
        schedule = make_schedule(config, 7)
        assert [update for update in range(7) if schedule(update) == 8.0] == [0, 4, 6]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            {"decay": "wsd", "decay_frac": 0.75, "delay": 2},
            "decay_frac = 0.75: a decline of 8 updates does not fit after delay 2 and warmup 1 in 10 updates",
        ),
        (
            {"decay": "multistep", "milestones": (1, 5), "gamma": 0.5},
            "milestones = 1,5: must lie after the warmup of 1 updates",
        ),
        (
            {"decay": "cosine_restarts", "cycles": 8},
            "cycles = 8: 7 updates of decay are too few for that many cycles",
        ),
        (
            {"decay": "cosine_restarts", "cycles": 3, "cycle_mult": 100.0},
            "cycles = 3: 7 updates of decay are too few for that many cycles",
        ),
    ],
)
def test_what_does_not_fit_is_said_with_its_numbers(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        resolve(10, **parameters)
    assert str(error.value) == message


def test_between_has_both_its_ends_exactly() -> None:
    assert between(2.0, 8.0, 0.0) == 2.0
    assert between(2.0, 8.0, 0.25) == 3.5
    assert between(2.0, 8.0, 1.0) == 8.0
    # In floats 0.03 + (0.29 - 0.03) is 0.29000000000000004.
    assert between(0.03, 0.29, 1.0) == 0.29
