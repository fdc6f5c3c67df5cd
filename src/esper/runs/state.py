"""The whole state of a run as one tree: the content of a checkpoint."""

from __future__ import annotations

from typing import Any, Literal

import torch

from esper.envs.base import EnvError
from esper.runs.config import RunConfig
from esper.runs.layers import recorded
from esper.runs.versions import versions_of
from esper.simic.ppo import PPOAgent
from esper.simic.rates import tables
from esper.simic.vectorized import Training
from esper.storage.tree import TreeError, check_form, on_host, split
from esper.system.seeding import integer_seed


def capture_run(config: RunConfig, training: Training, events_bytes: int) -> dict[str, Any]:
    """A copy of a run's state between two updates; `events_bytes` is the length of its record.

    Raises:
        EnvError: when the environment's part of it cannot be stored.
    """
    # On the host before another thread writes it: none may use a GPU while a graph is captured.
    state = on_host(training.state_dict())
    updates, schedules = training.agent.train_steps, training.agent.schedules
    schedule = schedules.state(updates)
    if given := tables(config.ppo, schedules.horizon):
        schedule["tables"] = {
            name: torch.tensor(rates, dtype=torch.float64, device="cpu") for name, rates in given.items()
        }
    captured = {
        "config": recorded(config),
        "lr_schedule_switch": schedule_switch(training.agent),
        # Before the first rollout the seed determines the state.
        "exact_resume": state["environment"] is not None or not updates,
        "schedule": schedule,
        "events_bytes": events_bytes,
        "versions": versions_of(training.agent),
        "training": state,
    }
    # Checked here, and not on resume: a checkpoint that this version would refuse is never written.
    check_form(captured, run_form(training))
    _check_environment(config, state["environment"])
    return captured


def run_form(training: Training) -> dict[str, Any]:
    """The form of `capture_run`'s state; settings and schedules are checked by their own declarations."""
    return {
        "config": dict,
        "lr_schedule_switch": str,
        "exact_resume": bool,
        "schedule": dict,
        "events_bytes": int,
        "versions": dict,
        "training": training.state_form(),
    }


def _check_environment(config: RunConfig, state: Any) -> None:
    """Check that a checkpoint can store and restore the state of an environment."""
    try:
        if state is not None:
            split(state)
    except TreeError as error:
        name = config.environment.env
        raise EnvError(f"the state_dict() of {name} cannot be stored: {error}") from None


def env_seed(config: RunConfig, updates: int) -> int:
    """The seed of the environments' first episodes, or of fresh ones after `updates`."""
    return integer_seed(config.seed, f"env from update {updates}" if updates else "env")


def schedule_switch(agent: PPOAgent) -> Literal["on", "off"]:
    """Whether learning rates follow their schedules, as stored in checkpoints."""
    return "on" if agent.lr_schedules_on else "off"
