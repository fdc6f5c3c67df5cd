"""Functions as schedules: what they give, what they must not give, and what cannot stand beside them."""

from __future__ import annotations

import dataclasses
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from esper.runs.config import RunConfig
from esper.runs.layers import Layer, SettingsError, recorded, resolve
from esper.schedules import Function, ScheduleConfig, make_schedule
from esper.settings.options import ConfigError
from esper.simic import PPOConfig
from esper.simic.rates import Horizon, RateSchedules, tables

MODULE = """
calls = []

def halves(total):
    calls.append(total)
    return lambda update: 8.0 * 0.5 ** (4 * update // total)

def raises(total):
    raise RuntimeError("no such curve")

def rate(update):
    return 1e-3

class Family:
    @staticmethod
    def level(total):
        return lambda update: 2.0
"""


def thirds(update: int) -> float:
    return float(9.0 / 3**update)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module `curves`, not yet imported; returns how often it was asked for a curve."""
    (tmp_path / "curves.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "curves", raising=False)
    yield lambda: sys.modules["curves"].calls if "curves" in sys.modules else None
    sys.modules.pop("curves", None)


def given(decay: Any, **others: Any) -> ScheduleConfig:
    return ScheduleConfig(decay=decay, **others)


class TestRates:
    @pytest.mark.parametrize("decay", ["curves:halves", lambda update: 1e-3], ids=["path", "function"])
    def test_too_many_updates_are_refused_before_any_rate_is_asked_for(self, module: Any, decay: Any) -> None:
        allowed = "gives each rate apart, for at most 4,000,000 updates; this run has 1,000,000,000"
        with pytest.raises(ConfigError, match=allowed):
            make_schedule(given(decay), 10**9)
        assert not module()

    def test_are_what_the_function_gives_and_the_last_one_past_the_end(self) -> None:
        schedule = make_schedule(given(thirds), 3)
        assert [schedule(update) for update in (0, 1, 2, 3, 100)] == [9.0, 3.0, 1.0, 1.0, 1.0]
        assert schedule.table() == [(0, 9.0, "custom"), (1, 3.0, "custom"), (2, 1.0, "custom")]
        assert schedule.phase(100) == "custom"
        assert (schedule.floor, schedule.decay_start, schedule.decay_end, schedule.warmup) == (1.0, 0, 3, 0)
        assert schedule.beyond_end() == []

    def test_are_asked_for_once_each(self) -> None:
        asked = []

        def rate(update: int) -> float:
            asked.append(update)
            return 1.0

        config = PPOConfig(total_timesteps=4, num_envs=1, num_steps=1, num_minibatches=1, policy_lr=rate, **FREE)
        RateSchedules(config, ("policy", "value"), Horizon(updates=4)).at(2)
        assert tables(config, Horizon(updates=4)) == {"policy_lr": (1.0, 1.0, 1.0, 1.0)}
        assert asked == [0, 1, 2, 3]

    def test_may_be_any_real_numbers(self) -> None:
        for number in (1, np.float32(1.0), np.float64(1.0), np.int64(1), Fraction(1)):
            (rate,) = (make_schedule(given(lambda update, number=number: number), 1)(0),)
            assert type(rate) is float
            assert rate == 1.0
        assert make_schedule(given(lambda update: 0), 1)(0) == 0.0

    def test_are_absolute(self) -> None:
        schedule = make_schedule(given(thirds, peak=5.0), 3)
        assert schedule(0) == 9.0
        with pytest.raises(ConfigError, match=r"^decay = custom: gives absolute rates: there is no ratio"):
            schedule.ratio(0)

    def test_of_a_schedule_as_function(self) -> None:
        inner = make_schedule(ScheduleConfig(peak=8.0, decay="linear"), 4)
        assert [make_schedule(given(inner), 4)(update) for update in range(4)] == [8.0, 6.0, 4.0, 2.0]


@pytest.mark.parametrize(
    ("rate", "shown"),
    [
        (-0.5, "-0.5"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (10**400, "1000"),
        (1e39, "1e.39"),
        (None, "None"),
        (1j, "1j"),
        (True, "True"),
        ("1e-3", "'1e-3'"),
        (torch.tensor(1e-3), "tensor"),
        ([1e-3], r"\[0.001\]"),
    ],
)
def test_what_is_no_rate_is_named_with_its_update(rate: object, shown: str) -> None:
    with pytest.raises(ConfigError, match=rf"^decay = custom: gives {shown}.* for update 2; a rate must be a number"):
        make_schedule(given(lambda update: rate if update == 2 else 1.0), 4)


class TestWhatCannotBeCalled:
    def test_a_function_that_raises(self) -> None:
        message = r"^decay = custom: raised ZeroDivisionError: .*, called for update 0$"
        with pytest.raises(ConfigError, match=message) as error:
            make_schedule(given(lambda update: 1 / update), 4)
        assert isinstance(error.value.__cause__, ZeroDivisionError)

    @pytest.mark.parametrize("function", [lambda: 1.0, lambda update, total: 1.0, lambda *, update: 1.0])
    def test_a_function_with_another_signature(self, function: Any) -> None:
        with pytest.raises(ConfigError, match=r"^decay = custom: raised TypeError: .*argument.*, called for update 0$"):
            make_schedule(given(function), 4)

    @pytest.mark.parametrize(
        ("decay", "message"),
        [
            ("no_such:halves", "cannot be loaded: No module named 'no_such'"),
            ("curves:none", "cannot be loaded: module 'curves' has no attribute 'none'"),
            ("curves:raises", "raised RuntimeError: no such curve, called with 4, the number of updates"),
            ("curves:rate", "is called with the number of updates and must return a function of the update, not 0.001"),
            ("custom", "stands for a function that was given in Python and is not stored; give it again"),
        ],
    )
    @pytest.mark.usefixtures("module")
    def test_a_name_that_leads_to_none(self, decay: str, message: str) -> None:
        with pytest.raises(ConfigError) as error:
            make_schedule(given(decay), 4)
        assert str(error.value) == f"decay = {decay}: {message}"

    @pytest.mark.parametrize("decay", ["a:", ":b", "a:b:c", "a b:c", "customs"])
    def test_text_that_is_no_name(self, decay: str) -> None:
        with pytest.raises(ConfigError, match=r"must be one of constant, .*, triangular or module:function"):
            given(decay)


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"warmup_steps": 2}, "warmup_steps = 2: decay 'custom' has no warmup: the function gives every rate"),
        ({"warmup_frac": 0.1}, "warmup_frac = 0.1: decay 'custom' has no warmup: the function gives every rate"),
        ({"warmup_timesteps": 9}, "warmup_timesteps = 9: decay 'custom' has no warmup: the function gives every rate"),
        ({"delay": 2}, "delay = 2: decay 'custom' has no delay: the function gives every rate"),
        ({"min_ratio": 0.1}, "min_ratio = 0.1: decay 'custom' does not use it; it uses none of the decay parameters"),
        ({"decay_steps": 9}, "decay_steps = 9: decay 'custom' does not use it; it uses none of the decay parameters"),
        ({"power": 2.0}, "power = 2: decay 'custom' does not use it; it uses none of the decay parameters"),
        ({"peak": 0.0}, "peak = 0: must be finite and greater than 0"),
    ],
)
def test_what_cannot_stand_beside_a_function(others: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        given(thirds, **others)
    assert str(error.value) == message
    with pytest.raises(ConfigError) as error:
        given("curves:halves", **others)
    assert str(error.value) == message.replace("custom", "curves:halves")


class TestImportPath:
    def test_is_imported_when_rates_are_needed_and_called_once_with_the_number_of_updates(self, module: Any) -> None:
        config = PPOConfig(total_timesteps=8192, policy_lr=given("curves:halves"), value_lr=1e-3)
        assert module() is None
        schedules = RateSchedules(config, ("policy", "value"), Horizon(updates=8))
        assert [schedules.at(update).learning_rates["policy"] for update in (0, 2, 7, 99)] == [8.0, 4.0, 1.0, 1.0]
        config.make_schedule("policy_lr", 8)
        assert module() == [8]
        assert schedules.resolved()["policy_lr"]["function"] == "curves:halves"

    @pytest.mark.usefixtures("module")
    def test_may_lead_into_a_class(self) -> None:
        assert make_schedule(given("curves:Family.level"), 4)(0) == 2.0

    def test_of_a_function_of_python_is_recorded_where_it_has_one(self) -> None:
        def path(function: Any) -> str | None:
            shape = given(function).shape
            return shape.function.path  # type: ignore[attr-defined, no-any-return]

        assert path(thirds) == f"{__name__}:thirds"
        assert path(lambda update: 1.0) is None
        # A method of one object, and an object that can be called.
        assert path([1.0, 2.0].__getitem__) is None
        assert path(make_schedule(ScheduleConfig(), 3)) is None


FREE: dict[str, Any] = {"normalize_advantages": False}


class TestSettings:
    """Functions and numbers where schedules are."""

    def test_of_the_learner_take_numbers_and_functions(self) -> None:
        config = PPOConfig(policy_lr=thirds, value_lr=2e-3, clip_coef=0.3, entropy_coef=lambda update: 0.0)
        assert config.value_lr == ScheduleConfig(peak=2e-3)
        assert config.clip_coef.peak == 0.3
        assert config.policy_lr.peak is None
        schedules = RateSchedules(config, ("policy", "value"), Horizon(updates=3))
        rates = schedules.at(1)
        assert (rates.learning_rates, rates.coefficients["entropy_coef"]) == ({"policy": 3.0, "value": 2e-3}, 0.0)
        assert rates.phases == {"policy": "custom", "value": "constant"}

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"policy_lr": "1e-3"}, "policy_lr = 1e-3: must be a ScheduleConfig, a number, or a function of the"),
            ({"value_lr": True}, "value_lr = true: must be a ScheduleConfig, a number, or a function of the"),
            ({"clip_coef": None}, "clip_coef = none: must be a CoefficientConfig, a number, or a function of the"),
            ({"value_lr": -1e-3}, "value_lr = -0.001: must be finite and greater than 0"),
            ({"value_lr": lambda update: -1.0}, "value_lr_decay = custom: gives -1.0 for update 0; a rate must be"),
        ],
    )
    def test_of_the_learner_are_named_in_errors(self, settings: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError) as error:
            PPOConfig(**settings)
        assert str(error.value).startswith(message)

    def test_take_a_function_from_a_layer_in_place_of_a_shape(self) -> None:
        weaker = {"lr": 1e-3, "lr_decay": "step", "lr_step_size": 5, "lr_gamma": 0.5}
        layers = [Layer(source="file", values=weaker), Layer(source="code", values={"value_lr_decay": thirds})]
        ppo = resolve(layers).config.ppo
        assert (ppo.policy_lr.decay, ppo.value_lr.gamma) == ("step", None)
        # The base rate stays: it is what the switch holds.
        assert (ppo.value_lr.peak, ppo.without_lr_schedules().value_lr) == (1e-3, ScheduleConfig(peak=1e-3))

    def test_are_recorded_by_name(self) -> None:
        config = RunConfig(ppo=PPOConfig(policy_lr=thirds, value_lr=given("curves:halves", peak=1e-3)))
        names = recorded(config)
        assert (names["policy_lr"], names["policy_lr_decay"]) == (None, "custom")
        assert (names["value_lr"], names["value_lr_decay"]) == (1e-3, "curves:halves")
        named = {name: value for name, value in names.items() if not name.startswith("policy_lr")}
        again = resolve([Layer(source="config.json", values=named)])
        assert again.config.ppo.value_lr == config.ppo.value_lr
        with pytest.raises(SettingsError, match="policy_lr_decay = custom: stands for a function that was given in"):
            resolve([Layer(source="config.json", values=names)])

    def test_without_a_base_rate_have_none_by_default(self) -> None:
        for values in ({"lr_decay": "curves:halves"}, {"lr_decay": thirds}):
            ppo = resolve([Layer(source="code", values=values)]).config.ppo
            peaks: list[object] = [ppo.policy_lr.peak, ppo.value_lr.peak]
            assert peaks == [None, None]
        assert resolve([Layer(source="code", values={"lr_decay": "linear"})]).config.ppo.policy_lr.peak == 3e-4


class TestSwitch:
    def test_holds_the_base_rate_beside_a_function(self) -> None:
        config = PPOConfig(policy_lr=given(thirds, peak=5e-4), value_lr=1e-3).without_lr_schedules()
        assert config.make_schedule("policy_lr", 3).table() == [(update, 5e-4, "constant") for update in range(3)]

    def test_is_an_error_without_one(self) -> None:
        config = PPOConfig(policy_lr=1e-3, value_lr=thirds)
        message = "^value_lr_decay = custom: has no base rate beside it for ESPER_LR_SCHEDULE=off to hold$"
        with pytest.raises(ConfigError, match=message):
            config.without_lr_schedules()


class TestTable:
    """What a run that goes on has of its function."""

    def test_gives_the_rates_whatever_the_length_of_the_run(self) -> None:
        stored = Function(name="no_such:curve", table=(3.0, 2.0))
        for total in (1, 2, 5):
            schedule = make_schedule(given(stored), total)
            assert [schedule(update) for update in range(4)] == [3.0, 2.0, 2.0, 2.0]
            assert schedule.phase(0) == "custom"

    @pytest.mark.parametrize("table", [(), (1.0, -1.0), (float("nan"),)])
    def test_of_what_is_no_rate_is_refused(self, table: tuple[float, ...]) -> None:
        with pytest.raises(ConfigError, match="a rate"):
            Function(table=table)

    def test_has_the_name_of_a_function(self) -> None:
        with pytest.raises(ConfigError, match=r"^decay = linear: must be module:function$"):
            Function(name="linear", table=(1.0,))

    def test_of_the_same_function_makes_the_same_config(self) -> None:
        assert given(thirds) == given(thirds)
        assert len({given(thirds), given(thirds), given(len)}) == 2
        assert dataclasses.replace(given(thirds), peak=1.0) != given(thirds)
