"""What becomes of the states and settings of older checkpoints, key by key."""

from __future__ import annotations

from typing import Any

import pytest

from esper.runs.resume.upgrade import UpgradeError, upgraded_settings, upgraded_state

POINTS = [[0, 1e-3], [5, 1e-4]]


def old_state(**training: Any) -> dict[str, Any]:
    return {
        "config": {"policy_lr": 3e-4, "policy_lr_points": POINTS, "value_lr": 2e-4, "value_lr_points": None},
        "schedule": {
            "start": 0,
            "resolved": {"policy_lr": {"peak": 3e-4, "floor": 1e-4}, "value_lr": {"peak": 2e-4, "floor": 0.0}},
        },
        "training": {"agent": {"train_steps": 4}, "rollouts": 4, "collector": {"obs": [1]}, "skipped": 0} | training,
    }


ONES = {"policy": 1.0, "value": 1.0}
FRESH = {"training": {"agent": {"lr_factors": ONES}, "collector": {"obs": [0], "memory": [0], "begins": [True]}}}


class TestSettings:
    def test_a_base_rate_beside_points_becomes_that_of_the_first(self) -> None:
        assert upgraded_settings(old_state()["config"], 1) == {
            "policy_lr": 1e-3,
            "policy_lr_points": POINTS,
            "value_lr": 2e-4,
            "value_lr_points": None,
        }

    def test_those_of_this_schema_stay(self) -> None:
        settings = old_state()["config"]
        assert upgraded_settings(settings, 2) == settings

    @pytest.mark.parametrize("settings", [None, 3, [1]])
    def test_what_are_no_settings_are_left_to_whoever_reads_them(self, settings: Any) -> None:
        assert upgraded_settings(settings, 1) == settings


class TestState:
    def test_gets_what_it_did_not_have_and_keeps_the_rest(self) -> None:
        old = old_state()
        new = upgraded_state(old, 1, FRESH)
        assert new["training"] == {
            "agent": {"train_steps": 4, "lr_factors": ONES},
            "collector": {"obs": [1], "memory": [0], "begins": [True]},
            "generators": None,
            "first_update": 0,
            "skipped": 0,
            "undone": 0,
        }
        assert new["schedule"] == {
            "start": 0,
            "resolved": {"policy_lr": {"peak": 1e-3, "floor": 1e-4}, "value_lr": {"peak": 2e-4, "floor": 0.0}},
        }
        assert new["config"] == old["config"]
        assert old["training"]["rollouts"] == 4  # it was not changed itself

    def test_one_of_this_schema_stays(self) -> None:
        state = old_state(generators={}, agent={"train_steps": 4, "lr_factors": {"policy": 0.5}})
        assert upgraded_state(state, 2, FRESH) == state

    def test_one_of_before_there_were_generators_and_feedback_has_none(self) -> None:
        agent = {"train_steps": 4, "lr_factors": ONES}
        assert upgraded_state(old_state(), 2, FRESH) == old_state(generators=None, agent=agent)

    def test_with_undone_updates_is_refused(self) -> None:
        with pytest.raises(UpgradeError, match=r"3 of its 7 updates were undone \(or over target_kl at once\); the"):
            upgraded_state(old_state(rollouts=7), 1, FRESH)
