"""The life of a seed, its reward, and what a policy may do and sees, without a network."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from esper.envs.growth.config import GrowthConfig
from esper.envs.growth.masks import action_mask, effective
from esper.envs.growth.observation import LIMIT, names, observation
from esper.envs.growth.reward import attributed, reward_of
from esper.envs.growth.settings import config_of
from esper.envs.growth.stages import (
    Action,
    Blend,
    Host,
    Operation,
    Slot,
    Stage,
    act,
    advance,
    alpha_at,
    closed,
    measured,
)
from esper.settings.options import ConfigError

CONFIG = GrowthConfig()


def host(*slots: Slot, accuracy: float = 80.0, seed_parameters: int = 0, diverged: bool = False) -> Host:
    return Host(
        epoch=4,
        train_loss=0.5,
        train_accuracy=82.0,
        val_losses=(2.3, 1.5, 1.0, 0.75, 0.5),
        val_accuracies=(10.0, 50.0, 70.0, 84.0, accuracy),
        slots=(*slots, *[Slot()] * (3 - len(slots))),
        parameters=1000,
        seed_parameters=seed_parameters,
        diverged=diverged,
    )


def test_a_seed_lives_through_all_stages() -> None:
    germinate = Action(operation=Operation.GERMINATE, slot=0, blueprint=2)
    slot = act(Slot(), germinate, 60.0, CONFIG)
    assert (slot.stage, slot.blueprint, slot.alpha, slot.planted_at) == (Stage.GERMINATED, 2, 0.0, 60.0)

    seen = []
    for accuracy in (61.0, 61.2, 61.4, 61.6, 62.0, 63.0, 64.0, 65.0, 66.0, 67.0):
        contribution = 1.5 if slot.alpha else None
        slot = advance(measured(slot, accuracy, contribution, gradient_ratio=0.2), accuracy, CONFIG)
        seen.append((slot.stage, round(slot.alpha, 2)))
    # One epoch planted, three of training: from 61.0 to 61.6 are 0.6 of 0.5 points. Then five steps to alpha 1.
    blending = [(Stage.BLENDING, alpha) for alpha in (0.2, 0.4, 0.6, 0.8, 1.0)]
    assert seen == [*[(Stage.TRAINING, 0.0)] * 3, *blending, (Stage.HOLDING, 1.0), (Stage.HOLDING, 1.0)]
    assert slot.age == 10

    slot = act(slot, Action(operation=Operation.FOSSILIZE), 67.0, CONFIG)
    assert slot.stage is Stage.FOSSILIZED
    assert act(slot, Action(operation=Operation.CULL), 67.0, CONFIG) == slot


def test_the_slot_of_a_culled_seed_stays_empty_for_two_epochs() -> None:
    slot = act(Slot(stage=Stage.BLENDING, blueprint=1, alpha=0.4), Action(operation=Operation.CULL), 50.0, CONFIG)
    assert (slot.stage, slot.blueprint, slot.alpha) == (Stage.CULLED, 0, 0.0)
    slot = advance(measured(slot, 51.0, None, 0.0), 51.0, CONFIG)
    assert slot.stage is Stage.CULLED
    assert advance(measured(slot, 52.0, None, 0.0), 52.0, CONFIG) == Slot()


@pytest.mark.parametrize(
    ("slot", "says"),
    [
        (Slot(stage=Stage.TRAINING, stage_epochs=2, improvement=0.5, gradient_ratio=0.05), "2 of 3 epochs"),
        (Slot(stage=Stage.TRAINING, stage_epochs=3, improvement=0.4, gradient_ratio=0.05), "gained 0.4 of 0.5 points"),
        (
            Slot(stage=Stage.TRAINING, stage_epochs=3, improvement=0.5, gradient_ratio=0.04),
            "gradient ratio 0.04 of 0.05",
        ),
        (Slot(stage=Stage.BLENDING, stage_epochs=3, alpha=0.94), "alpha 0.94 of 0.95"),
        (Slot(stage=Stage.BLENDING, stage_epochs=2, alpha=0.95), "2 of 3 epochs"),
        (Slot(stage=Stage.HOLDING, contribution=0.9), "contributes 0.9 of 1 points"),
        (Slot(stage=Stage.HOLDING, contribution=None), "contributes -inf of 1 points"),
    ],
)
def test_a_closed_gate_says_what_is_missing(slot: Slot, says: str) -> None:
    assert closed(slot, CONFIG) == (says,)


@pytest.mark.parametrize(
    "slot",
    [
        Slot(stage=Stage.GERMINATED),
        Slot(stage=Stage.TRAINING, stage_epochs=3, improvement=0.5, gradient_ratio=0.05),
        Slot(stage=Stage.BLENDING, stage_epochs=3, alpha=0.95),
        Slot(stage=Stage.HOLDING, contribution=1.0),
    ],
)
def test_a_gate_opens_at_its_bound(slot: Slot) -> None:
    assert not closed(slot, CONFIG)


def test_alpha_rises_to_one() -> None:
    assert [alpha_at(Blend.LINEAR, step, 5) for step in range(7)] == [0, 0.2, 0.4, 0.6, 0.8, 1, 1]
    # The logistic function at -6 + 12 * step / 5: 0.002473, 0.026597, 0.231475, 0.768525, 0.973403, 0.997527;
    # stretched from [0.002473, 0.997527] to [0, 1].
    sigmoid = [alpha_at(Blend.SIGMOID, step, 5) for step in range(6)]
    assert sigmoid == pytest.approx([0, 0.024244, 0.230141, 0.769859, 0.975756, 1], abs=2e-6)


def test_a_gated_blend_waits_for_gradients() -> None:
    slot = Slot(stage=Stage.BLENDING, blueprint=1, blend=Blend.GATED, alpha=0.4, steps=2)
    still = advance(measured(slot, 50.0, 0.0, gradient_ratio=0.01), 50.0, CONFIG)
    assert (still.alpha, still.steps, still.stage_epochs) == (0.4, 2, 1)
    further = advance(measured(still, 50.0, 0.0, gradient_ratio=0.05), 50.0, CONFIG)
    assert (further.alpha, further.steps) == (0.6, 3)


def test_masks_leave_what_can_be_done() -> None:
    def parts(of: Host) -> list[list[int]]:
        mask = action_mask(of, CONFIG).astype(int)
        return [part.tolist() for part in np.split(mask, [3, 8, 11])]

    assert parts(host()) == [[1, 1, 1], [0, 1, 1, 1, 1], [1, 1, 1], [1, 1, 0, 0]]
    grown = (
        Slot(stage=Stage.FOSSILIZED, blueprint=1),
        Slot(stage=Stage.HOLDING, blueprint=2, contribution=0.5),
        Slot(stage=Stage.CULLED),
    )
    # Nothing can be planted, and the second seed does not contribute enough.
    assert parts(host(*grown)) == [[0, 1, 0], [1, 0, 0, 0, 0], [1, 0, 0], [1, 0, 1, 0]]
    contributes = dataclasses.replace(grown[1], contribution=1.0)
    assert parts(host(grown[0], contributes, grown[2]))[3] == [1, 0, 1, 1]
    # Waiting is all that is left, in any slot.
    done = parts(host(*[grown[0]] * 3))
    assert done == [[1, 1, 1], [1, 0, 0, 0, 0], [1, 0, 0], [1, 0, 0, 0]]


def test_an_action_that_its_slot_cannot_do_waits() -> None:
    of = host(Slot(stage=Stage.TRAINING, blueprint=1))
    germinate = Action(operation=Operation.GERMINATE, slot=1, blueprint=3, blend=Blend.SIGMOID)
    assert effective(germinate, of, CONFIG) == germinate
    assert effective(dataclasses.replace(germinate, slot=0), of, CONFIG) == Action()
    assert effective(dataclasses.replace(germinate, blueprint=0), of, CONFIG) == Action()
    assert Action.of(germinate.numbers) == germinate


def test_the_terms_of_a_reward() -> None:
    seed = Slot(stage=Stage.BLENDING, blueprint=4, alpha=0.4, planted_at=71.0, contribution=4.0)
    before, after = host(Slot(stage=Stage.TRAINING)), host(seed, accuracy=80.0, seed_parameters=1000)
    terms = reward_of(before, Action(), after, ended=False, config=CONFIG).terms
    assert terms == pytest.approx(
        {
            "contribution": 0.1 * 4,  # less than the progress of 9 points
            "shaping": 0.3 * (0.99 * 3.5 - 2),
            "rent": -0.5 * math.log(2),
            "operation": 0,
            "accuracy": 0,
            "fossils": 0,
        }
    )
    fossil = dataclasses.replace(seed, stage=Stage.FOSSILIZED, contribution=16.0)
    useless = Slot(stage=Stage.FOSSILIZED, planted_at=71.0, contribution=-2.0)
    last = host(fossil, useless, accuracy=80.0, seed_parameters=10**12)
    terms = reward_of(after, Action(operation=Operation.FOSSILIZE), last, ended=True, config=CONFIG).terms
    assert terms == pytest.approx(
        {
            "contribution": 0.1 * (12 - 2),  # 12 is the geometric mean of 16 and the progress of 9
            "shaping": 0.3 * (0 - 3.5),
            "rent": -8,
            "operation": -0.01,
            "accuracy": 0.05 * 80,
            "fossils": 3,
        }
    )


def test_without_progress_nothing_is_put_down_to_a_seed() -> None:
    slot = Slot(stage=Stage.HOLDING, planted_at=85.0, contribution=30.0)
    assert attributed(slot, host(slot, accuracy=80.0)) == 0
    assert attributed(dataclasses.replace(slot, stage=Stage.TRAINING), host(slot, accuracy=90.0)) == 0


def test_sparse_rewards_come_at_the_end() -> None:
    config, of = GrowthConfig(reward="sparse"), host(accuracy=80.0, seed_parameters=1000)
    assert reward_of(of, Action(operation=Operation.CULL), of, ended=False, config=config).total == 0
    assert reward_of(of, Action(), of, ended=True, config=config).total == pytest.approx(0.05 * 80 - 0.5 * math.log(2))


@pytest.mark.parametrize("mode", ["shaped", "sparse"])
def test_a_host_that_diverged_earns_nothing(mode: Any) -> None:
    fossil = Slot(stage=Stage.FOSSILIZED, contribution=50.0)
    lost = host(fossil, accuracy=90.0, diverged=True)
    config = GrowthConfig(reward=mode, shaping_weight=0)
    assert reward_of(lost, Action(), lost, ended=True, config=config).total == 0


def test_an_observation_has_a_name_for_each_number() -> None:
    seed = Slot(
        stage=Stage.HOLDING, blueprint=4, alpha=1.0, age=10, improvement=5.0, contribution=2.0, gradient_ratio=0.3
    )
    seen = dict(zip(names(CONFIG), observation(host(Slot(), seed, seed_parameters=500), CONFIG).tolist(), strict=True))
    assert len(seen) == 80
    expected = {
        "epoch": 4 / 25,
        "val_loss": 0.5,
        "val_loss_1_ago": 0.75,
        "val_loss_5_ago": 2.3,
        "val_accuracy": 0.8,
        "gain": -0.4,
        "best_accuracy": 0.84,
        "epochs_since_best": 1 / 25,
        "seed_parameters": 0.5,
        "early.is_dormant": 1,
        "mid.is_dormant": 0,
        "mid.is_holding": 1,
        "mid.is_conv": 1,
        "mid.is_none": 0,
        "mid.age": 10 / 25,
        "mid.improvement": 0.5,
        "mid.contribution": 0.2,
        "mid.has_contribution": 1,
        "mid.gradient_ratio": 0.3,
        "mid.gate_open": 1,
        "early.gate_open": 0,
    }
    assert {name: seen[name] for name in expected} == pytest.approx(expected)
    lost = dataclasses.replace(host(), train_loss=math.nan, val_losses=(2.0, math.inf))
    assert dict(zip(names(CONFIG), observation(lost, CONFIG), strict=True))["train_loss"] == LIMIT


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"min_alpha": 1.5}, "min_alpha = 1.5: must be greater than 0 and at most 1"),
        ({"min_contribution": -1}, "min_contribution = -1: must be at least 0 and at most 100"),
        ({"min_epochs": 0}, "min_epochs = 0: must be at least 1"),
        ({"channels": []}, "channels = : must not be empty"),
        ({"reward": "dense"}, "reward = dense: must be"),
        ({"min_alhpa": 1}, "did you mean 'min_alpha'"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as error:
        config_of(settings)
    assert says in str(error.value)
