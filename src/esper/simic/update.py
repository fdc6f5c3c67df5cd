"""One PPO update, from a rollout to new parameters, in the order in which things happen.

The host waits for the device once, at the end, to read the metrics. So whether a step is taken, ended by `target_kl` or
undone because something was not finite, is decided where it is computed, by masks.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from esper.simic.config import PPOConfig
from esper.simic.engines.choice import choose_engine
from esper.simic.engines.protocol import SkipState, Workload
from esper.simic.faults import find_fault
from esper.simic.feedback import Feedback
from esper.simic.given_terms import GivenTerms
from esper.simic.losses import GIVEN, RATIO_METRICS, Coefficients, Minibatch, ratio_metrics
from esper.simic.metrics import COLUMNS, RATIO_QUANTILES, below, means_of, named_after, summarize
from esper.simic.nets.actor_critic import ActorCritic
from esper.simic.nets.normalization import RewardScaler
from esper.simic.optimizers import Optimizer
from esper.simic.precision import float32_products
from esper.simic.rates import Rates
from esper.simic.rollout import Rollout
from esper.simic.sequences import to_sequences
from esper.simic.threads import torch_threads


@dataclass(frozen=True, kw_only=True)
class UpdateResult:
    """One update as the host sees it.

    `fault` names what was not finite, if anything was: then the update was undone, and there are no metrics. `metrics`
    are the loss and ratio fields of `UpdateCompleted`, `loss_terms` the means of those from Python by name;
    `explained_variance` is None when returns hardly varied. `minibatches` has the metrics of each minibatch, by name,
    if the agent debugs. `lr_factors` are those by which its last step multiplied the learning rates, if there is
    feedback.
    """

    update: int
    rates: Rates
    fault: str | None
    optimizer_steps: int
    metrics: dict[str, Any]
    grad_norms: dict[str, float]
    loss_terms: dict[str, float]
    explained_variance: float | None
    minibatches: dict[str, list[float]] | None
    lr_factors: dict[str, float] | None


class Learner(NamedTuple):
    """What an update changes."""

    network: ActorCritic
    optimizer: Optimizer
    reward_scaler: RewardScaler


class Draws(NamedTuple):
    """What draws minibatches, and replacements of steps that only reset."""

    minibatches: torch.Generator
    ignored_rows: np.random.Generator


class Updater:
    """Updates a `learner` by rollouts; its loss has the given `terms`, too.

    `metric_names` are the columns of the metrics, a row per minibatch; with `debug` those of `RATIO_QUANTILES` follow.
    `engine` computes `workload`, with `threads` CPU threads.
    """

    def __init__(
        self,
        learner: Learner,
        config: PPOConfig,
        *,
        draws: Draws,
        terms: GivenTerms,
        debug: bool = False,
    ) -> None:
        network, optimizer, _ = learner
        self._network, self._optimizer, self._reward_scaler = learner
        self._config, self._draws, self._terms, self._debug = config, draws, terms, debug
        device = optimizer.device
        self.coefficients = Coefficients.allocate(device)
        self.feedback = Feedback(config.feedback(optimizer.group_names), device)
        self._skip = SkipState(torch.ones((), device=device), torch.ones((), device=device))
        self.metric_names = (
            *COLUMNS,
            *(f"grad_norm/{name}" for name in optimizer.group_names),
            "stepped",
            *(f"{GIVEN}{name}" for name in terms.names),
            *(RATIO_QUANTILES if debug else ()),
        )
        rows = config.update_epochs * config.num_minibatches
        self._metrics = torch.zeros((rows, len(self.metric_names)), device=device)
        self.workload = Workload(
            network=network,
            optimizer=optimizer,
            coefficients=self.coefficients,
            skip=self._skip,
            feedback=self.feedback,
            reward_statistics=tuple(self._reward_scaler.buffers()),
            config=config,
            given_terms=terms.terms,
            debug=debug,
        )
        self.engine_name, self.threads, self.engine = choose_engine(self.workload)

    @contextlib.contextmanager
    def torch_settings(self) -> Iterator[None]:
        """Within, torch has what this engine needs: its precision, and one thread beside the kernels with their own.

        Compiled graphs are compiled anew where torch has other settings, so everything that calls them is within.
        """
        threads = 1 if self.engine_name == "native" else self.threads
        with torch_threads(threads), float32_products(self._config.runtime.precision, self.workload.device):
            yield

    def run(self, update: int, rollout: Rollout, rates: Rates, meanwhile: Callable[[], None]) -> UpdateResult:
        """Update number `update`, at `rates`. The host calls `meanwhile` before it waits for the device."""
        self._optimizer.check_parameters()
        self.set_rates(rates)
        self._optimizer.freeze(update < self._config.freeze_encoder)
        self._terms.set_weights(update)
        rollout = rollout.without_ignored()
        reward_statistics = self._reward_scaler.statistics()
        results = self.engine.whole_update(self._compute, rollout, self.draw_orders(self._draws.minibatches))
        meanwhile()
        numbers = results.tolist()
        by_minibatch = np.array(numbers[: self._metrics.numel()]).reshape(self._metrics.shape)
        was_finite, share_explained, *others = numbers[self._metrics.numel() :]
        measured = len(RATIO_METRICS) if self._config.metrics_after else 0
        means_after, factors = dict(zip(RATIO_METRICS, others[:measured], strict=False)), others[measured:]
        fault = None if was_finite else self._find_fault(rollout, by_minibatch)
        if fault is None:
            self._update_normalizer(rollout)
        else:
            # The discounted returns so far stay: they are about episodes, which went on.
            self._reward_scaler.restore(reward_statistics)
        lr_factors = dict(zip(self._optimizer.group_names, factors, strict=True)) if factors else None
        result = self._result(by_minibatch, fault, share_explained, update=update, rates=rates, lr_factors=lr_factors)
        if means_after and result.metrics:
            result.metrics.update(named_after(means_after))
        return result

    def _compute(self, rollout: Rollout, orders: Tensor) -> Tensor:
        """What the device computes of an update, with minibatches of rows `orders`: all that the host reads, at once.

        The metrics of each minibatch, whether all was finite, the explained variance, `RATIO_METRICS` after the update
        if they are asked for, and the factors of the learning rates.
        """
        usable = self.engine.inputs_are_finite(rollout)
        batch = self.prepare(rollout)
        if self._config.normalize_rewards:
            # Divided by infinity all rewards are 0, which looks as good as any.
            usable &= self._reward_scaler.deviation().isfinite()
        metrics, finite = self.optimize(batch, orders, usable)
        explained = self.engine.explained_variance(batch.returns, batch.values)
        after = self.measure_after(rollout, batch).values() if self._config.metrics_after else ()
        extra = torch.stack((finite, explained, *after, *self.feedback.changing))
        self._follow_kl(metrics, finite)
        return torch.cat((metrics.flatten(), extra))

    def draw_orders(self, generator: torch.Generator) -> Tensor:
        """The rows of each minibatch [S, B], in a new order for each epoch."""
        config = self._config
        rows = config.num_envs if self._network.state_size else config.batch_size
        orders = [
            torch.randperm(rows, generator=generator, device=generator.device) for _ in range(config.update_epochs)
        ]
        return torch.cat(orders).view(len(self._metrics), -1)

    def set_rates(self, rates: Rates) -> None:
        """Write `rates` into the tensors that engines read."""
        self._optimizer.set_learning_rates(rates.learning_rates)
        self.coefficients.set(rates.coefficients)

    @torch.no_grad()
    def prepare(self, rollout: Rollout) -> Minibatch:
        """The rollout as flat rows [T * N, ...], or as a sequence for each environment, with advantages."""
        rollout = self.engine.normalize(rollout)
        log_probs, values, next_values = self.engine.evaluate_rollout(rollout)
        rewards, terminated, truncated = rollout.rewards, rollout.terminated, rollout.truncated
        if self._config.normalize_rewards:
            rewards = self._reward_scaler(rewards, terminated | truncated, rollout.live_indices())
        advantages, returns = self.engine.advantages(rewards, values, next_values, terminated, truncated)
        batch = Minibatch(rollout.obs[:-1], rollout.actions, log_probs, values, advantages, returns, rollout.masks)
        if self._network.state_size:
            return to_sequences(batch, rollout, self._draws.ignored_rows)
        rows = batch.map(lambda field: field.flatten(0, 1))
        indices = rollout.sample_indices(self._draws.ignored_rows)
        return rows if indices is None else rows.map(lambda field: field[indices])

    @torch.no_grad()
    def measure_after(self, rollout: Rollout, batch: Minibatch) -> dict[str, Tensor]:
        """`ratio_metrics` of `batch`, made of `rollout`, with the policy as it is now."""
        if self._network.state_size:
            log_probs = self.engine.evaluate_rollout(self.engine.normalize(rollout))[0].T
            log_probs = log_probs if batch.selected is None else log_probs.gather(1, batch.selected)
        else:
            log_probs, _ = self.engine.evaluate(batch.obs, batch.actions, batch.masks)
        log_ratio = log_probs - batch.log_probs
        return ratio_metrics(log_ratio, log_ratio.exp(), self.coefficients)

    def optimize(self, batch: Minibatch, orders: Tensor, usable: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """A step on each minibatch, rows `orders` [S, B] of `batch`, in turn.

        Returns metrics [S, columns] and whether all stayed finite (0-d), on the device.

        If anything was non-finite, or the batch not `usable` (0-d bool) to begin with, parameters and moments are what
        they were before the call.
        """
        for tensor in self._skip:
            tensor.copy_(usable) if usable is not None else tensor.fill_(1.0)
        self.engine.optimize(batch, orders, self._metrics)
        return self._metrics, self._skip.finite

    def _follow_kl(self, metrics: Tensor, finite: Tensor) -> None:
        """Let the factors of the next update follow the mean approx_kl of the steps taken, unless they were undone."""
        if self.feedback.is_on:
            stepped = metrics[:, self.metric_names.index("stepped")]
            kl = torch.where(stepped > 0, metrics[:, self.metric_names.index("approx_kl")], 0.0)
            self.feedback.follow("update", kl.sum() / stepped.sum(), finite > 0)

    def _find_fault(self, rollout: Rollout, rows: np.ndarray) -> str:
        scale = float(self._reward_scaler.deviation()) if self._config.normalize_rewards else 1.0
        return find_fault(rollout, rows, self.metric_names, reward_scale=scale)

    def _update_normalizer(self, rollout: Rollout) -> None:
        """After the update, so that it sees observations scaled as the policy saw them when it acted."""
        if self._config.network.normalize_observations:
            assert self._network.normalizer is not None
            obs, live = rollout.obs[:-1].flatten(0, 1), rollout.live_indices()
            self._network.normalizer.update(obs if live is None else obs[live])

    def _result(self, rows: np.ndarray, fault: str | None, explained_variance: float, **at_update: Any) -> UpdateResult:
        names = self.metric_names
        stepped = rows[rows[:, names.index("stepped")] > 0] if fault is None else rows[:0]
        means = means_of(names, stepped)
        return UpdateResult(
            **at_update,
            fault=fault,
            optimizer_steps=len(stepped),
            metrics=summarize(means, names, stepped) if means else {},
            grad_norms=below("grad_norm/", means),
            loss_terms=below(GIVEN, means),
            explained_variance=explained_variance if math.isfinite(explained_variance) else None,
            minibatches=dict(zip(names, rows.T.tolist(), strict=True)) if self._debug else None,
        )
