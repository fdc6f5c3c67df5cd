"""The rules of the heuristic controller, each by hand."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from typing import Any

import numpy as np
import pytest
import recorded

from esper.envs.growth.config import GrowthConfig
from esper.envs.growth.heuristic import (
    Heuristic,
    HeuristicConfig,
    Memory,
    Random,
    Wait,
    decide,
    has_been_stable,
    is_on_plateau,
)
from esper.envs.growth.masks import action_mask, effective
from esper.envs.growth.stages import Action, Host, Operation, Slot, Stage

CONFIG, RULES = GrowthConfig(), HeuristicConfig()
FRESH = Memory.of(CONFIG)
# Stable and on a plateau: losses fall by 1 %, 0 % and 1 %, accuracies gain 0.2, 0.1 and 0.4 points.
QUIET: dict[str, Any] = {
    "val_losses": (2.3, 1.0, 0.99, 0.99, 0.9801),
    "val_accuracies": (10.0, 80.0, 80.2, 80.3, 80.7),
}


def host(*slots: Slot, **changes: Any) -> Host:
    fields: dict[str, Any] = {"epoch": 4, "train_loss": 0.5, "train_accuracy": 85.0, "parameters": 6_000, **QUIET}
    return Host(**(fields | changes), slots=(*slots, *[Slot()] * (3 - len(slots))))


def done(host: Host, memory: Memory = FRESH) -> tuple[str, int, int, str]:
    decision, _ = decide(host, memory, CONFIG, RULES)
    action = decision.action
    return action.operation.name, action.slot, action.blueprint, decision.reason


@pytest.mark.parametrize(
    ("losses", "stable"),
    [
        # Falls of 3 %, then 2.9 % three times.
        ((1.0, 0.97, 0.94187, 0.91456, 0.88803), True),
        # The first of them is 3.1 %, and two are too few.
        ((1.0, 0.969, 0.95, 0.94), False),
        # A rise is no gain, and neither is a fall back from it.
        ((1.0, 1.1, 1.2, 1.3), True),
        ((1.0, 2.0, 1.0, 0.98), True),
        # In a row.
        ((1.0, 0.99, 0.98, 0.5, 0.499, 0.498), False),
        # Once is enough: seeds that are planted then make it fall again.
        ((1.0, 0.99, 0.98, 0.97, 0.5, 0.25), True),
        ((1.0,), False),
    ],
)
def test_a_host_is_stable_after_3_epochs_with_less_than_3_percent(losses: tuple[float, ...], stable: bool) -> None:
    assert has_been_stable(losses, RULES) is stable


@pytest.mark.parametrize(
    ("accuracies", "plateau"),
    [
        ((10.0, 50.0, 50.4, 50.8, 51.2), True),
        ((10.0, 50.0, 50.5, 50.8, 51.2), False),
        # One epoch before the three does not count, two epochs are too few.
        ((50.0, 50.1, 50.2), False),
        ((50.0, 49.0, 48.0, 47.0), True),
        # What was lost and comes back is no progress.
        ((50.0, 40.0, 45.0, 50.4), True),
        ((50.0, 40.0, 45.0, 50.5), False),
    ],
)
def test_a_plateau_is_3_epochs_with_less_than_half_a_point(accuracies: tuple[float, ...], plateau: bool) -> None:
    assert is_on_plateau(accuracies, RULES) is plateau


class TestGerminating:
    def test_in_the_first_free_slot_where_nothing_grows(self) -> None:
        assert done(host()) == ("GERMINATE", 0, 1, "the host is on a plateau")
        fossil, culled = Slot(stage=Stage.FOSSILIZED, blueprint=1, contribution=3.0), Slot(stage=Stage.CULLED)
        assert done(host(fossil))[:2] == ("GERMINATE", 1)
        assert done(host(fossil, culled))[:2] == ("GERMINATE", 2)
        assert done(host(fossil, culled, fossil)) == ("WAIT", 0, 0, "no slot is free")

    @pytest.mark.parametrize("stage", [Stage.GERMINATED, Stage.TRAINING, Stage.BLENDING, Stage.HOLDING])
    def test_not_beside_a_seed_that_grows(self, stage: Stage) -> None:
        assert done(host(Slot(stage=stage, blueprint=1))) == ("WAIT", 0, 0, "a seed grows")

    def test_not_before_the_host_is_stable_or_while_it_makes_progress(self) -> None:
        falling = {"val_losses": (2.3, 2.0, 1.8, 1.6, 1.4)}
        assert done(host(**falling))[3] == "the host is not stable"
        assert done(host(val_accuracies=(10.0, 80.0, 80.2, 80.3, 80.8)))[3] == "the host makes progress"


class TestBlueprints:
    def test_take_turns(self) -> None:
        memory, planted = FRESH, []
        for _ in range(6):
            decision, memory = decide(host(), memory, CONFIG, RULES)
            planted.append(decision.action.blueprint)
        assert planted == [1, 2, 3, 4, 1, 2]

    def test_that_failed_come_after_the_others(self) -> None:
        assert Memory(turn=0, failures=(1, 0, 0, 0)).next == 1
        assert Memory(turn=3, failures=(1, 1, 0, 1)).next == 2
        # Alike, the turn decides.
        assert Memory(turn=3, failures=(1, 1, 1, 1)).next == 3
        assert Memory(turn=4, failures=(0, 0, 0, 0)).next == 0
        assert Memory(turn=1, failures=(1, 2, 1, 2)).next == 2

    def test_a_cull_is_a_failure_of_its_blueprint(self) -> None:
        bad = Slot(stage=Stage.TRAINING, blueprint=3, improvement=-2.5)
        _, memory = decide(host(Slot(), bad), FRESH, CONFIG, RULES)
        assert memory == Memory(turn=0, failures=(0, 0, 1, 0))


class TestCulling:
    def test_a_seed_that_costs_more_than_2_points(self) -> None:
        def of(**fields: Any) -> tuple[str, int, int, str]:
            return done(host(Slot(), Slot(stage=Stage.HOLDING, blueprint=2, **fields)))

        assert of(improvement=-2.5) == ("CULL", 1, 0, "it costs 2.5 points")
        assert of(improvement=-2.0)[0] == "WAIT"
        assert of(improvement=1.0, contribution=-3.0) == ("CULL", 1, 0, "it costs 3 points")

    def test_but_no_fossil(self) -> None:
        fossil = Slot(stage=Stage.FOSSILIZED, blueprint=2, improvement=-9.0, contribution=-9.0)
        assert done(host(fossil, fossil, fossil))[0] == "WAIT"


class TestFossilizing:
    def test_a_holding_seed_that_passes_the_gate(self) -> None:
        def of(stage: Stage, contribution: float) -> str:
            return done(host(Slot(stage=stage, blueprint=2, contribution=contribution, alpha=1.0)))[0]

        assert of(Stage.HOLDING, 1.0) == "FOSSILIZE"
        # Positive, but the gate needs a point.
        assert of(Stage.HOLDING, 0.9) == "WAIT"
        assert of(Stage.BLENDING, 5.0) == "WAIT"

    def test_after_culling_another(self) -> None:
        bad = Slot(stage=Stage.BLENDING, blueprint=1, improvement=-5.0)
        good = Slot(stage=Stage.HOLDING, blueprint=2, contribution=5.0)
        assert done(host(good, bad))[:2] == ("CULL", 1)


class TestControllers:
    def test_the_rules_forget_at_the_end_of_an_episode(self) -> None:
        controller, masks = Heuristic(CONFIG, RULES, 2), np.ones((2, 15), dtype=bool)

        def planted(*hosts: Host) -> list[int]:
            return [decision.action.blueprint for decision in controller.decide(hosts, masks)]

        begin = host(epoch=0, val_losses=(2.3,), val_accuracies=(10.0,))
        assert planted(begin, begin) == [0, 0]
        assert planted(host(), host()) == [1, 1]
        assert planted(begin, host()) == [0, 2]
        assert planted(host(), host()) == [1, 3]

    def test_what_the_rules_do_is_possible(self) -> None:
        """An action that its slot cannot do would become waiting, and the rules would remember what never was."""
        rng = np.random.default_rng(1)
        for _ in range(300):
            slots = [
                Slot(
                    stage=Stage(int(rng.integers(7))),
                    blueprint=int(rng.integers(1, 5)),
                    improvement=float(rng.normal(0, 2)),
                    contribution=float(rng.normal(0, 2)) if rng.random() < 0.5 else None,
                )
                for _ in range(3)
            ]
            seen = host(*slots)
            action = decide(seen, FRESH, CONFIG, RULES)[0].action
            assert effective(action, seen, CONFIG) == action
            if action.operation is not Operation.WAIT:
                parts = np.split(action_mask(seen, CONFIG), np.cumsum([3, 5, 3]))
                assert parts[0][action.slot]
                assert parts[3][action.operation]

    def test_random_actions_are_allowed_ones_and_repeat_with_the_seed(self) -> None:
        hosts = [host(), host(Slot(stage=Stage.TRAINING, blueprint=1))]
        masks = np.stack([action_mask(each, CONFIG) for each in hosts])

        def drawn(seed: int) -> list[Action]:
            controller = Random(CONFIG, np.random.default_rng(seed))
            return [decision.action for _ in range(200) for decision in controller.decide(hosts, masks)]

        first = drawn(1)
        assert first == drawn(1) != drawn(2)
        for index, action in enumerate(first):
            parts = np.split(masks[index % 2], np.cumsum([3, 5, 3]))
            assert all(part[number] for part, number in zip(parts, action.numbers, strict=True))
        assert {action.operation for action in first} == {Operation.WAIT, Operation.GERMINATE, Operation.CULL}

    def test_waiting(self) -> None:
        assert [d.action for d in Wait().decide([host()] * 2, np.ones((2, 15), dtype=bool))] == [Action()] * 2


class TestRecordedEpisodes:
    """On real episodes the rules decide what they always did, whatever else changes."""

    def test_are_decided_in_the_same_way(self) -> None:
        masks = np.ones((1, 15), dtype=bool)
        seen: Counter[str] = Counter()
        for hosts, expected in recorded.episodes():
            controller = Heuristic(recorded.CONFIG, recorded.RULES, 1)
            for host, (*numbers, reason) in zip(hosts, expected, strict=True):
                (decision,) = controller.decide([host], masks)
                assert ([*decision.action.numbers], decision.reason) == (numbers, reason)
                seen[decision.action.operation.name] += 1
        # Each of them is decided.
        assert min(seen[operation.name] for operation in Operation) >= 1

    def test_side_by_side_they_are_the_same(self) -> None:
        """A controller has a memory for each environment."""
        every = list(recorded.episodes())
        controller = Heuristic(recorded.CONFIG, recorded.RULES, len(every))
        masks = np.ones((len(every), 15), dtype=bool)
        for epoch in range(recorded.CONFIG.epochs):
            decisions = controller.decide([hosts[epoch] for hosts, _ in every], masks)
            assert [[*d.action.numbers, d.reason] for d in decisions] == [expected[epoch] for _, expected in every]

    def test_rules_import_nothing_of_ppo(self) -> None:
        wrong = "any(name.startswith('esper.simic') or name == 'torch' for name in sys.modules)"
        code = f"import sys, esper.envs.growth.heuristic; sys.exit({wrong})"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
