"""Minibatch steps and rollouts as CUDA graphs: the host launches once instead of some hundred times a step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from esper.envs.base import EnvStates
from esper.simic.compiling import largest_part
from esper.simic.device_collect import Fill
from esper.simic.engines.protocol import Update
from esper.simic.losses import Minibatch
from esper.simic.nets.actor_critic import ActorCritic
from esper.simic.rollout import Rollout

Work: TypeAlias = Callable[[], None]
Capture: TypeAlias = Callable[[Work, torch.device], Work]
# Steps on the rows `indices` [S, B] of a batch, in turn, with a row of metrics each.
Steps: TypeAlias = Callable[[Minibatch, Tensor, Tensor], None]

# A graph has a node for each kernel: some ten a step where torch compiles, 200 where not, 5,000 of an LSTM. Nodes take
# memory, and time to capture.
MAX_STEPS_PER_GRAPH = 64


def capture(work: Work, device: torch.device) -> Work:
    """`work`, which launches kernels on tensors of `device` that stay where they are, as a graph to replay.

    Runs it once. While it captures no other thread of the process may use the GPU.
    """
    # Streams are made on the current device, and torch's own stream for captures on that of the first one.
    with torch.cuda.device(device):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            # What compiles, or allocates for good, does so before the capture.
            work()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            work()
    return graph.replay


class Replayed:
    """`steps`, captured at the first call. `changed` are the tensors that they change beside the metrics.

    A graph reads and writes where it did when it was captured: batches are copied there, and rates, which are written
    in place, are seen. Batches with other fields have a graph of their own.
    """

    def __init__(self, steps: Steps, changed: Sequence[Tensor], capture: Capture) -> None:
        self._steps, self._changed, self._capture = steps, changed, capture
        self._graphs: dict[tuple[bool, ...], _Graph] = {}

    def __call__(self, batch: Minibatch, indices: Tensor, metrics: Tensor) -> None:
        size = largest_part(len(indices), MAX_STEPS_PER_GRAPH)
        fields = tuple(field is not None for field in batch)
        if fields not in self._graphs:
            self._graphs[fields] = self._captured(batch, indices[:size], metrics[:size])
        graph = self._graphs[fields]
        for kept, given in zip(graph.batch.tensors(), batch.tensors(), strict=True):
            kept.copy_(given)
        for rows, results in zip(torch.split(indices, size), torch.split(metrics, size), strict=True):
            graph.indices.copy_(rows)
            graph.replay()
            results.copy_(graph.metrics)

    def _captured(self, batch: Minibatch, indices: Tensor, metrics: Tensor) -> _Graph:
        batch, indices, metrics = batch.map(torch.clone), indices.clone(), metrics.clone()
        work = partial(self._steps, batch, indices, metrics)
        replay = _captured_unseen(work, indices.device, self._changed, self._capture)
        return _Graph(batch, indices, metrics, replay)


class ReplayedRollouts:
    """A `Fill` that does what `fill` does as one graph, captured at the first call, and again for another rollout.

    Random numbers are drawn outside, and copied to where the graph reads them.
    """

    def __init__(self, fill: Fill, capture: Capture) -> None:
        self._fill, self._capture = fill, capture
        self._rollout: Rollout | None = None

    def __call__(
        self,
        network: ActorCritic,
        states: EnvStates,
        noise: Tensor,
        uniform: Tensor,
        rollout: Rollout,
        recurrent_state: Tensor | None = None,
    ) -> EnvStates:
        assert recurrent_state is None
        if rollout is not self._rollout:
            self._states, self._noise, self._uniform = (
                EnvStates(*map(torch.clone, states)),
                noise.clone(),
                uniform.clone(),
            )
            self._replay = self._capture(lambda: self._collect(network, rollout), noise.device)
            self._rollout = rollout
        for kept, given in zip((*self._states, self._noise, self._uniform), (*states, noise, uniform), strict=True):
            kept.copy_(given)
        self._replay()
        return self._states

    def _collect(self, network: ActorCritic, rollout: Rollout) -> None:
        after = self._fill(network, self._states, self._noise, self._uniform, rollout)
        for kept, new in zip(self._states, after, strict=True):
            kept.copy_(new)


class ReplayedUpdates:
    """Updates as one graph, captured at the first call, for the rollout that is collected into again and again.

    Where other rollouts follow, it is captured once more, and they are copied to where that graph reads. `changed` are
    the tensors that an update changes beside its results.
    """

    def __init__(self, changed: Sequence[Tensor], capture: Capture) -> None:
        self._changed, self._capture = changed, capture
        self._rollout: Rollout | None = None
        self._own = False

    def __call__(self, update: Update, rollout: Rollout, orders: Tensor) -> Tensor:
        if self._rollout is None:
            self._captured(update, rollout, orders)
        elif rollout is not self._rollout:
            if not self._own:
                self._captured(update, rollout.copied(), orders)
                self._own = True
            for kept, given in zip(self._rollout.tensors(), rollout.tensors(), strict=True):
                kept.copy_(given)
        self._orders.copy_(orders)
        self._replay()
        return self._results

    def _captured(self, update: Update, rollout: Rollout, orders: Tensor) -> None:
        kept = orders.clone()

        def work() -> None:
            self._results = update(rollout, kept)

        self._replay = _captured_unseen(work, orders.device, self._changed, self._capture)
        self._orders, self._rollout = kept, rollout


def _captured_unseen(work: Work, device: torch.device, changed: Sequence[Tensor], capture: Capture) -> Work:
    """`work`, captured; the tensors `changed` are what they were before the warm-up."""
    before = [tensor.clone() for tensor in changed]
    replay = capture(work, device)
    for tensor, saved in zip(changed, before, strict=True):
        tensor.copy_(saved)
    return replay


class _Graph(NamedTuple):
    """Steps on `indices` of `batch`, which write `metrics`: the tensors that `replay` knows."""

    batch: Minibatch
    indices: Tensor
    metrics: Tensor
    replay: Work
