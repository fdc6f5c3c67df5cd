"""The optimisation phase of a PPO update: epochs of minibatch steps that never read a value back to the host.

The step (forward, backward, clipping, Adam) is one graph under `torch.compile`. Early stopping by `target_kl` and the
undoing of an update that went non-finite are decided on the device, by masks.
"""

from __future__ import annotations

import logging
import shutil
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call

from esper.options import ConfigError
from esper.simic.config import PPOConfig
from esper.simic.losses import Coefficients, LossMetrics, Minibatch, ppo_loss
from esper.simic.networks import ActorCritic, Evaluation
from esper.simic.optimizers import Adam, AdamState, adam_step, restore_unless

_log = logging.getLogger(__name__)

# Compiling costs 15 to 40 s of a two-core machine and saves about 3 ms a step on small networks.
MIN_STEPS_TO_COMPILE = 8_000


class Gate(NamedTuple):
    """0-d tensors: `open` is 1 until a step was refused; `finite` is 1 unless the refusal was a non-finite value."""

    open: Tensor
    finite: Tensor


MinibatchStep = Callable[
    [AdamState, tuple[Tensor, ...], Coefficients, Gate, Minibatch, Tensor],
    Tensor,
]


class Optimization:
    """Runs the epochs of an update over a batch.

    `metric_names` are the columns of the metrics, a row per minibatch: the fields of `LossMetrics`, the gradient norm
    of each parameter group before clipping, and `stepped` (1 where the optimizer really stepped).
    """

    def __init__(self, network: ActorCritic, optimizer: Adam, config: PPOConfig) -> None:
        self._optimizer = optimizer
        self._config = config
        device = optimizer.state.step.device
        self._gate = Gate(torch.ones((), device=device), torch.ones((), device=device))
        self.metric_names = (
            *LossMetrics._fields,
            *(f"grad_norm/{name}" for name in optimizer.group_names),
            "stepped",
        )
        rows = config.update_epochs * config.num_minibatches
        self._metrics = torch.zeros((rows, len(self.metric_names)), device=device)
        self.compiled = should_compile(config, device)
        step = minibatch_step(network, optimizer, config)
        # Dynamo counts recompilations per function; isolated, a process can make as many agents as it likes.
        if self.compiled:
            step = torch.compile(step, fullgraph=True, dynamic=False, isolate_recompiles=True)  # type: ignore[call-overload]
        self._step: MinibatchStep = step

    def run(self, batch: Minibatch, coefficients: Coefficients, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Metrics [minibatches, columns] and whether all stayed finite (0-d), both on the device.

        If anything was non-finite, parameters and moments are what they were before the call.
        """
        for tensor in self._gate:
            tensor.fill_(1.0)
        backup = self._optimizer.state.clone()
        row = 0
        for _ in range(self._config.update_epochs):
            order = torch.randperm(len(batch.returns), generator=generator, device=generator.device)
            for indices in order.view(self._config.num_minibatches, -1):
                metrics = self._step(
                    self._optimizer.state, self._optimizer.learning_rates, coefficients, self._gate, batch, indices
                )
                self._metrics[row].copy_(metrics)
                row += 1
        # A step can be finite and still throw the parameters out of float32; the next loss would show it too late.
        norms = torch.stack([torch.linalg.vector_norm(flat) for flat in self._optimizer.state.parameters])
        self._gate.finite.mul_(norms.isfinite().all())
        restore_unless(self._gate.finite > 0, self._optimizer.state, backup)
        return self._metrics, self._gate.finite


def minibatch_step(network: ActorCritic, optimizer: Adam, config: PPOConfig) -> MinibatchStep:
    """The function that is compiled: one optimizer step on the rows `indices` of a batch, returning a metrics row."""

    def loss_of(
        flats: tuple[Tensor, ...], minibatch: Minibatch, coefficients: Coefficients
    ) -> tuple[Tensor, LossMetrics]:
        evaluation: Evaluation = functional_call(network, optimizer.views(flats), (minibatch.obs, minibatch.actions))
        return ppo_loss(evaluation, minibatch, coefficients, config)

    gradients_of = torch.func.grad(loss_of, has_aux=True)

    def step(
        state: AdamState,
        learning_rates: tuple[Tensor, ...],
        coefficients: Coefficients,
        gate: Gate,
        batch: Minibatch,
        indices: Tensor,
    ) -> Tensor:
        minibatch = Minibatch(*(field[indices] for field in batch))
        gradients, metrics = gradients_of(state.parameters, minibatch, coefficients)
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
        adam_step(state, gradients, learning_rates, gate.open, optimizer.eps)
        return torch.stack((*metrics, *norms, gate.open))

    return step


def should_compile(config: PPOConfig, device: torch.device) -> bool:
    """Whether `compile` means yes here; `auto` without a compiler says so once.

    Raises:
        ConfigError: for `on` without a compiler.
    """
    mode = config.runtime.compile
    if mode == "off" or (mode == "auto" and config.minibatch_steps < MIN_STEPS_TO_COMPILE):
        return False
    missing = None if device.type != "cpu" else _missing_to_compile()
    if missing is None:
        return True
    if mode == "on":
        raise ConfigError("compile", mode, f"needs {missing}; use auto or off without")
    _log.warning("%s not found: updates run uncompiled, several times slower", missing)
    return False


def _missing_to_compile() -> str | None:
    """What Inductor's C++ needs and this machine lacks."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        compiler = shutil.which(get_cpp_compiler())
    except (InvalidCxxCompiler, OSError):
        compiler = None
    if compiler is None:
        return "a C++ compiler (g++ or clang++ on PATH, or CXX)"
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "Python's C headers (Debian: python3-dev)"
    return None
