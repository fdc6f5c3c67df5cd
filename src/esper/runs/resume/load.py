"""Restores a checkpoint into a new training, after checking it."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from esper.runs.config import RunConfig
from esper.runs.folder import resume_command
from esper.runs.resume.point import Resume, ResumeError, ResumePoint, check_newest
from esper.runs.resume.rules import Mode
from esper.runs.resume.upgrade import upgraded_state
from esper.runs.state import capture_run, env_seed, run_form, schedule_switch
from esper.runs.versions import other_arithmetic, versions_of
from esper.schedules import SWITCH
from esper.simic.rates import Horizon, Rates, RateSchedules
from esper.simic.vectorized import Training
from esper.storage.store import StoreError
from esper.storage.tree import TreeError, check_form, differences, with_arrays

_log = logging.getLogger(__name__)


def load_run(config: RunConfig, training: Training, resume: Resume) -> Rates:
    """Restore the state of `resume` into `training`, newly made from `config`; returns the stored next rates.

    Raises:
        StoreError: naming what is wrong with the stored state.
        ResumeError: when the schedules would change, or nothing is left to do.
    """
    state = resume.point.state
    assert state is not None
    try:
        state = upgraded_state(state, resume.point.schema, capture_run(config, training, 0))
        _check_structure(state, training)
        stored = state["training"]
        if stored["generators"] is None and resume.keeps_episodes:
            _log.warning(
                "%s is from a version that stored no global generators: an environment that draws from random, "
                "numpy.random or torch continues with other numbers",
                resume.point.source,
            )
        episodes = {
            "environment": with_arrays(stored["environment"]) if resume.keeps_episodes else None,
            "collector": with_arrays(stored["collector"]),
            "generators": with_arrays(stored["generators"]),
        }
        training.load_state_dict({**stored, **episodes}, env_seed=env_seed(config, stored["agent"]["train_steps"]))
        schedules = _stored_schedules(state, resume, training)
    # A state of the right structure can still have values that a generator or an environment refuses.
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise StoreError(f"{resume.point.source}: {error or type(error).__name__}") from None
    if resume.mode == "continue" and state["lr_schedule_switch"] != schedule_switch(training.agent):
        raise ResumeError(_switch_was_changed(config, training, resume, schedules))
    training.agent.set_horizon(_horizon(config, training, resume.mode, schedules.horizon))
    if resume.mode == "restart":
        training.agent.updater.feedback.reset()
    if other := other_arithmetic(state["versions"], versions_of(training.agent)):
        _log.warning("%s: the end is no longer the same to the last bit", "; ".join(other))
    rates = schedules.at(training.agent.train_steps)
    return dataclasses.replace(rates, factors=_stored_factors(state, resume.point.config))


def _check_structure(state: Mapping[str, Any], training: Training) -> None:
    check_form(state, run_form(training))
    check_form(state["training"]["agent"], training.agent.state_form(), finite=True, path="training/agent")
    if not isinstance(state["training"]["environment"], Mapping | None):
        raise TreeError("training/environment must be a mapping or null")
    if state["events_bytes"] < 0:
        raise TreeError(f"events_bytes is {state['events_bytes']}, less than 0")


def _stored_schedules(state: Mapping[str, Any], resume: Resume, training: Training) -> RateSchedules:
    """The schedules of the stored settings, which must equal the stored ones: a rate must not jump."""
    stored = {name: value for name, value in state["schedule"].items() if name != "tables"}
    horizon = {name: stored[name] for name in ("start", "updates")}
    if not all(type(value) is int and 0 <= value < 2**63 for value in horizon.values()):
        raise TreeError(f"schedule starts at {horizon['start']!r:.40} and spans {horizon['updates']!r:.40} updates")
    config = resume.point.config.ppo
    if state["lr_schedule_switch"] == "off":
        config = config.without_lr_schedules()
    schedules = RateSchedules(config, training.agent.optimizer.group_names, Horizon(**horizon))
    now = schedules.state(training.agent.train_steps)
    # Older versions had no schedules of some scalars, which were constant.
    stored = {**stored, **{part: {**now[part], **stored[part]} for part in ("resolved", "next")}}
    found = differences(stored, now)
    # A phase is only the name of a part of the schedule.
    wrong = [difference for difference in found if not difference.startswith("next_phase/")]
    if wrong:
        raise TreeError("its schedules are not those of its settings; a rate would jump: " + "; ".join(wrong[:5]))
    return schedules


def _stored_factors(state: Mapping[str, Any], config: RunConfig) -> dict[str, float] | None:
    factors = state["training"]["agent"]["lr_factors"]
    on = state["lr_schedule_switch"] == "on" and any(each.is_on for each in config.ppo.feedback(factors).values())
    return {group: float(factor) for group, factor in factors.items()} if on else None


def _switch_was_changed(config: RunConfig, training: Training, resume: Resume, stored: RateSchedules) -> str:
    """Why a run cannot resume under the other value of the switch, which rates would jump, and the command that can."""
    agent = training.agent
    switch, before = schedule_switch(agent), "off" if agent.lr_schedules_on else "on"
    command = resume_command(_shortest(resume.point), config)
    as_it_was = (
        f"{SWITCH}={switch}: the run was started with {before}; to resume it unchanged:\n  {SWITCH}={before} {command}"
    )
    if agent.train_steps >= config.ppo.total_updates:
        return as_it_was
    horizon = _horizon(config, training, "extend", stored.horizon)
    extended = RateSchedules(agent.config, agent.optimizer.group_names, horizon)
    old, new = (schedules.at(agent.train_steps).learning_rates for schedules in (stored, extended))
    jumps = "".join(f"\n  lr/{group} {rate:.4g}, now {new[group]:.4g}" for group, rate in old.items())
    return (
        f"{as_it_was}\n"
        f"to resume with {switch}, beside the flags that were given:\n"
        f"  {SWITCH}={switch} {command} --resume-schedule extend\n"
        f"which changes the rates of the next update, {agent.train_steps}:{jumps}"
    )


def _shortest(point: ResumePoint) -> Path:
    """The run's folder if a resume from it finds `point`, else the checkpoint."""
    try:
        check_newest(point)
    except ResumeError:
        return point.source
    return point.run_dir or point.source


def _horizon(config: RunConfig, training: Training, mode: Mode, stored: Horizon) -> Horizon:
    """The horizon of the schedules from here on.

    Raises:
        ResumeError: when the run has done as many steps, or more.
    """
    done, total = training.agent.train_steps, config.ppo.total_updates
    if done > total or (done == total and mode != "continue"):
        raise ResumeError(
            f"total_timesteps {config.ppo.total_timesteps}: the run has done {training.env_steps:,} of them, so there "
            f"is nothing to {mode}; give more"
        )
    if mode == "continue":
        return stored
    start = stored.start if mode == "extend" else done
    return Horizon(start=start, updates=total - start)
