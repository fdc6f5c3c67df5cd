"""The optimisation phase of a PPO update: epochs of minibatch steps that never read a value back to the host.

Early stopping by `target_kl` and the undoing of an update that went non-finite are decided where the steps are
computed, by masks.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor

from esper.simic.config import PPOConfig
from esper.simic.engines.choice import choose_engine
from esper.simic.engines.protocol import SkipState, Workload
from esper.simic.losses import Coefficients, Minibatch
from esper.simic.metrics import COLUMNS, RATIO_QUANTILES
from esper.simic.nets.actor_critic import ActorCritic
from esper.simic.optimizers import Adam, restore_unless
from esper.simic.threads import torch_threads


class Optimization:
    """Runs the epochs of an update over a batch.

    Batches have masks if `masked`.

    `metric_names` are the columns of the metrics, a row per minibatch; with `debug` those of `RATIO_QUANTILES` follow.
    `learner` computes, with `threads` CPU threads; `engine` is its name, for `workload`.
    """

    def __init__(
        self,
        network: ActorCritic,
        optimizer: Adam,
        coefficients: Coefficients,
        config: PPOConfig,
        *,
        masked: bool = False,
        debug: bool = False,
    ) -> None:
        self._optimizer = optimizer
        self._config = config
        device = optimizer.state.step.device
        self._skip = SkipState(torch.ones((), device=device), torch.ones((), device=device))
        self.metric_names = (
            *COLUMNS,
            *(f"grad_norm/{name}" for name in optimizer.group_names),
            "stepped",
            *(RATIO_QUANTILES if debug else ()),
        )
        rows = config.update_epochs * config.num_minibatches
        self._metrics = torch.zeros((rows, len(self.metric_names)), device=device)
        self.workload = Workload(
            network=network,
            optimizer=optimizer,
            coefficients=coefficients,
            skip=self._skip,
            config=config,
            masked=masked,
            debug=debug,
        )
        self.engine, self.threads, self.learner = choose_engine(self.workload)

    def torch_threads(self) -> AbstractContextManager[None]:
        """What torch computes with beside this learner: one thread beside the kernels, which start their own.

        Compiled graphs are compiled anew where torch has another number, so everything that calls them is within.
        """
        return torch_threads(1 if self.engine == "native" else self.threads)

    def run(self, batch: Minibatch, generator: torch.Generator, usable: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Metrics [minibatches, columns] and whether all stayed finite (0-d), both on the device.

        If anything was non-finite, or the batch not `usable` (0-d bool) to begin with, parameters and moments are what
        they were before the call.
        """
        for tensor in self._skip:
            tensor.copy_(usable) if usable is not None else tensor.fill_(1.0)
        backup = self._optimizer.state.clone()
        rows = len(batch.returns)
        orders = [
            torch.randperm(rows, generator=generator, device=generator.device)
            for _ in range(self._config.update_epochs)
        ]
        self.learner.optimize(batch, torch.cat(orders).view(len(self._metrics), -1), self._metrics)
        # A step can be finite and still throw the parameters out of float32; the next loss would show it too late.
        norms = torch.stack([torch.linalg.vector_norm(flat) for flat in self._optimizer.state.parameters])
        self._skip.finite.mul_(norms.isfinite().all())
        restore_unless(self._skip.finite > 0, self._optimizer.state, backup)
        return self._metrics, self._skip.finite
