"""The contract of the schedules: exact values, properties, equality with other libraries, and what is refused."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    CyclicLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    SequentialLR,
    StepLR,
)

from esper.schedules import (
    SHAPES,
    Schedule,
    ScheduleConfig,
    as_progress_callable,
    make_schedule,
    schedules_enabled,
)
from esper.settings.options import ConfigError


def rates(total: int, upto: int | None = None, **parameters: Any) -> list[float]:
    schedule = make_schedule(ScheduleConfig(**parameters), total)
    return [schedule(update) for update in range(total if upto is None else upto)]


class TestExactValues:
    """Peak 1 where it can be, so that the numbers can be checked in the head."""

    def test_constant_is_the_default(self) -> None:
        assert rates(3, 5, peak=0.1) == [0.1] * 5

    def test_linear_warmup_never_starts_at_zero_and_peaks_at_update_w(self) -> None:
        # W = 4: (u + 1) / 5 of the peak.
        assert rates(10, 6, peak=1.0, warmup_steps=4) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0], abs=1e-15)

    def test_cosine_warmup(self) -> None:
        # W = 1: halfway, (1 - cos(pi / 2)) / 2 = 0.5. W = 2: thirds, (1 - cos(pi / 3)) / 2 = 0.25, then 0.75.
        assert rates(9, 2, peak=1.0, warmup_steps=1, warmup_shape="cosine") == pytest.approx([0.5, 1.0])
        assert rates(9, 3, peak=1.0, warmup_steps=2, warmup_shape="cosine") == pytest.approx([0.25, 0.75, 1.0])

    def test_warmup_from_a_start_ratio(self) -> None:
        # S = 0.5 * 2 = 1; W = 1: 1 + (2 - 1) * 1/2 = 1.5.
        assert rates(9, 2, peak=2.0, warmup_steps=1, warmup_start_ratio=0.5) == [1.5, 2.0]

    def test_warmup_frac_rounds_up(self) -> None:
        # ceil(0.25 * 10) = 3: quarters.
        assert rates(10, 4, peak=1.0, warmup_frac=0.25) == [0.25, 0.5, 0.75, 1.0]

    def test_delay_holds_exactly_zero_and_shifts_the_rest(self) -> None:
        assert rates(10, 5, peak=1.0, delay=2, warmup_steps=1) == [0.0, 0.0, 0.5, 1.0, 1.0]

    def test_linear(self) -> None:
        # D = 4: the peak at update 0, then a quarter less each; floor 0 from update 4 on.
        assert rates(4, 7, peak=1.0, decay="linear") == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0, 0.0]

    def test_linear_with_floor_and_length(self) -> None:
        # D = 2, F = 0.5: halfway between 1 and 0.5 is 0.75.
        assert rates(9, 4, peak=1.0, decay="linear", decay_steps=2, min_ratio=0.5) == [1.0, 0.75, 0.5, 0.5]

    def test_cosine(self) -> None:
        # x = 0, 1/3, 2/3, 1: (1 + cos) / 2 = 1, 0.75, 0.25, 0.
        assert rates(3, 5, peak=1.0, decay="cosine") == pytest.approx([1.0, 0.75, 0.25, 0.0, 0.0], abs=1e-15)

    def test_polynomial(self) -> None:
        # (1 - x)^2 at x = 0, 1/2, 1, and the cube.
        assert rates(2, 3, peak=1.0, decay="polynomial") == [1.0, 0.25, 0.0]
        assert rates(2, 3, peak=1.0, decay="polynomial", power=3.0) == [1.0, 0.125, 0.0]

    def test_exponential(self) -> None:
        # 0.25^x at x = 0, 1/2, 1.
        assert rates(2, 4, peak=1.0, decay="exponential", min_ratio=0.25) == [1.0, 0.5, 0.25, 0.25]

    def test_step(self) -> None:
        expected = [1.0, 1.0, 0.5, 0.5, 0.3, 0.3]
        assert rates(6, peak=1.0, decay="step", step_size=2, gamma=0.5, min_ratio=0.3) == expected

    def test_step_counts_from_the_end_of_warmup(self) -> None:
        assert rates(9, 5, peak=1.0, warmup_steps=1, decay="step", step_size=2, gamma=0.5) == [0.5, 1.0, 1.0, 0.5, 0.5]

    def test_multistep(self) -> None:
        assert rates(9, 6, peak=1.0, decay="multistep", milestones=(2, 4), gamma=0.5) == [1, 1, 0.5, 0.5, 0.25, 0.25]

    def test_inverse_sqrt(self) -> None:
        # tau = W = 1: after warmup 1, then sqrt(1 / (1 + 1)), sqrt(1 / 3), sqrt(1 / 4) = 0.5.
        expected = [0.5, 1.0, math.sqrt(1 / 2), math.sqrt(1 / 3), 0.5]
        assert rates(9, 5, peak=1.0, warmup_steps=1, decay="inverse_sqrt") == pytest.approx(expected)
        # tau = 3: sqrt(3 / 12) = 0.5 at update 9, and the floor 0.4 holds later.
        assert rates(99, peak=1.0, decay="inverse_sqrt", timescale=3.0, min_ratio=0.4)[9] == pytest.approx(0.5)
        assert rates(99, peak=1.0, decay="inverse_sqrt", timescale=3.0, min_ratio=0.4)[98] == 0.4

    @pytest.mark.parametrize(
        ("shape", "falling"),
        [
            ("linear", [0.75, 0.5, 0.25]),
            ("cosine", [0.8535534, 0.5, 0.1464466]),
            ("1-sqrt", [0.5, 0.2928932, 0.1339746]),
        ],
    )
    def test_wsd_falls_only_at_the_end(self, shape: str, falling: list[float]) -> None:
        # 0.4 of 10 updates: at the peak up to update 6; x = 1/4, 1/2, 3/4 at updates 7, 8, 9.
        got = rates(10, 12, peak=1.0, warmup_steps=1, decay="wsd", decay_frac=0.4, wsd_shape=shape)
        assert got == pytest.approx([0.5, *[1.0] * 6, *falling, 0.0, 0.0], abs=1e-7)

    def test_cosine_restarts(self) -> None:
        # Two cycles of 2 updates: each from its peak to halfway; the second peak is 0.5.
        assert rates(4, 6, peak=1.0, decay="cosine_restarts", cycles=2, cycle_decay=0.5) == pytest.approx(
            [1.0, 0.5, 0.5, 0.25, 0.0, 0.0]
        )

    def test_cosine_restarts_with_growing_cycles(self) -> None:
        # 2 + 4 updates: the second cycle starts at the peak in update 2 and is halfway in update 4.
        got = rates(6, peak=1.0, decay="cosine_restarts", cycles=2, cycle_mult=2.0)
        assert got[2] == 1.0
        assert got[4] == pytest.approx(0.5)

    def test_triangular(self) -> None:
        # Cycles of 4 updates from the floor 0.25 * 4 = 1: up to 4 in steps of 3 / 2, then up to 2 in steps of 1 / 2.
        got = rates(8, 10, peak=4.0, decay="triangular", cycles=2, cycle_decay=0.5, min_ratio=0.25)
        assert got == [1.0, 2.5, 4.0, 2.5, 1.0, 1.5, 2.0, 1.5, 1.0, 1.0]

    def test_triangular_reaches_the_peak_of_odd_cycles_too(self) -> None:
        # 5 updates: up in 2, down in 3. The next cycles are of 3 and 2.
        got = rates(5, 6, peak=4.0, decay="triangular", cycles=1, min_ratio=0.25)
        assert got == [1.0, 2.5, 4.0, 3.0, 2.0, 1.0]
        assert rates(5, 6, peak=4.0, decay="triangular", cycles=2, min_ratio=0.25) == [1.0, 4.0, 1.0, 4.0, 2.5, 1.0]

    def test_piecewise(self) -> None:
        points = ((0, 1.0), (2, 3.0), (4, 0.0))
        assert rates(6, 7, decay="piecewise", points=points) == [1.0, 2.0, 3.0, 1.5, 0.0, 0.0, 0.0]

    def test_the_base_rate_of_piecewise_is_that_of_its_first_point(self) -> None:
        config = ScheduleConfig(decay="piecewise", points=((0, 2.0), (2, 3.0)))
        assert config == ScheduleConfig(peak=2.0, decay="piecewise", points=((0, 2.0), (2, 3.0)))
        assert config.peak == 2.0
        assert [make_schedule(config, 6).ratio(update) for update in range(4)] == [1.0, 1.25, 1.5, 1.5]


class TestPhases:
    def test_every_phase(self) -> None:
        config = ScheduleConfig(peak=1.0, delay=1, warmup_steps=1, decay="wsd", decay_frac=0.25, min_ratio=0.5)
        schedule = make_schedule(config, 8)
        phases = [schedule.phase(update) for update in range(9)]
        assert phases == ["delay", "warmup", *["stable"] * 4, "decay", "decay", "floor"]

    def test_constant_after_warmup(self) -> None:
        schedule = make_schedule(ScheduleConfig(peak=1.0, warmup_steps=1), 5)
        assert [schedule.phase(update) for update in (0, 1, 9)] == ["warmup", "constant", "constant"]

    def test_shapes_without_an_end_are_at_the_floor_when_they_reach_it(self) -> None:
        config = ScheduleConfig(peak=1.0, decay="step", step_size=1, gamma=0.5, min_ratio=0.25)
        assert [make_schedule(config, 9).phase(update) for update in range(4)] == ["decay", "decay", "floor", "floor"]

    @pytest.mark.parametrize(
        ("points", "expected"),
        [
            (
                ((0, 1.0), (2, 3.0), (4, 3.0), (6, 1.0)),
                [*["warmup"] * 2, *["stable"] * 2, *["decay"] * 2, *["floor"] * 2],
            ),
            (((0, 1.0), (2, 3.0)), [*["warmup"] * 2, *["floor"] * 6]),
            (((0, 1.0), (9, 0.0)), ["decay"] * 8),
            (((0, 1.0), (2, 1.0), (4, 1.0)), ["constant"] * 8),
            (((0, 1.0),), ["constant"] * 8),
        ],
    )
    def test_piecewise(self, points: tuple[tuple[int, float], ...], expected: list[str]) -> None:
        for delay in (0, 3):
            schedule = make_schedule(ScheduleConfig(decay="piecewise", points=points, delay=delay), 8)
            assert [schedule.phase(update) for update in range(8 + delay)] == ["delay"] * delay + expected

    def test_triangular_rises_as_warmup_and_falls_as_decay(self) -> None:
        parameters = {"decay": "triangular", "cycles": 3, "cycle_decay": 0.5, "min_ratio": 0.5}
        schedule = make_schedule(ScheduleConfig(peak=1.0, delay=1, **parameters), 13)  # type: ignore[arg-type]
        # The second and the third cycle would rise no higher than the floor.
        expected = ["delay", "warmup", "warmup", "decay", "decay", *["floor"] * 9]
        assert [schedule.phase(update) for update in range(14)] == expected

    @pytest.mark.parametrize(
        "shape",
        [
            {"decay": "linear"},
            {"decay": "cosine", "decay_steps": 2},
            {"decay": "exponential"},
            {"decay": "step", "step_size": 1, "gamma": 0.5},
            {"decay": "multistep", "milestones": (2, 3), "gamma": 0.5},
            {"decay": "inverse_sqrt"},
            {"decay": "wsd", "decay_frac": 0.5},
            {"decay": "cosine_restarts", "cycles": 2, "cycle_decay": 0.5},
        ],
        ids=str,
    )
    def test_a_floor_at_the_peak_is_constant(self, shape: dict[str, object]) -> None:
        schedule = make_schedule(ScheduleConfig(delay=1, warmup_steps=1, min_ratio=1.0, **shape), 8)  # type: ignore[arg-type]
        assert [schedule.phase(update) for update in range(10)] == ["delay", "warmup", *["constant"] * 8]
        assert [schedule(update) for update in range(2, 10)] == [3e-4] * 8

    def test_table_and_ratio(self) -> None:
        schedule = make_schedule(ScheduleConfig(peak=2.0, decay="linear"), 2)
        assert schedule.table() == [(0, 2.0, "decay"), (1, 1.0, "decay")]
        assert [schedule.ratio(update) for update in range(3)] == [1.0, 0.5, 0.0]


class TestBeyondEnd:
    """Of ten updates, of which the last is 9."""

    @pytest.mark.parametrize(
        ("parameters", "expected"),
        [
            ({"decay": "multistep", "gamma": 0.5, "milestones": (3, 9)}, []),
            ({"decay": "multistep", "gamma": 0.5, "milestones": (3, 10)}, ["milestones: the drop at update 10"]),
            (
                {"decay": "multistep", "gamma": 0.5, "milestones": (3, 8), "delay": 3},
                ["milestones: the drop at update 11"],
            ),
            ({"decay": "step", "gamma": 0.5, "step_size": 9}, []),
            # Warmup of 1, then 9 updates until the first drop.
            (
                {"decay": "step", "gamma": 0.5, "step_size": 9, "warmup_steps": 1},
                ["step_size: the first drop at update 10"],
            ),
            # A line to update 10 is the linear decay over the run.
            ({"decay": "piecewise", "points": ((0, 1.0), (10, 0.0))}, []),
            ({"decay": "piecewise", "points": ((0, 1.0), (11, 0.5), (12, 0.0))}, ["points: the point at update 11"]),
            ({"decay": "linear"}, []),
            ({"decay": "linear", "decay_steps": 10}, []),
            (
                {"decay": "linear", "decay_steps": 8, "warmup_steps": 3},
                ["decay_steps: the end of the decay at update 11"],
            ),
            ({"decay": "cosine_restarts", "cycles": 3}, []),
            ({"decay": "triangular", "cycles": 3, "min_ratio": 0.1}, []),
            (
                {"decay": "triangular", "cycles": 3, "min_ratio": 0.1, "decay_steps": 15},
                ["cycles: the cycle from update 10", "decay_steps: the end of the decay at update 15"],
            ),
            # Cycles of 6: the second is cut, and is no cycle that never begins.
            (
                {"decay": "cosine_restarts", "cycles": 2, "decay_steps": 12},
                ["decay_steps: the end of the decay at update 12"],
            ),
            (
                {"decay": "cosine_restarts", "cycles": 3, "decay_steps": 15},
                ["cycles: the cycle from update 10", "decay_steps: the end of the decay at update 15"],
            ),
            ({"decay": "wsd", "decay_frac": 1.0}, []),
            ({"decay": "inverse_sqrt", "timescale": 1000.0}, []),
            ({"warmup_steps": 9}, []),
        ],
        ids=str,
    )
    def test_names_what_no_update_sees(self, parameters: dict[str, object], expected: list[str]) -> None:
        config = ScheduleConfig(**parameters)  # type: ignore[arg-type]
        found = make_schedule(config, 10).beyond_end()
        assert [f"{each.name}: {each.says}" for each in found] == [
            f"{text} is not reached: the run ends with update 9" for text in expected
        ]
        assert [each.value for each in found] == [getattr(config, each.name) for each in found]
        assert make_schedule(config, 100).beyond_end() == []


@st.composite
def piecewise(draw: st.DrawFn) -> Schedule:
    lengths = draw(st.lists(st.integers(1, 20), max_size=5))
    # Few rates, so that some are the same.
    rates = draw(st.lists(st.sampled_from([1e-4, 3e-4, 1.0]), min_size=len(lengths) + 1, max_size=len(lengths) + 1))
    points = tuple(zip(itertools.accumulate(lengths, initial=0), rates, strict=True))
    config = ScheduleConfig(decay="piecewise", points=points, delay=draw(st.integers(0, 5)))
    return make_schedule(config, draw(st.integers(6, 150)))


@st.composite
def triangular(draw: st.DrawFn) -> Schedule:
    parameters: dict[str, object] = {
        "peak": draw(st.floats(1e-7, 10.0)),
        "cycles": draw(st.integers(1, 4)),
        "cycle_mult": draw(st.floats(0.7, 1.5)),
        "cycle_decay": draw(st.floats(0.1, 1.0)),
        # Above 0.99 two rates beside each other may be rounded to the same.
        "min_ratio": draw(st.floats(0.01, 0.99) | st.just(1.0)),
        "delay": draw(st.integers(0, 5)),
    }
    if draw(st.booleans()):
        parameters["decay_steps"] = draw(st.integers(20, 200))
    return make_schedule(ScheduleConfig(decay="triangular", **parameters), draw(st.integers(30, 150)))  # type: ignore[arg-type]


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    total = draw(st.integers(12, 400))
    decay = draw(st.sampled_from([name for name, shape in SHAPES.items() if shape.no_warmup is None]))
    parameters: dict[str, Any] = {
        "peak": draw(st.floats(1e-7, 10.0)),
        "decay": decay,
        "delay": draw(st.integers(0, total // 4)),
    }
    if draw(st.booleans()):
        parameters |= {"warmup_steps": draw(st.integers(0, total // 4))}
    else:
        parameters |= {"warmup_frac": draw(st.floats(0, 0.24))}
    parameters |= {
        "warmup_shape": draw(st.sampled_from(["linear", "cosine"])),
        "warmup_start_ratio": draw(st.floats(0, 0.99)),
    }
    if decay != "constant":
        parameters["min_ratio"] = draw(st.floats(0.01 if decay == "exponential" else 0.0, 1.0))
    if decay in ("step", "multistep"):
        parameters["gamma"] = draw(st.floats(0.01, 0.99))
    own: dict[str, dict[str, Any]] = {
        "step": {"step_size": draw(st.integers(1, total))},
        "multistep": {"milestones": tuple(range(total // 2, total, draw(st.integers(1, 50))))},
        "wsd": {
            "decay_frac": draw(st.floats(0.01, 0.4)),
            "wsd_shape": draw(st.sampled_from(["linear", "cosine", "1-sqrt"])),
        },
        "polynomial": {"power": draw(st.floats(0.1, 5))},
        "cosine_restarts": {"cycles": draw(st.integers(1, 3)), "cycle_decay": draw(st.floats(0.1, 1.0))},
    }
    parameters |= own.get(decay, {})
    return make_schedule(ScheduleConfig(**parameters), total)


class TestProperties:
    @given(schedules() | triangular(), st.integers(0, 2000))
    def test_between_zero_and_peak_wherever_asked(self, schedule: Schedule, update: int) -> None:
        assert 0.0 <= schedule(update) <= schedule.config.peak

    @given(schedules())
    def test_peak_is_reached_exactly_when_warmup_ends(self, schedule: Schedule) -> None:
        assert schedule(schedule.config.delay + schedule.warmup) == schedule.config.peak

    @given(schedules())
    def test_warmup_rises_without_a_jump_into_the_peak(self, schedule: Schedule) -> None:
        first = schedule.config.delay
        rising = [schedule(update) for update in range(first, first + schedule.warmup + 1)]
        assert rising[0] > 0
        assert all(before < after for before, after in itertools.pairwise(rising))
        if schedule.config.warmup_shape == "linear" and schedule.warmup > 1:
            steps = [after - before for before, after in itertools.pairwise(rising)]
            assert steps == pytest.approx([steps[0]] * len(steps), rel=1e-6, abs=1e-9 * schedule.config.peak)

    @given(schedules())
    def test_never_rises_after_warmup_except_by_restarts(self, schedule: Schedule) -> None:
        start = schedule.config.delay + schedule.warmup
        falling = [schedule(update) for update in range(start, schedule.total_updates + 50)]
        if schedule.config.decay != "cosine_restarts":
            assert all(before >= after for before, after in itertools.pairwise(falling))

    @given(triangular())
    def test_each_cycle_reaches_its_peak_and_begins_at_the_floor(self, schedule: Schedule) -> None:
        config, peak = schedule.config, schedule.config.peak
        assert schedule.decay_end is not None
        found = [schedule(update) for update in range(schedule.decay_start, schedule.decay_end)]
        assert found[0] == schedule.floor
        # The highest rate of each cycle, the floor where it would be lower.
        tops = {max(schedule.floor, peak * (config.cycle_decay or 1.0) ** cycle) for cycle in range(config.cycles)}
        assert tops <= set(found)
        assert max(found) == peak

    @given(schedules() | triangular())
    def test_stays_at_the_floor_past_the_end(self, schedule: Schedule) -> None:
        if schedule.decay_end is None:
            return
        for update in (schedule.decay_end, schedule.decay_end + 1, 10 * schedule.total_updates, 10**9):
            assert schedule(update) == schedule.floor
            # Where the floor is as high as the base rate nothing ever falls.
            assert schedule.phase(update) == ("constant" if schedule.floor == schedule.config.peak else "floor")

    @given(schedules() | triangular())
    def test_never_below_the_floor_after_warmup(self, schedule: Schedule) -> None:
        start = schedule.config.delay + schedule.warmup
        assert min(schedule(update) for update in range(start, schedule.total_updates)) >= schedule.floor

    @given(schedules() | piecewise() | triangular())
    def test_the_phase_follows_the_rate(self, schedule: Schedule) -> None:
        """From each update to the next, but where the next is of another phase, or of another cycle."""
        restarts = schedule.config.decay == "cosine_restarts"
        for update in range(schedule.total_updates + 20):
            phase, rate, after = schedule.phase(update), schedule(update), schedule(update + 1)
            match phase:
                case "delay":
                    assert rate == 0
                case "warmup":
                    assert after > rate
                case "decay":
                    assert after <= rate or restarts
                case "stable":
                    assert after == rate
                case "constant" | "floor":
                    assert after == rate == schedule(update + 1000)

    @given(schedules() | piecewise() | triangular())
    def test_what_falls_or_rises_later_is_not_called_constant_and_what_never_does_is(self, schedule: Schedule) -> None:
        start = schedule.config.delay + schedule.warmup
        later = {schedule(update) for update in range(start, start + 5000)}
        for update in (start, start + 7):
            assert (schedule.phase(update) == "constant") == (len(later) == 1)

    @given(schedules(), st.integers(0, 500))
    def test_delay_phase_is_where_the_rate_is_exactly_zero_before_warmup(self, schedule: Schedule, update: int) -> None:
        assert (update < schedule.config.delay) == (schedule.phase(update) == "delay")
        if update < schedule.config.delay:
            assert schedule(update) == 0.0


def torch_rates(make: Callable[[torch.optim.Optimizer], Any], total: int, peak: float) -> list[float]:
    """The rates a torch scheduler sets, stepped update by update."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    scheduler = make(optimizer)
    seen = []
    for _ in range(total):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


class TestOtherLibraries:
    # SequentialLR itself passes the deprecated epoch argument when it hands over.
    pytestmark = pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")

    @pytest.mark.parametrize(
        ("parameters", "decay_scheduler"),
        [
            ({"decay": "cosine"}, lambda o: CosineAnnealingLR(o, T_max=40)),
            ({"decay": "cosine", "min_ratio": 0.1}, lambda o: CosineAnnealingLR(o, T_max=40, eta_min=3e-5)),
            ({"decay": "linear"}, lambda o: LinearLR(o, start_factor=1.0, end_factor=0.0, total_iters=40)),
            ({"decay": "step", "step_size": 7, "gamma": 0.5}, lambda o: StepLR(o, step_size=7, gamma=0.5)),
            # P * 0.01^x with x = n / 40 is a factor of 0.01^(1/40) an update.
            ({"decay": "exponential", "min_ratio": 0.01}, lambda o: ExponentialLR(o, gamma=0.01 ** (1 / 40))),
        ],
        ids=["cosine", "cosine with floor", "linear", "step", "exponential"],
    )
    def test_equals_torch_sequential(self, parameters: dict[str, Any], decay_scheduler: Any) -> None:
        warmup = 10

        def make(optimizer: torch.optim.Optimizer) -> SequentialLR:
            rise = LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup)
            return SequentialLR(optimizer, [rise, decay_scheduler(optimizer)], milestones=[warmup])

        expected = torch_rates(make, 50, 3e-4)
        assert rates(50, peak=3e-4, warmup_steps=warmup, **parameters) == pytest.approx(expected, rel=1e-9, abs=1e-15)

    @pytest.mark.parametrize(("up", "down"), [(5, 5), (5, 6)])
    def test_triangular_equals_torch_cyclic(self, up: int, down: int) -> None:
        def make(optimizer: torch.optim.Optimizer) -> CyclicLR:
            return CyclicLR(optimizer, 1e-4, 1e-3, step_size_up=up, step_size_down=down, cycle_momentum=False)

        total = 4 * (up + down)
        got = rates(total, peak=1e-3, decay="triangular", cycles=4, min_ratio=0.1)
        assert got == pytest.approx(torch_rates(make, total, 1e-3), rel=1e-9)

    def test_ratio_is_a_lambda_for_lambda_lr(self) -> None:
        schedule = make_schedule(ScheduleConfig(peak=3e-4, warmup_steps=5, decay="cosine"), 30)
        got = torch_rates(lambda optimizer: LambdaLR(optimizer, schedule.ratio), 30, 3e-4)
        assert got == pytest.approx([schedule(update) for update in range(30)], rel=1e-12)

    @pytest.mark.parametrize(("total", "peak"), [(7, 2.5e-4), (488, 2.5e-4), (977, 3e-4), (1000, 0.1)])
    def test_linear_is_cleanrls_annealing_to_the_last_bit(self, total: int, peak: float) -> None:
        # cleanrl/ppo.py counts iterations from 1: frac = 1.0 - (iteration - 1.0) / num_iterations; lr = frac * peak.
        expected = [(1.0 - (iteration - 1.0) / total) * peak for iteration in range(1, total + 1)]
        assert rates(total, peak=peak, decay="linear") == expected

    @pytest.mark.parametrize(("timesteps", "rollout"), [(10_000, 100), (10_001, 100), (99_999, 1024), (3, 7)])
    def test_progress_callable_follows_stable_baselines3(self, timesteps: int, rollout: int) -> None:
        total = math.ceil(timesteps / rollout)
        schedule = make_schedule(ScheduleConfig(peak=1.0, decay="linear"), total)
        learning_rate = as_progress_callable(schedule, total)
        assert learning_rate(1.0) == schedule(0)
        # Stable-Baselines3 sets the progress after each rollout and before optimising on it.
        seen = [learning_rate(1.0 - rollout * (update + 1) / timesteps) for update in range(total)]
        assert seen == [schedule(update) for update in range(total)]
        assert learning_rate(-3.0) == schedule(total - 1)

    def test_as_the_learning_rate_of_stable_baselines3_itself(self) -> None:
        sb3 = pytest.importorskip("stable_baselines3")
        seen = []
        schedule = make_schedule(ScheduleConfig(peak=1e-3, warmup_steps=1, decay="linear"), 4)
        progress = as_progress_callable(schedule, 4)
        model = sb3.PPO("MlpPolicy", "CartPole-v1", learning_rate=progress, n_steps=32, batch_size=32, device="cpu")
        train = model.train

        def watch() -> None:
            train()
            seen.append(model.policy.optimizer.param_groups[0]["lr"])

        model.train = watch
        model.learn(128)
        assert seen == [schedule(update) for update in range(4)]


BAD = [
    ({"peak": 0.0}, "peak", "greater than 0"),
    ({"peak": -1e-3}, "peak", "greater than 0"),
    ({"peak": math.nan}, "peak", "finite"),
    ({"peak": math.inf}, "peak", "finite"),
    ({"warmup_steps": 5, "warmup_frac": 0.1}, "warmup_frac", "not both"),
    ({"warmup_steps": -1}, "warmup_steps", "at least 0"),
    ({"warmup_steps": 1.5}, "warmup_steps", "whole number"),
    ({"warmup_frac": 1.0}, "warmup_frac", "less than 1"),
    ({"warmup_frac": -0.1}, "warmup_frac", "at least 0"),
    ({"warmup_frac": math.nan}, "warmup_frac", "at least 0"),
    ({"warmup_shape": "cosine"}, "warmup_shape", "needs a warmup"),
    ({"warmup_start_ratio": 0.5}, "warmup_start_ratio", "needs a warmup"),
    ({"warmup_steps": 1, "warmup_start_ratio": 1.0}, "warmup_start_ratio", "less than 1"),
    ({"delay": -1}, "delay", "at least 0"),
    ({"decay": "cosin"}, "decay", "did you mean 'cosine'"),
    ({"decay": "linear", "min_ratio": 1.5}, "min_ratio", "at most 1"),
    ({"decay": "linear", "min_ratio": -0.5}, "min_ratio", "at least 0"),
    ({"decay": "linear", "decay_steps": 0}, "decay_steps", "at least 1"),
    ({"decay": "linear", "power": 2.0}, "power", "does not use it"),
    ({"min_ratio": 0.1}, "min_ratio", "does not use it"),
    ({"decay": "wsd", "decay_frac": 0.5, "decay_steps": 5}, "decay_steps", "does not use it"),
    ({"decay": "exponential"}, "min_ratio", "needs it"),
    ({"decay": "exponential", "min_ratio": 0.0}, "min_ratio", "greater than 0"),
    ({"decay": "step", "gamma": 0.5}, "step_size", "needs it"),
    ({"decay": "step", "step_size": 5}, "gamma", "needs it"),
    ({"decay": "step", "step_size": 0, "gamma": 0.5}, "step_size", "at least 1"),
    ({"decay": "step", "step_size": 5, "gamma": 1.0}, "gamma", "less than 1"),
    ({"decay": "step", "step_size": 5, "gamma": 0.0}, "gamma", "greater than 0"),
    ({"decay": "multistep", "gamma": 0.5}, "milestones", "needs it"),
    ({"decay": "multistep", "gamma": 0.5, "milestones": ()}, "milestones", "strictly increasing"),
    ({"decay": "multistep", "gamma": 0.5, "milestones": (4, 2)}, "milestones", "strictly increasing"),
    ({"decay": "multistep", "gamma": 0.5, "milestones": (4, 4)}, "milestones", "strictly increasing"),
    ({"decay": "wsd"}, "decay_frac", "needs it"),
    ({"decay": "wsd", "decay_frac": 0.0}, "decay_frac", "greater than 0"),
    ({"decay": "inverse_sqrt", "timescale": 0.0}, "timescale", "at least 1"),
    ({"decay": "cosine_restarts"}, "cycles", "needs it"),
    ({"decay": "cosine_restarts", "cycles": 0}, "cycles", "at least 1"),
    ({"decay": "cosine_restarts", "cycles": 2, "cycle_mult": 0.0}, "cycle_mult", "greater than 0"),
    ({"decay": "triangular", "cycles": 2}, "min_ratio", "needs it"),
    ({"decay": "triangular", "cycles": 2, "min_ratio": 0.0}, "min_ratio", "greater than 0"),
    ({"decay": "triangular", "min_ratio": 0.1}, "cycles", "needs it"),
    (
        {"decay": "triangular", "cycles": 2, "min_ratio": 0.1, "warmup_steps": 3},
        "warmup_steps",
        "no warmup: each cycle rises by itself",
    ),
    ({"decay": "piecewise"}, "points", "needs it"),
    ({"decay": "piecewise", "points": ()}, "points", "begin at update 0"),
    ({"decay": "piecewise", "points": ((1, 1.0),)}, "points", "begin at update 0"),
    ({"decay": "piecewise", "points": ((0, 1.0), (0, 0.5))}, "points", "strictly increasing"),
    ({"decay": "piecewise", "points": ((0, 1.0), (5, 0.5), (3, 0.1))}, "points", "strictly increasing"),
    ({"decay": "piecewise", "points": ((0, 0.0), (5, 0.5))}, "points", "first greater than 0"),
    ({"decay": "piecewise", "points": ((0, 1.0), (5, -0.5))}, "points", "none negative"),
    ({"decay": "piecewise", "points": ((0, 1.0), (5, math.nan))}, "points", "finite"),
    ({"decay": "piecewise", "points": ((0, 1.0),), "warmup_steps": 2}, "warmup_steps", "no warmup"),
    ({"peak": 5e-4, "decay": "piecewise", "points": ((0, 1e-3), (5, 1e-4))}, "peak", "the first 0.001; give no base"),
    ({"peak": 3e-4, "decay": "piecewise", "points": ((0, 1e-3), (5, 1e-4))}, "peak", "the first 0.001; give no base"),
    ({"peak": math.nan, "decay": "piecewise", "points": ((0, 1e-3), (5, 1e-4))}, "peak", "finite"),
    # Rates are float32 where they are used: the largest is 3.4e38, half of the smallest, 1.4e-45, rounds to 0.
    ({"peak": 1e39}, "peak", "a number in float32: from 1.4e-45 to 3.4e+38"),
    ({"peak": 1e-46}, "peak", "a number in float32"),
    ({"decay": "piecewise", "points": ((0, 1e-3), (5, 1e39))}, "points", "in float32: up to 3.4e+38"),
    ({"decay": "piecewise", "points": ((0, 1e-46), (5, 1e-3))}, "points", "the first at least 1.4e-45"),
    ({"warmup_steps": "5"}, "warmup_steps", "is text"),
]

DOES_NOT_FIT = [
    ({"warmup_steps": 10}, "warmup_steps"),
    ({"warmup_frac": 0.95}, "warmup_frac"),
    ({"delay": 10}, "delay"),
    ({"delay": 5, "warmup_steps": 5}, "warmup_steps"),
    ({"decay": "wsd", "decay_frac": 0.8, "warmup_steps": 3}, "decay_frac"),
    ({"decay": "multistep", "gamma": 0.5, "milestones": (2, 5), "warmup_steps": 2}, "milestones"),
    ({"decay": "cosine_restarts", "cycles": 11}, "cycles"),
    ({"decay": "triangular", "cycles": 6, "min_ratio": 0.1}, "cycles"),
    ({"decay": "cosine_restarts", "cycles": 5, "cycle_mult": 1e9}, "cycles"),
    ({"decay": "cosine_restarts", "cycles": 9, "cycle_mult": 1e300}, "cycles"),
]


class TestBadInput:
    @pytest.mark.parametrize(("parameters", "name", "allowed"), BAD, ids=[f"{p}" for p, _, _ in BAD])
    def test_is_refused_by_name(self, parameters: dict[str, object], name: str, allowed: str) -> None:
        with pytest.raises(ConfigError) as error:
            ScheduleConfig(**parameters)  # type: ignore[arg-type]
        assert error.value.name == name
        assert allowed in error.value.allowed

    @pytest.mark.parametrize(("parameters", "name"), DOES_NOT_FIT, ids=[f"{p}" for p, _ in DOES_NOT_FIT])
    def test_what_does_not_fit_into_ten_updates(self, parameters: dict[str, object], name: str) -> None:
        config = ScheduleConfig(**parameters)  # type: ignore[arg-type]
        with pytest.raises(ConfigError) as error:
            make_schedule(config, 10)
        assert error.value.name == name

    def test_an_update_before_the_first(self) -> None:
        with pytest.raises(ValueError, match="update = -1"):
            make_schedule(ScheduleConfig(), 5)(-1)

    def test_no_updates_at_all(self) -> None:
        with pytest.raises(ConfigError, match="total_updates = 0"):
            make_schedule(ScheduleConfig(), 0)


class TestSwitch:
    @pytest.mark.parametrize(("environment", "expected"), [({}, True), ({"ESPER_LR_SCHEDULE": "on"}, True)])
    def test_on(self, environment: dict[str, str], expected: bool) -> None:
        assert schedules_enabled(environment) is expected

    def test_off(self) -> None:
        assert not schedules_enabled({"ESPER_LR_SCHEDULE": "off"})

    @pytest.mark.parametrize("value", ["", "OFF", "0", "false", "none"])
    def test_anything_else_is_an_error(self, value: str) -> None:
        with pytest.raises(ConfigError, match="must be on or off"):
            schedules_enabled({"ESPER_LR_SCHEDULE": value})
