"""The events of a run that do not belong to an update."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from esper.envs.base import scaled_to
from esper.runs.config import RunConfig
from esper.runs.initial import Begun
from esper.runs.layers import recorded
from esper.runs.resume.point import Resume
from esper.runs.state import env_seed, schedule_switch
from esper.runs.versions import versions_of
from esper.simic.ppo import PPOAgent
from esper.simic.rates import Rates
from esper.simic.vectorized import Training
from esper.telemetry.events import RunFinished, RunResumed, RunStarted


def run_started(config: RunConfig, agent: PPOAgent, begun: Begun | None = None) -> RunStarted:
    """The event at the start of a record; `begun` is what the run began with, if not with random weights."""
    bounds = scaled_to(agent.spec.actions)
    return RunStarted(
        config=recorded(config),
        seed=config.seed,
        total_updates=agent.config.total_updates,
        schedules=agent.schedules.resolved(),
        lr_schedule_switch=schedule_switch(agent),
        engine=agent.updater.engine_name,
        threads=agent.updater.threads,
        telemetry=config.telemetry.telemetry,
        versions=versions_of(agent),
        actions_scaled_to=None if bounds is None else {"low": bounds.low, "high": bounds.high},
        initial_policy=None if begun is None else begun.recorded(),
    )


def run_resumed(
    config: RunConfig,
    training: Training,
    resume: Resume,
    rates_before: Rates,
    changed: Mapping[str, tuple[Any, Any]],
) -> RunResumed:
    """The event of a resume; `rates_before` are the checkpoint's rates for the next update."""
    agent = training.agent
    exact = resume.keeps_episodes or not agent.train_steps
    return RunResumed(
        checkpoint=str(resume.point.checkpoint),
        update=agent.train_steps,
        env_steps=training.env_steps,
        resume_schedule=resume.mode,
        exact_resume=exact,
        env_seed=None if exact else env_seed(config, agent.train_steps),
        total_updates=agent.config.total_updates,
        schedules=agent.schedules.resolved(),
        lr_before=rates_before.learning_rates,
        lr=agent.schedules.at(agent.train_steps).learning_rates,
        lr_factor_before=rates_before.factors,
        lr_factor=agent.updater.feedback.values(),
        changed=changed,
        broken=[reason for _, reason in resume.point.broken],
        engine=agent.updater.engine_name,
        threads=agent.updater.threads,
        telemetry=config.telemetry.telemetry,
        versions=versions_of(agent),
    )


def run_finished(
    training: Training,
    status: Literal["completed", "interrupted", "diverged", "failed"],
    cause: str | None,
    seconds: float,
) -> RunFinished:
    """The event at the end of a record."""
    return RunFinished(
        status=status,
        cause=cause,
        updates=training.agent.train_steps,
        updates_undone=training.undone,
        env_steps=training.env_steps,
        episodes=training.episodes,
        seconds=seconds,
    )
