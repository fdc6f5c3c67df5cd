"""What holds for one update: rates and phases by parameter group, coefficients, and what a checkpoint holds of them."""

import dataclasses
from typing import Any

import pytest

from esper.schedules import CoefficientConfig, FeedbackConfig, LimitConfig, ScheduleConfig
from esper.settings.options import ConfigError
from esper.simic.config import PPOConfig
from esper.simic.rates import Horizon, RateSchedules

# Over 4 updates the policy has a delay, then 3/4 of 8; the value falls by 1 an update from 4.
POLICY = ScheduleConfig(peak=8.0, delay=1, warmup_steps=1, warmup_start_ratio=0.5)
VALUE = ScheduleConfig(peak=4.0, decay="linear")
CLIP = CoefficientConfig(peak=0.4, decay="linear", min_ratio=0.5)
ENTROPY = CoefficientConfig(peak=0.01, delay=2)
APART, TOGETHER = ("policy", "value"), ("policy", "value", "shared")


def schedules(groups: tuple[str, ...] = APART, start: int = 0, updates: int = 4, **settings: Any) -> RateSchedules:
    config = PPOConfig(policy_lr=POLICY, value_lr=VALUE, clip_coef=CLIP, entropy_coef=ENTROPY, **settings)
    return RateSchedules(config, groups, Horizon(start=start, updates=updates))


def test_each_group_and_coefficient_has_its_own_schedule() -> None:
    seen = [schedules().at(update) for update in range(4)]
    assert [rates.learning_rates for rates in seen] == [
        {"policy": 0.0, "value": 4.0},
        {"policy": 6.0, "value": 3.0},
        {"policy": 8.0, "value": 2.0},
        {"policy": 8.0, "value": 1.0},
    ]
    assert [rates.phases for rates in seen] == [
        {"policy": policy, "value": "decay"} for policy in ("delay", "warmup", "constant", "constant")
    ]
    # From 0.4 down to half of it, a quarter of the way an update.
    assert [rates.coefficients["clip_coef"] for rates in seen] == pytest.approx([0.4, 0.35, 0.3, 0.25])
    assert [rates.coefficients["entropy_coef"] for rates in seen] == [0.0, 0.0, 0.01, 0.01]


def test_the_horizon_says_where_the_clock_begins_and_how_long_it_runs() -> None:
    assert schedules(start=100).at(103) == schedules().at(3)
    # Twice as long: the value falls by half as much an update.
    assert schedules(start=100, updates=8).at(103).learning_rates["value"] == 2.5
    assert schedules(start=100).at(200).learning_rates == {"policy": 8.0, "value": 0.0}


@pytest.mark.parametrize(
    ("owner", "rates", "phases"),
    [
        ("policy", [0.0, 6.0, 8.0, 8.0], ["delay", "warmup", "constant", "constant"]),
        ("value", [4.0, 3.0, 2.0, 1.0], ["decay"] * 4),
        ("min", [0.0, 3.0, 2.0, 1.0], ["delay", "decay", "decay", "decay"]),
    ],
)
def test_a_shared_trunk_has_the_rate_and_the_phase_of_its_owner(
    owner: str, rates: list[float], phases: list[str]
) -> None:
    seen = [schedules(TOGETHER, start=7, shared_lr=owner).at(update) for update in range(7, 11)]
    assert [at.learning_rates["shared"] for at in seen] == rates
    assert [at.phases["shared"] for at in seen] == phases
    assert seen[1].learning_rates == {"policy": 6.0, "value": 3.0, "shared": rates[1]}


def test_without_a_shared_trunk_its_owner_does_not_matter() -> None:
    assert schedules(shared_lr="min").at(1) == schedules(shared_lr="policy").at(1)


def test_what_the_schedules_were_resolved_to() -> None:
    constant = {"decay": "constant", "decay_end": None}
    linear = {"decay": "linear", "delay": 0, "warmup": 0, "decay_start": 0, "decay_end": 4}
    assert schedules().resolved() == {
        "policy_lr": constant | {"peak": 8.0, "floor": 8.0, "delay": 1, "warmup": 1, "decay_start": 2},
        "value_lr": linear | {"peak": 4.0, "floor": 0.0},
        "clip_coef": linear | {"peak": 0.4, "floor": 0.2},
        "entropy_coef": constant | {"peak": 0.01, "floor": 0.01, "delay": 2, "warmup": 0, "decay_start": 2},
        "value_coef": constant | {"peak": 0.5, "floor": 0.5, "delay": 0, "warmup": 0, "decay_start": 0},
    }


def test_what_a_checkpoint_holds() -> None:
    state = schedules(TOGETHER, start=10, shared_lr="min").state(11)
    assert (state["start"], state["updates"]) == (10, 4)
    assert state["resolved"] == schedules().resolved()
    assert state["next"].pop("clip_coef") == pytest.approx(0.35)
    assert state["next"] == {
        "policy_lr": 6.0,
        "value_lr": 3.0,
        "shared_lr": 3.0,
        "entropy_coef": 0.0,
        "value_coef": 0.5,
    }
    assert state["next_phase"] == {"policy_lr": "warmup", "value_lr": "decay", "shared_lr": "decay"}
    assert set(state) == {"start", "updates", "resolved", "next", "next_phase"}


def test_a_schedule_longer_than_the_horizon_is_refused_by_the_name_of_its_setting() -> None:
    with pytest.raises(ConfigError, match="policy_lr_warmup_steps = 1: "):
        schedules(updates=2)


def test_limits_have_schedules_where_there_are_limits() -> None:
    # From 0.2 to half of it, an eighth of the way an update; from 0.03 by a third of a third.
    limits: dict[str, Any] = {
        "value_clip_coef": LimitConfig(peak=0.2, decay="linear", min_ratio=0.5),
        "target_kl": LimitConfig(peak=0.03, decay="piecewise", points=((0, 0.03), (3, 0.01))),
    }
    seen = [schedules(value_coef=0.25, **limits).at(update).coefficients for update in (0, 2)]
    assert seen[0] == pytest.approx({"value_clip_coef": 0.2, "target_kl": 0.03, **others(0.4, 0.0)})
    assert seen[1] == pytest.approx({"value_clip_coef": 0.15, "target_kl": 0.05 / 3, **others(0.3, 0.01)})
    assert not {"value_clip_coef", "target_kl"} & set(schedules().resolved())


def others(clip: float, entropy: float) -> dict[str, float]:
    return {"clip_coef": clip, "entropy_coef": entropy, "value_coef": 0.25}


@pytest.mark.parametrize(
    ("settings", "name", "message"),
    [
        ({"target_kl": 0.0}, "target_kl", "greater than 0"),
        ({"target_kl": "0.1"}, "target_kl", "must be a LimitConfig, a number"),
        ({"value_coef": None}, "value_coef", "must be a CoefficientConfig, a number"),
        ({"value_coef": -0.1}, "value_coef", "at least 0"),
        ({"policy_lr": True}, "policy_lr", "must be a ScheduleConfig, a number"),
        ({"value_coef": ScheduleConfig()}, "value_coef", "must be a CoefficientConfig, a number"),
    ],
)
def test_what_is_no_schedule_is_refused(settings: dict[str, object], name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        PPOConfig(**settings)  # type: ignore[arg-type]
    assert caught.value.name == name


def test_a_limit_that_is_off_takes_no_parameters() -> None:
    with pytest.raises(ConfigError, match="needs a base value"):
        LimitConfig(decay="linear")
    with pytest.raises(ConfigError, match="delay = 2: must be 0"):
        LimitConfig(peak=0.1, delay=2)


def test_limits_take_functions() -> None:
    config = PPOConfig(target_kl=lambda update: 0.1 / (1 + update), value_clip_coef=None, total_timesteps=4096)
    assert config.value_clip_coef.is_off
    assert not config.target_kl.is_off
    seen = RateSchedules(config, APART, Horizon(updates=4)).at(3).coefficients
    assert seen["target_kl"] == 0.1 / 4
    assert "value_clip_coef" not in seen
    # The lowest value is the last one, 0.1 / 4 in update 3.
    with pytest.raises(ConfigError, match=r"policy_lr_kl_target = 0\.03: .* whose lowest value is 0\.025"):
        dataclasses.replace(config, policy_lr_kl=FeedbackConfig(target=0.03))
