"""What is said of a schedule that cannot be: the setting, what was given, what is allowed."""

from typing import Any

import pytest

from esper.schedules import CoefficientConfig, ScheduleConfig, make_schedule, schedules_enabled
from esper.settings.options import ConfigError

PIECEWISE = "decay 'piecewise' has no warmup: put it into points"

DECLARATIONS = [
    ({"peak": -1.0}, "peak = -1: must be finite and greater than 0"),
    ({"peak": 1e39}, "peak = 1e+39: must be a number in float32: from 1.4e-45 to 3.4e+38"),
    (
        {"decay": "piecewise", "points": ((0, 3e-4), (5, 1e39))},
        "points = 0:0.0003,5:1e+39: rates must be numbers in float32: up to 3.4e+38, the first at least 1.4e-45",
    ),
    (
        {"warmup_steps": 5, "warmup_frac": 0.1},
        "warmup_frac = 0.1: give warmup_steps or warmup_frac, not both",
    ),
    (
        {"warmup_steps": 5, "warmup_timesteps": 100},
        "warmup_timesteps = 100: give warmup_steps or warmup_timesteps, not both",
    ),
    (
        {"warmup_frac": 0.1, "warmup_timesteps": 100},
        "warmup_timesteps = 100: give warmup_frac or warmup_timesteps, not both",
    ),
    (
        {"decay": "cosine", "decay_steps": 5, "decay_timesteps": 100},
        "decay_timesteps = 100: give decay_steps or decay_timesteps, not both",
    ),
    ({"warmup_shape": "cosine"}, "warmup_shape = cosine: needs a warmup: give warmup_steps or warmup_frac too"),
    ({"warmup_start_ratio": 0.5}, "warmup_start_ratio = 0.5: needs a warmup: give warmup_steps or warmup_frac too"),
    ({"decay": "piecewise", "points": ((0, 3e-4),), "warmup_steps": 2}, f"warmup_steps = 2: {PIECEWISE}"),
    ({"decay": "piecewise", "points": ((0, 3e-4),), "warmup_frac": 0.5}, f"warmup_frac = 0.5: {PIECEWISE}"),
    ({"decay": "step", "step_size": 5}, "gamma = none: decay 'step' needs it"),
    (
        {"decay": "linear", "power": 2.0},
        "power = 2: decay 'linear' does not use it; it uses decay_steps, decay_timesteps, min_ratio",
    ),
    ({"gamma": 0.5}, "gamma = 0.5: decay 'constant' does not use it; it uses none of the decay parameters"),
    (
        {"decay": "exponential", "min_ratio": 0.0},
        "min_ratio = 0: must be greater than 0 for decay 'exponential'",
    ),
    (
        {"decay": "multistep", "gamma": 0.5, "milestones": (4, 2)},
        "milestones = 4,2: must be updates in strictly increasing order, as 100,200",
    ),
    ({"decay": "piecewise", "points": ((1, 3e-4),)}, "points = 1:0.0003: must begin at update 0"),
    (
        {"decay": "piecewise", "points": ((0, 3e-4), (0, 1e-4))},
        "points = 0:0.0003,0:0.0001: updates must be strictly increasing",
    ),
    (
        {"decay": "piecewise", "points": ((0, 3e-4), (5, -1.0))},
        "points = 0:0.0003,5:-1: rates must be finite, the first greater than 0 and none negative",
    ),
]

RUNS = [
    (
        {"warmup_frac": 0.35, "delay": 6},
        "warmup_frac = 0.35: warmup (4 updates) and delay (6) must leave at least one of the run's 10 updates",
    ),
    (
        {"warmup_steps": 9, "delay": 1},
        "warmup_steps = 9: warmup (9 updates) and delay (1) must leave at least one of the run's 10 updates",
    ),
    ({"delay": 10}, "delay = 10: warmup (0 updates) and delay (10) must leave at least one of the run's 10 updates"),
]


@pytest.mark.parametrize(("parameters", "message"), DECLARATIONS, ids=[message for _, message in DECLARATIONS])
def test_what_cannot_be_declared(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        ScheduleConfig(**parameters)  # type: ignore[arg-type]
    assert str(error.value) == message


@pytest.mark.parametrize(("parameters", "message"), RUNS, ids=[message for _, message in RUNS])
def test_what_ten_updates_have_no_room_for(parameters: dict[str, object], message: str) -> None:
    config = ScheduleConfig(**parameters)  # type: ignore[arg-type]
    with pytest.raises(ConfigError) as error:
        make_schedule(config, 10)
    assert str(error.value) == message
    # One more update, and there is.
    assert make_schedule(config, 11)(10) == config.peak


def test_a_run_without_updates() -> None:
    with pytest.raises(ConfigError, match=r"^total_updates = 0: must be at least 1$"):
        make_schedule(ScheduleConfig(), 0)
    assert make_schedule(ScheduleConfig(), 1)(0) == 3e-4


def test_the_switch() -> None:
    with pytest.raises(ConfigError, match=r"^ESPER_LR_SCHEDULE = OFF: must be on or off$"):
        schedules_enabled({"ESPER_LR_SCHEDULE": "OFF"})


class TestBoundaries:
    """What is just allowed."""

    def test_fractions_from_zero_and_ratios_up_to_one(self) -> None:
        assert make_schedule(ScheduleConfig(peak=1.0, warmup_frac=0.0), 5)(0) == 1.0
        assert make_schedule(ScheduleConfig(peak=1.0, warmup_steps=0), 5)(0) == 1.0
        level = make_schedule(ScheduleConfig(peak=1.0, decay="linear", min_ratio=1.0), 5)
        assert [level(update) for update in range(6)] == [1.0] * 6

    def test_one_milestone_and_one_point(self) -> None:
        drop = make_schedule(ScheduleConfig(peak=1.0, decay="multistep", milestones=(1,), gamma=0.5), 3)
        assert [drop(update) for update in range(3)] == [1.0, 0.5, 0.5]
        level = make_schedule(ScheduleConfig(peak=1.0, decay="piecewise", points=((0, 1.0),)), 3)
        assert [level(update) for update in range(3)] == [1.0] * 3

    def test_points_may_come_down_to_zero(self) -> None:
        schedule = make_schedule(ScheduleConfig(peak=1.0, decay="piecewise", points=((0, 1.0), (1, 0.0), (2, 0.5))), 3)
        assert [schedule(update) for update in range(4)] == [1.0, 0.0, 0.5, 0.5]

    def test_neighbouring_milestones_and_points(self) -> None:
        drops = make_schedule(ScheduleConfig(peak=1.0, decay="multistep", milestones=(1, 2), gamma=0.5), 3)
        assert [drops(update) for update in range(3)] == [1.0, 0.5, 0.25]


class TestTimesteps:
    """Lengths in environment steps."""

    @pytest.mark.parametrize(("batch_size", "updates"), [(100, 30), (50, 60), (25, 120)])
    def test_the_curve_over_environment_steps_does_not_depend_on_the_size_of_a_rollout(
        self, batch_size: int, updates: int
    ) -> None:
        config = ScheduleConfig(
            peak=8.0, warmup_timesteps=400, warmup_start_ratio=0.5, decay="linear", decay_timesteps=1600, min_ratio=0.25
        )
        schedule = make_schedule(config, updates, batch_size)
        # At the peak after 400 steps, halfway from 8 to 2 after 800 more, at 2 after 1600.
        rates = {steps: schedule(steps // batch_size) for steps in (400, 800, 1200, 2000, 2900)}
        assert rates == {400: 8.0, 800: 6.5, 1200: 5.0, 2000: 2.0, 2900: 2.0}

    def test_a_part_of_a_rollout_counts_whole(self) -> None:
        for timesteps, updates in ((0, 0), (1, 1), (100, 1), (101, 2)):
            assert make_schedule(ScheduleConfig(warmup_timesteps=timesteps), 9, 100).warmup == updates
        for timesteps, updates in ((1, 1), (100, 1), (101, 2)):
            schedule = make_schedule(ScheduleConfig(decay="linear", decay_timesteps=timesteps), 9, 100)
            assert schedule.decay_end == updates

    def test_every_shape_with_a_length_takes_it_in_steps(self) -> None:
        for decay, parameters in (
            ("cosine", {}),
            ("polynomial", {}),
            ("exponential", {"min_ratio": 0.1}),
            ("cosine_restarts", {"cycles": 2}),
            ("triangular", {"cycles": 2, "min_ratio": 0.1}),
        ):
            in_updates = make_schedule(ScheduleConfig(decay=decay, decay_steps=6, **parameters), 20)
            in_steps = make_schedule(ScheduleConfig(decay=decay, decay_timesteps=590, **parameters), 20, 100)
            assert in_steps.table() == in_updates.table()

    @pytest.mark.parametrize(
        ("parameters", "name"),
        [
            ({"warmup_timesteps": 100}, "warmup_timesteps = 100"),
            ({"decay": "linear", "decay_timesteps": 100}, "decay_timesteps = 100"),
        ],
    )
    def test_need_the_size_of_a_rollout(self, parameters: dict[str, object], name: str) -> None:
        config = ScheduleConfig(**parameters)  # type: ignore[arg-type]
        message = f"^{name}: needs the environment steps of an update: give make_schedule a batch_size$"
        with pytest.raises(ConfigError, match=message):
            make_schedule(config, 10)

    def test_that_do_not_fit_or_pass_the_end_are_named(self) -> None:
        with pytest.raises(
            ConfigError, match=r"^warmup_timesteps = 1000: warmup \(10 updates\) and delay \(0\) must leave"
        ):
            make_schedule(ScheduleConfig(warmup_timesteps=1000), 10, 100)
        (late,) = make_schedule(ScheduleConfig(decay="linear", decay_timesteps=1001), 10, 100).beyond_end()
        assert (late.name, late.value) == ("decay_timesteps", 1001)
        assert late.says == "the end of the decay at update 11 is not reached: the run ends with update 9"


class TestCoefficients:
    def test_may_be_off(self) -> None:
        off = make_schedule(CoefficientConfig(peak=0.0, decay="linear"), 4)
        assert [off(update) for update in range(5)] == [0.0] * 5
        # Without a base rate there is nothing to be relative to.
        assert [off.ratio(update) for update in range(5)] == [0.0] * 5

    @pytest.mark.parametrize("peak", [-1.0, float("nan"), float("inf")])
    def test_but_not_negative_or_unbounded(self, peak: float) -> None:
        with pytest.raises(ConfigError, match=r"^peak = .*: must be finite and at least 0$"):
            CoefficientConfig(peak=peak)


class TestWarmup:
    def test_rises_along_a_cosine_from_where_it_starts(self) -> None:
        config = ScheduleConfig(peak=8.0, warmup_steps=3, warmup_shape="cosine", warmup_start_ratio=0.5, delay=1)
        schedule = make_schedule(config, 9)
        # From 4 to 8; at quarters of the way (1 - cos(pi/4)) / 2 = 0.1464466, 1/2 and 0.8535534 of it.
        rates = [schedule(update) for update in range(6)]
        assert rates == pytest.approx([0.0, 4.5857864, 6.0, 7.4142136, 8.0, 8.0], rel=1e-7)
        assert [schedule.ratio(update) for update in range(2)] == pytest.approx([0.0, 0.5732233], rel=1e-7)

    def test_a_fraction_is_of_the_whole_run_and_rounds_up(self) -> None:
        for total, warmup in ((10, 3), (11, 3), (12, 3), (13, 4), (100, 25)):
            assert make_schedule(ScheduleConfig(warmup_frac=0.25, delay=2), total).warmup == warmup


@pytest.mark.parametrize("total", [10.5, "10", True, None, float("inf")])
def test_a_number_of_updates_is_whole(total: Any) -> None:
    with pytest.raises(ConfigError, match=r"^total_updates = .*: must be a whole number, at least 1$"):
        make_schedule(ScheduleConfig(decay="linear"), total)


@pytest.mark.parametrize("schedule", [ScheduleConfig(decay="linear"), lambda update: 1e-3])
def test_no_update_has_the_number_nan(schedule: Any) -> None:
    with pytest.raises(ValueError, match="update = nan"):
        make_schedule(schedule, 10)(float("nan"))  # type: ignore[arg-type]


def test_a_function_must_give_what_float32_holds() -> None:
    with pytest.raises(ConfigError, match=r"gives 1e\+39 for update 0; .* at most 3\.4e\+38"):
        make_schedule(lambda update: 1e39, 10)
