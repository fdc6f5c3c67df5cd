"""Minibatch steps of a whole update as one CUDA graph: the host launches once instead of some hundred times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from esper.simic.losses import Minibatch

Work: TypeAlias = Callable[[], None]
# Steps on the rows `indices` [S, B] of a batch, in turn, with a row of metrics each.
Steps: TypeAlias = Callable[[Minibatch, Tensor, Tensor], None]


def capture(work: Work) -> Work:
    """`work`, which launches kernels on tensors that stay where they are, as a graph to replay; runs it once."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        # What compiles, or allocates for good, does so before the capture.
        work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


class Replayed:
    """`steps`, captured at the first call. `changed` are the tensors that they change beside the metrics.

    A graph reads and writes where it did when it was captured: batches are copied there, and rates, which are written
    in place, are seen.
    """

    def __init__(self, steps: Steps, changed: Sequence[Tensor], capture: Callable[[Work], Work] = capture) -> None:
        self._steps, self._changed, self._capture = steps, changed, capture
        self._replay: Work | None = None

    def __call__(self, batch: Minibatch, indices: Tensor, metrics: Tensor) -> None:
        if self._replay is None:
            self._allocate(batch, indices, metrics)
        for kept, given in zip((*self._batch.tensors(), self._indices), (*batch.tensors(), indices), strict=True):
            kept.copy_(given)
        assert self._replay is not None
        self._replay()
        metrics.copy_(self._metrics)

    def _allocate(self, batch: Minibatch, indices: Tensor, metrics: Tensor) -> None:
        self._batch = batch.map(torch.clone)
        self._indices, self._metrics = indices.clone(), metrics.clone()
        before = [tensor.clone() for tensor in self._changed]
        self._replay = self._capture(lambda: self._steps(self._batch, self._indices, self._metrics))
        for tensor, saved in zip(self._changed, before, strict=True):
            tensor.copy_(saved)
