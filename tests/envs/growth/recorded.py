"""Recorded episodes, with what the rules decided: `python tests/envs/growth/recorded.py` records them anew.

The decisions are those of the rules as they are meant to be. Change the file only where the rules are to change.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from esper.envs.growth.config import GrowthConfig
from esper.envs.growth.heuristic import Heuristic, HeuristicConfig, Random
from esper.envs.growth.stages import Blend, Host, Slot, Stage
from esper.envs.growth.vector import GrowthVectorEnv

PATH = Path(__file__).with_name("heuristic_episodes.json")
CONFIG, RULES = GrowthConfig(), HeuristicConfig()
# What the rules read of a slot, and what makes it the same to them.
_FIELDS = ("stage", "blueprint", "improvement", "contribution")


def episodes() -> Iterator[tuple[list[Host], list[list[Any]]]]:
    """The hosts that each action met, and the decisions: numbers of the action, and why."""
    for episode in json.loads(PATH.read_text()):
        yield [_host(episode, epoch) for epoch in range(len(episode["decisions"]))], episode["decisions"]


def _host(episode: dict[str, Any], epoch: int) -> Host:
    slots = tuple(_slot(*row) for row in episode["slots"][epoch])
    losses, accuracies = (tuple(episode[name][: epoch + 1]) for name in ("val_losses", "val_accuracies"))
    numbers: dict[str, Any] = {"train_loss": 0.0, "train_accuracy": 0.0, "parameters": 6_000}
    return Host(epoch=epoch, val_losses=losses, val_accuracies=accuracies, slots=slots, **numbers)


def _slot(stage: int, blueprint: int, improvement: float, contribution: float | None) -> Slot:
    kind: dict[str, Any] = {"stage": Stage(stage), "blend": Blend.LINEAR}
    return Slot(blueprint=blueprint, improvement=improvement, contribution=contribution, **kind)


def record(num_envs: int = 4) -> None:
    """Two episodes by rules, and two at random: there the rules meet what they would not have done."""
    env = GrowthVectorEnv(CONFIG, num_envs)
    by_rules, at_random = Heuristic(CONFIG, RULES, num_envs), Random(CONFIG, np.random.default_rng(1))
    env.reset(5)
    found: list[dict[str, Any]] = [{"val_losses": [], "val_accuracies": [], "slots": []} for _ in range(num_envs)]
    for _ in range(CONFIG.epochs):
        for episode, host in zip(found, env.hosts, strict=True):
            episode["val_losses"].append(round(host.val_loss, 4))
            episode["val_accuracies"].append(round(host.val_accuracy, 2))
            rows = [[getattr(slot, name) for name in _FIELDS] for slot in host.slots]
            episode["slots"].append([[_rounded(value) for value in row] for row in rows])
        both = by_rules.decide(env.hosts, env.action_masks), at_random.decide(env.hosts, env.action_masks)
        env.step(np.array([both[index % 2][index].action.numbers for index in range(num_envs)]))
    for episode in found:
        rules, decisions = Heuristic(CONFIG, RULES, 1), []
        for epoch in range(CONFIG.epochs):
            (decision,) = rules.decide([_host(episode, epoch)], env.action_masks[:1])
            decisions.append([*decision.action.numbers, decision.reason])
        episode["decisions"] = decisions
    PATH.write_text("[\n" + ",\n".join(json.dumps(episode) for episode in found) + "\n]\n")


def _rounded(value: float | None) -> float | None:
    return round(value, 2) if isinstance(value, float) else None if value is None else int(value)


if __name__ == "__main__":
    record()
