"""What computes: minibatch steps, log probabilities and values. Here in torch, eager or under `torch.compile`."""

from __future__ import annotations

from typing import NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor
from torch.func import functional_call

from esper.envs.base import DeviceEnv
from esper.simic.advantages import compute_gae
from esper.simic.collect import Act, act_in_torch
from esper.simic.config import PPOConfig
from esper.simic.device_collect import Fill, Unrolled
from esper.simic.engines.graphs import Replayed, Steps
from esper.simic.faults import inputs_are_finite
from esper.simic.losses import RATIO_QUANTILES, Coefficients, LossMetrics, Minibatch, ppo_loss
from esper.simic.nets.actor_critic import ActorCritic, Evaluation
from esper.simic.nets.recurrent import Sequences
from esper.simic.optimizers import Adam, adam_step
from esper.simic.rollout import Rollout

# One tensor, or none where nobody asked for them.
Quantiles: TypeAlias = tuple[Tensor, ...]


class Gate(NamedTuple):
    """0-d tensors: `open` is 1 until a step was refused; `finite` is 1 unless the refusal was a non-finite value."""

    open: Tensor
    finite: Tensor


class Learner(Protocol):
    """The arithmetic of PPO on one network. Observations are normalized ones, but for the actor's."""

    def optimize(self, batch: Minibatch, indices: Tensor, metrics: Tensor) -> None:
        """A step on each minibatch, the rows `indices` [S, B] of `batch`, in turn.

        Fills `metrics` [S, columns]: the fields of `LossMetrics`, the gradient norm of each parameter group before
        clipping, whether the optimizer stepped, and for debugging `RATIO_QUANTILES`. A step that is refused closes the
        gate, and changes nothing.
        """
        ...

    def evaluate(self, obs: Tensor, actions: Tensor, masks: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Log probabilities of `actions` among what `masks` allow, and values, each [M], for `obs` [M, D]."""
        ...

    def value(self, obs: Tensor) -> Tensor:
        """Values [M] of `obs` [M, D]."""
        ...

    def inputs_are_finite(self, rollout: Rollout) -> Tensor:
        """Whether everything that an update on `rollout` learns from is finite (0-d bool, on its device)."""
        ...

    def advantages(
        self, rewards: Tensor, values: Tensor, next_values: Tensor, terminated: Tensor, truncated: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Advantages and returns, as `compute_gae`; all [T, N]."""
        ...

    def actor(self, network: ActorCritic) -> Act:
        """The policy of its network as it is now."""
        ...

    def fill(self, env: DeviceEnv) -> Fill:
        """What fills rollouts in `env`."""
        ...


class TorchLearner:
    """Forward, backward, clipping and Adam as one function of tensors; when `compiled` one graph, replayed on a GPU."""

    def __init__(
        self,
        network: ActorCritic,
        optimizer: Adam,
        coefficients: Coefficients,
        gate: Gate,
        config: PPOConfig,
        *,
        compiled: bool,
        debug: bool = False,
    ) -> None:
        self._network, self._optimizer, self._gate = network, optimizer, gate
        self._config, self._compiled = config, compiled

        quantiles = torch.tensor(list(RATIO_QUANTILES.values()), device=gate.open.device)

        def loss_of(flats: tuple[Tensor, ...], minibatch: Minibatch) -> tuple[Tensor, tuple[LossMetrics, Quantiles]]:
            inputs = (minibatch.obs, minibatch.actions, minibatch.masks, _sequences(minibatch))
            evaluation: Evaluation = functional_call(network, optimizer.views(flats), inputs)
            if minibatch.picked is not None:
                evaluation = Evaluation(*(of_all.gather(1, minibatch.picked) for of_all in evaluation))
            loss, metrics = ppo_loss(evaluation, minibatch, coefficients, config)
            if not debug:
                return loss, (metrics, ())
            ratio = (evaluation.log_prob - minibatch.log_probs).detach().exp()
            return loss, (metrics, (ratio.flatten().quantile(quantiles),))

        self._gradients_of = torch.func.grad(loss_of, has_aux=True)
        # Dynamo counts recompilations per function; isolated, a process can make as many agents as it likes.
        self._step = (
            torch.compile(self._eager_step, fullgraph=True, dynamic=False, isolate_recompiles=True)  # type: ignore[call-overload]
            if compiled
            else self._eager_step
        )
        changed = (*optimizer.state.tensors(), *gate)
        on_gpu = optimizer.state.step.device.type == "cuda"
        self._steps: Steps = Replayed(self._each, changed) if compiled and on_gpu else self._each

    def optimize(self, batch: Minibatch, indices: Tensor, metrics: Tensor) -> None:
        self._steps(batch, indices, metrics)

    def _each(self, batch: Minibatch, indices: Tensor, metrics: Tensor) -> None:
        for rows, row in zip(indices, metrics, strict=True):
            row.copy_(self._step(batch, rows))

    def evaluate(self, obs: Tensor, actions: Tensor, masks: Tensor | None = None) -> tuple[Tensor, Tensor]:
        # A rollout of images at once would have more activations than a minibatch needs by far.
        size = self._config.minibatch_size if obs.ndim == 4 else len(obs)
        pieces = zip(*(torch.split(field, size) for field in (obs, actions, masks) if field is not None), strict=True)
        evaluations: list[Evaluation] = [self._network(*piece) for piece in pieces]
        return torch.cat([e.log_prob for e in evaluations]), torch.cat([e.value for e in evaluations])

    def value(self, obs: Tensor) -> Tensor:
        return self._network.value(obs)

    def inputs_are_finite(self, rollout: Rollout) -> Tensor:
        return inputs_are_finite(rollout)

    def advantages(
        self, rewards: Tensor, values: Tensor, next_values: Tensor, terminated: Tensor, truncated: Tensor
    ) -> tuple[Tensor, Tensor]:
        gamma, gae_lambda = self._config.gamma, self._config.gae_lambda
        return compute_gae(rewards, values, next_values, terminated, truncated, gamma=gamma, gae_lambda=gae_lambda)

    def actor(self, network: ActorCritic) -> Act:
        return act_in_torch(network)

    def fill(self, env: DeviceEnv) -> Fill:
        return Unrolled(env, compiled=self._compiled)

    def _eager_step(self, batch: Minibatch, rows: Tensor) -> Tensor:
        state, gate, config = self._optimizer.state, self._gate, self._config
        minibatch = batch.map(lambda field: field[rows])
        gradients, (metrics, quantiles) = self._gradients_of(state.parameters, minibatch)
        norms = tuple(torch.linalg.vector_norm(gradient) for gradient in gradients)
        norm = torch.linalg.vector_norm(torch.stack(norms))
        finite = torch.isfinite(norm) & torch.isfinite(metrics.loss)
        # A gate already closed says nothing new: its minibatches are computed, but not applied.
        gate.finite.mul_(torch.where(gate.open > 0, finite.float(), 1.0))
        go_on = finite if config.target_kl is None else finite & (metrics.approx_kl <= config.target_kl)
        gate.open.mul_(go_on)
        if config.max_grad_norm is not None:
            scale = (config.max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
            gradients = tuple(gradient * scale for gradient in gradients)
        adam_step(state, gradients, self._optimizer.learning_rates, gate.open, config.adam_eps)
        row = torch.stack((*metrics, *norms, gate.open))
        return torch.cat((row, *quantiles)) if quantiles else row


def _sequences(minibatch: Minibatch) -> Sequences | None:
    if minibatch.memory is None or minibatch.begins is None:
        return None
    return Sequences(minibatch.memory, minibatch.begins)
