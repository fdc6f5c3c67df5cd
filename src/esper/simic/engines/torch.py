"""PPO in torch, the definition of what engines compute: eager, or under `torch.compile`, on a GPU as a CUDA graph."""

from __future__ import annotations

import itertools
from typing import TypeAlias

import torch
from torch import Tensor
from torch.func import functional_call

from esper.envs.base import DeviceEnv
from esper.simic.advantages import compute_gae
from esper.simic.collect import Act, act_in_torch
from esper.simic.compiling import as_one_graph
from esper.simic.device_collect import Fill, Unrolled
from esper.simic.engines import graphs
from esper.simic.engines.protocol import Update, Workload
from esper.simic.faults import inputs_are_finite
from esper.simic.losses import GIVEN, Minibatch, ppo_loss
from esper.simic.metrics import COLUMNS, RATIO_QUANTILES, explained_variance
from esper.simic.nets.actor_critic import ActorCritic, Evaluation
from esper.simic.nets.recurrent import Sequences
from esper.simic.optimizers import restore_unless
from esper.simic.rollout import Rollout, at_rows
from esper.simic.sequences import evaluate_sequences

# One tensor, or none where nobody asked for them.
Quantiles: TypeAlias = tuple[Tensor, ...]
Metrics: TypeAlias = tuple[dict[str, Tensor], Quantiles]


class TorchEngine:
    """Forward, backward, clipping and Adam as one function of tensors; when `compiled` one graph.

    When `replayed` steps are CUDA graphs, compiled or not. With `whole` a rollout is one, and so is an update on it.
    """

    def __init__(self, workload: Workload, *, compiled: bool, replayed: bool, whole: bool = False) -> None:
        network, optimizer, skip = workload.network, workload.optimizer, workload.skip
        coefficients, config, debug = workload.coefficients, workload.config, workload.debug
        self._network, self._optimizer, self._skip = network, optimizer, skip
        self._coefficients, self._config, self._compiled = coefficients, config, compiled
        self._feedback, self._whole = workload.feedback, whole
        self._given = tuple(f"{GIVEN}{term.name}" for term in workload.given_terms)

        quantiles = torch.tensor(list(RATIO_QUANTILES.values()), device=workload.device)

        def loss_of(flats: tuple[Tensor, ...], minibatch: Minibatch) -> tuple[Tensor, Metrics]:
            inputs = (minibatch.obs, minibatch.actions, minibatch.masks, _sequences(minibatch))
            evaluation: Evaluation = functional_call(network, optimizer.views(flats), inputs)
            if minibatch.selected is not None:
                evaluation = Evaluation(*(of_all.gather(1, minibatch.selected) for of_all in evaluation))
            loss, metrics = ppo_loss(evaluation, minibatch, coefficients, config, workload.given_terms)
            if not debug:
                return loss, (metrics, ())
            ratio = (evaluation.log_prob - minibatch.log_probs).detach().exp()
            return loss, (metrics, (ratio.flatten().quantile(quantiles),))

        self._gradients_of = torch.func.grad(loss_of, has_aux=True)
        self._step = as_one_graph(self._eager_step) if compiled else self._eager_step
        changed = (*optimizer.tensors(), *skip, *workload.feedback.changing)
        steps = config.update_epochs * config.num_minibatches
        self._steps: graphs.Steps = self._each
        self._updates: graphs.ReplayedUpdates | None = None
        # The host has a part in the sequences of a recurrent network: where episodes begin.
        if whole and not network.state_size and steps <= graphs.MAX_STEPS_PER_GRAPH:
            self._updates = graphs.ReplayedUpdates((*changed, *workload.reward_statistics), graphs.capture)
        elif replayed:
            self._steps = graphs.Replayed(self._each, changed, graphs.capture)

    def normalize(self, rollout: Rollout) -> Rollout:
        return rollout.normalized(self._network.normalize)

    def optimize(self, batch: Minibatch, indices: Tensor, metrics: Tensor) -> None:
        optimizer, factors = self._optimizer, self._feedback.changing
        before, factors_before = optimizer.backup(), [factor.clone() for factor in factors]
        self._steps(batch, indices, metrics)
        # A step can be finite and still throw the parameters out of float32; the next loss would show it too late.
        norms = torch.stack([torch.linalg.vector_norm(flat) for flat in optimizer.parameters])
        self._skip.finite.mul_(norms.isfinite().all())
        optimizer.restore_unless(self._skip.finite > 0, before)
        restore_unless(self._skip.finite > 0, factors, factors_before)

    def whole_update(self, update: Update, rollout: Rollout, orders: Tensor) -> Tensor:
        # The host draws other rows for ignored ones, with as many of the GPU's calls as without graphs.
        if self._updates is None or rollout.ignored.any():
            return update(rollout, orders)
        return self._updates(update, rollout, orders)

    def _each(self, batch: Minibatch, indices: Tensor, metrics: Tensor) -> None:
        for rows, row in zip(indices, metrics, strict=True):
            row.copy_(self._step(batch, rows))

    def evaluate(self, obs: Tensor, actions: Tensor, masks: Tensor | None = None) -> tuple[Tensor, Tensor]:
        size = self._rows_at_once(obs)
        pieces = zip(*(torch.split(field, size) for field in (obs, actions, masks) if field is not None), strict=True)
        evaluations: list[Evaluation] = [self._network(*piece) for piece in pieces]
        return torch.cat([e.log_prob for e in evaluations]), torch.cat([e.value for e in evaluations])

    def evaluate_rollout(self, rollout: Rollout) -> tuple[Tensor, Tensor, Tensor]:
        if self._network.state_size:
            size = self._config.num_envs // self._config.num_minibatches
            return evaluate_sequences(self._network, rollout, size)
        shape = rollout.rewards.shape
        masks = None if rollout.masks is None else rollout.masks.flatten(0, 1)
        log_probs, values = self.evaluate(rollout.obs[:-1].flatten(0, 1), rollout.actions.flatten(0, 1), masks)
        values = values.view(shape)
        next_values = torch.cat((values[1:], self._values(rollout.obs[-1])[None]))
        cut = rollout.truncated & ~rollout.terminated
        next_values = at_rows(cut, self._values, rollout.final_obs, elsewhere=next_values)
        return log_probs.view(shape), values, next_values

    def _values(self, obs: Tensor) -> Tensor:
        return torch.cat([self._network.value(piece) for piece in torch.split(obs, self._rows_at_once(obs))])

    def inputs_are_finite(self, rollout: Rollout) -> Tensor:
        return inputs_are_finite(rollout)

    def advantages(
        self, rewards: Tensor, values: Tensor, next_values: Tensor, terminated: Tensor, truncated: Tensor
    ) -> tuple[Tensor, Tensor]:
        gamma, gae_lambda = self._config.gamma, self._config.gae_lambda
        return compute_gae(rewards, values, next_values, terminated, truncated, gamma=gamma, gae_lambda=gae_lambda)

    def explained_variance(self, returns: Tensor, values: Tensor) -> Tensor:
        return explained_variance(returns, values)

    def actor(self, network: ActorCritic) -> Act:
        return act_in_torch(network)

    def fill(self, env: DeviceEnv) -> Fill | None:
        if self._network.state_size:
            return None
        fill = Unrolled(env, compiled=self._compiled)
        return graphs.ReplayedRollouts(fill, graphs.capture) if self._whole else fill

    def _rows_at_once(self, obs: Tensor) -> int:
        """A rollout of images at once would have more activations than a minibatch needs by far."""
        return self._config.minibatch_size if obs.ndim == 4 else max(1, len(obs))

    def _eager_step(self, batch: Minibatch, rows: Tensor) -> Tensor:
        optimizer, skip, config = self._optimizer, self._skip, self._config
        minibatch = batch.map(lambda field: field[rows])
        gradients, (metrics, quantiles) = self._gradients_of(optimizer.parameters, minibatch)
        norms = tuple(torch.linalg.vector_norm(gradient) for gradient in gradients)
        norm = torch.linalg.vector_norm(torch.stack(norms))
        finite = torch.isfinite(norm) & torch.isfinite(metrics["loss"])
        # After a step that was skipped minibatches are computed, but not applied, and say nothing new.
        skip.finite.mul_(torch.where(skip.stepping > 0, finite.float(), 1.0))
        go_on = finite
        if not config.target_kl.is_off:
            go_on = finite & (metrics["approx_kl"] <= self._coefficients.target_kl)
        rates = optimizer.learning_rates
        if self._feedback.is_on:
            self._feedback.follow("minibatch", metrics["approx_kl"], finite & (skip.stepping > 0))
            rates = self._feedback.rates(rates)
        skip.stepping.mul_(go_on)
        if config.max_grad_norm is not None:
            clipped = norms if config.max_grad_norm_over == "group" else (norm,)
            scales = [(config.max_grad_norm / (each + 1e-6)).clamp(max=1.0) for each in clipped]
            gradients = tuple(map(torch.mul, gradients, itertools.cycle(scales)))
        optimizer.step(gradients, optimizer.by_parameter(rates), skip.stepping)
        given = (metrics[name] for name in self._given)
        row = torch.stack((*(metrics[column] for column in COLUMNS), *norms, skip.stepping, *given))
        return torch.cat((row, *quantiles)) if quantiles else row


def _sequences(minibatch: Minibatch) -> Sequences | None:
    if minibatch.recurrent_state is None or minibatch.begins is None:
        return None
    return Sequences(minibatch.recurrent_state, minibatch.begins)
