"""Replaying minibatch steps, with a capture that is pretended: a GPU's is tested where there is one."""

from __future__ import annotations

import torch
from torch import Tensor

from esper.simic.engines.graphs import Replayed, Work
from esper.simic.losses import Minibatch


def pretended(work: Work) -> Work:
    """Runs the work once, as a warm-up does, and replays it on the tensors that it knew then."""
    work()
    return work


def batch(value: float) -> Minibatch:
    return Minibatch(*(torch.full((4,), value) for _ in Minibatch._fields))


class Summing:
    """Steps that add a rate times the rows to a total."""

    def __init__(self) -> None:
        self.total, self.rate = torch.zeros(()), torch.ones(())

    def __call__(self, batch: Minibatch, indices: Tensor, metrics: Tensor) -> None:
        for rows, row in zip(indices, metrics, strict=True):
            self.total.add_(self.rate * batch.obs[rows].sum())
            row.fill_(self.total)


def test_sees_the_batch_and_the_rate_of_each_call_and_nothing_of_the_warm_up() -> None:
    steps, indices, metrics = Summing(), torch.tensor([[0, 1], [2, 3]]), torch.zeros(2)
    replayed = Replayed(steps, [steps.total], pretended)
    replayed(batch(1.0), indices, metrics)
    assert metrics.tolist() == [2.0, 4.0]
    steps.rate.fill_(10.0)
    replayed(batch(5.0), torch.tensor([[0, 0], [0, 1]]), metrics)
    # 4 from before, and twice two rows of 5 at a rate of 10.
    assert metrics.tolist() == [104.0, 204.0]
    assert steps.total == 204.0
