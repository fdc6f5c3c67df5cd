"""The training loop."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from esper.envs.base import DeviceEnv, EnvError, StateTree, VectorEnv
from esper.settings.values import Bounds, checked
from esper.simic.collect import Collector
from esper.simic.device_collect import DeviceCollector
from esper.simic.episodes import EpisodeLog, Outcomes
from esper.simic.extents import action_extent, observation_max
from esper.simic.faults import count_recurrent_resets
from esper.simic.ppo import PPOAgent
from esper.simic.state import StateForm
from esper.simic.update import UpdateResult
from esper.system.seeding import GlobalGenerators
from esper.system.torch_defaults import torch_defaults
from esper.telemetry.episodes import episode_fields, fraction
from esper.telemetry.events import DebugSnapshot, Event, UpdateCompleted, UpdateSkipped

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """How training ended: after its last update, on request, or because too many updates were undone.

    `undone` of the `updates` were undone; `fault` is the reason if the latest was.
    """

    env_steps: int
    updates: int
    undone: int
    episodes: int
    status: Literal["completed", "interrupted", "diverged"]
    fault: str | None


def train_ppo_vectorized(
    agent: PPOAgent,
    env: VectorEnv,
    *,
    env_seed: int = 1,
    on_event: Callable[[Event], None] = lambda event: None,
    on_update: Callable[[UpdateCompleted], None] = lambda update: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TrainResult:
    """Train `agent` in `env` for its configured number of updates.

    An agent that was trained before trains for as many updates again, past the end of its schedules unless
    `PPOAgent.set_horizon` sets a new horizon; a warning is logged. `on_event` gets every event, `on_update` those of
    completed updates; `should_stop` is called between updates. During training the global generators of `random`,
    `numpy.random` and torch (on the CPU) are seeded by `env_seed`; afterwards they are restored. Torch uses the agent's
    number of CPU threads while it collects and updates, and the caller's in these callbacks and afterwards.

    Raises:
        EnvError: when the environment raises.
    """

    if warning := agent.schedules.past_end(agent.train_steps + agent.config.total_updates):
        _log.warning("%s; agent.set_horizon sets a new horizon", warning)

    def tell(event: Event) -> None:
        on_event(event)
        if isinstance(event, UpdateCompleted):
            on_update(event)

    return Training(agent, env, env_seed=env_seed).run(on_event=tell, should_stop=should_stop)


def make_collector(agent: PPOAgent, env: VectorEnv, seed: int) -> Collector | DeviceCollector:
    """The collector of rollouts of `agent` in `env`, from the reset with `seed`."""
    engine = agent.updater.engine
    size = agent.network.state_size
    with torch_defaults():
        recurrent_state = torch.zeros((env.spec.num_envs, size), device=agent.device) if size else None
    if isinstance(env, DeviceEnv) and (fill := engine.fill(env)) is not None:
        return DeviceCollector(env, seed, agent.device, fill, recurrent_state=recurrent_state)
    return Collector(env, seed, engine.actor, recurrent_state=recurrent_state)


class Training:
    """A run of `agent` in `env`, from the reset with `env_seed` to the last of its updates.

    Between updates its whole state can be saved and restored into another one, which continues exactly there. `undone`
    counts the updates that were undone because something was not finite, `skipped` the latest of them in a row. It has
    its own state of the global generators, seeded by `env_seed`, for environments that use these.
    """

    def __init__(self, agent: PPOAgent, env: VectorEnv, *, env_seed: int) -> None:
        env_seed = checked("env_seed", env_seed, int, Bounds(minimum=0))
        self.agent, self._env = agent, env
        self._generators = GlobalGenerators(env_seed)
        with self._generators.in_place():
            self._collector = make_collector(agent, env, env_seed)
        self._log = EpisodeLog(env.spec.num_envs)
        self._rollout = agent.allocate_rollout()
        self._first_update = agent.train_steps
        self.episodes = self.skipped = self.undone = 0
        self._fault: str | None = None

    def run(
        self,
        *,
        on_event: Callable[[Event], None],
        should_stop: Callable[[], bool],
        after_update: Callable[[], None] = lambda: None,
    ) -> TrainResult:
        """Update until the end, or until stopped; `after_update` is called after each update's event."""
        # Around all updates: changing the generators takes 0.1 ms, much if an update takes 1 ms.
        with self._generators.in_place():
            while (status := self._status()) == "training" and not should_stop():
                on_event(self.update())
                if self._result.minibatches is not None:
                    on_event(self._debug_snapshot(self._result.minibatches))
                after_update()
        return self.result("interrupted" if status == "training" else status)

    def result(self, status: Literal["completed", "interrupted", "diverged"]) -> TrainResult:
        """The result so far."""
        return TrainResult(
            env_steps=self.env_steps,
            updates=self.agent.train_steps,
            undone=self.undone,
            episodes=self.episodes,
            status=status,
            fault=self._fault,
        )

    @property
    def updates(self) -> int:
        """The updates of this training: the agent may have had others before."""
        return self.agent.train_steps - self._first_update

    @property
    def env_steps(self) -> int:
        return self.updates * self.agent.config.batch_size

    def _status(self) -> Literal["training", "completed", "diverged"]:
        if self.skipped >= self.agent.config.max_skipped_updates:
            return "diverged"
        return "completed" if self.updates >= self.agent.config.total_updates else "training"

    def update(self) -> Event:
        """Collect a rollout and learn from it, with the agent's number of CPU threads."""
        started = time.perf_counter()
        with self._generators.in_place(), self.agent.updater.torch_settings():
            self._collect()
            outcomes = Outcomes(self._rollout)
            self._result = result = self.agent.update(self._rollout, meanwhile=lambda: self._find_episodes(outcomes))
        self.episodes += self._ended["episodes"]
        self.skipped = 0 if result.fault is None else self.skipped + 1
        self.undone += result.fault is not None
        self._fault = result.fault
        return self._event(result, time.perf_counter() - started)

    def _find_episodes(self, outcomes: Outcomes) -> None:
        """Find the episodes that ended in the rollout, and what the event says of them."""
        finished = self._log.finished(outcomes)
        self._ended = episode_fields(finished.returns, finished.lengths)
        self._ended["truncated_fraction"] = fraction(finished.truncated)

    def _collect(self) -> None:
        agent = self.agent
        try:
            self._collector.collect(agent.network, self._rollout, agent.generators["actions"])
        except EnvError as error:
            num_steps, num_envs = self._rollout.rewards.shape
            step = self._collector.step
            update, env_step = agent.train_steps, self.env_steps + step * num_envs
            where = f"update {update}, step {step} of {num_steps}, env step {env_step}"
            raise EnvError(f"{error} ({where})") from error

    def state_dict(self) -> StateTree:
        """A copy of the whole state; `environment` is None if the environment has no saved state."""
        return {
            "agent": self.agent.state_dict(),
            "collector": {**self._collector.state_dict(), **self._log.state_dict()},
            "environment": self._env.state_dict(),
            "generators": self._generators.state_dict(),
            "first_update": self._first_update,
            "episodes": self.episodes,
            "skipped": self.skipped,
            "undone": self.undone,
        }

    def state_form(self) -> StateForm:
        """The form of `state_dict`; the environment and the generators check their own parts."""
        return {
            "agent": self.agent.state_form(),
            "collector": {**self._collector.state_form(), **self._log.state_form()},
            "environment": object,
            # Another version of torch has another form.
            "generators": object,
            "first_update": int,
            "episodes": int,
            "skipped": int,
            "undone": int,
        }

    def load_state_dict(self, state: StateTree, *, env_seed: int) -> None:
        """Restore `state`; without the environment's state in it, begin fresh episodes with `env_seed`.

        Raises:
            ValueError: for a state that does not fit this training.
        """
        first, updates = state["first_update"], state["agent"]["train_steps"]
        if not 0 <= state["skipped"] <= state["undone"] <= updates - first <= updates or state["episodes"] < 0:
            raise ValueError("its counts of updates, undone updates and episodes do not fit together")
        self.agent.load_state_dict(state["agent"])
        self._first_update = first
        self.episodes, self.undone = state["episodes"], state["undone"]
        # A resume of a run that was stopped for its skipped updates may skip as many again.
        self.skipped = state["skipped"] % self.agent.config.max_skipped_updates
        # States of older versions have none; then new ones are seeded.
        self._generators = GlobalGenerators(env_seed)
        if state["environment"] is None:
            self.agent.reward_scaler.forget_episodes()
            with self._generators.in_place():
                self._collector.reset(env_seed)
            self._log = EpisodeLog(self._env.spec.num_envs)
            return
        with self._generators.in_place():
            self._env.load_state_dict(state["environment"])
        self._collector.load_state_dict(state["collector"])
        self._log.load_state_dict(state["collector"])
        if state["generators"] is not None:
            self._generators.load_state_dict(state["generators"])

    def _event(self, result: UpdateResult, seconds: float) -> Event:
        if not result.optimizer_steps:
            cause = result.fault or "approx_kl exceeded target_kl before the first step"
            return UpdateSkipped(
                update=result.update,
                env_steps=self.env_steps,
                cause=cause,
                non_finite=result.fault is not None,
                recurrent_resets=count_recurrent_resets(self._rollout) if self.agent.network.state_size else None,
            )
        agent, coefficients = self.agent, dict[str, Any](result.rates.coefficients)
        return UpdateCompleted(
            **self._place(result),
            **coefficients,
            optimizer_steps=result.optimizer_steps,
            steps_per_second=self.agent.config.batch_size / seconds,
            grad_norm=result.grad_norms,
            loss_term=result.loss_terms or None,
            explained_variance=result.explained_variance,
            success_rate=fraction(self._rollout.successes),
            observation_max=None if agent.config.network.normalize_observations else observation_max(self._rollout),
            action_extent=action_extent(self._rollout, agent.spec.action_bounds),
            **result.metrics,
            **self._ended,
        )

    def _place(self, result: UpdateResult) -> dict[str, Any]:
        """The index of the update of `result`, and its rates."""
        horizon = self.agent.schedules.horizon
        return {
            "update": result.update,
            "env_steps": self.env_steps,
            "lr": result.rates.learning_rates,
            "lr_factor": result.lr_factors,
            "lr_phase": result.rates.phases,
            "schedule_update": result.update - horizon.start,
            "schedule_total_updates": horizon.updates,
        }

    def _debug_snapshot(self, minibatches: Mapping[str, Sequence[float]]) -> DebugSnapshot:
        # A finite sum means that all are finite; a sum can also overflow, so then each is checked.
        finite = {
            name: column if math.isfinite(sum(column)) else [x if math.isfinite(x) else None for x in column]
            for name, column in minibatches.items()
        }
        return DebugSnapshot(**self._place(self._result), minibatch=finite)
