"""Checks on the device that the data of an update is finite, and names on the host what was not."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from esper.simic.rollout import Rollout


def inputs_are_finite(rollout: Rollout) -> Tensor:
    """Whether all data that an update on `rollout` uses is finite (0-d bool, on its device).

    Results of the update do not show it: infinity is clipped, and corrupts running statistics permanently.
    """
    if rollout.recurrent_resets.any():
        return torch.zeros((), dtype=torch.bool, device=rollout.rewards.device)
    fields = (
        # Not by row indices: the host would wait for their number.
        values if learned is None else torch.where(_aligned(learned, values), values, 0.0)
        for _, values, learned in _inputs(rollout)
    )
    # Minimum and maximum need no tensor of the field's size, and show NaN and infinity.
    ranges = [bound for field in fields for bound in torch.aminmax(field)]
    return torch.stack(ranges).isfinite().all()


def find_fault(rollout: Rollout, rows: np.ndarray, names: tuple[str, ...], *, reward_scale: float = 1.0) -> str:
    """What was first not finite in an update on `rollout` with metrics `rows` [minibatches, names].

    Its rewards were divided by `reward_scale`.
    """
    fault = _find_input(rollout)
    if fault is None and not math.isfinite(reward_scale):
        fault = f"the deviation of discounted returns, by which rewards are divided, was {reward_scale:g}"
    fault = fault or _find_metric(rows, names) or "parameters after the last minibatch step"
    resets = count_recurrent_resets(rollout)
    return f"{fault}; recurrent states reset: {resets}" if resets else fault


def count_recurrent_resets(rollout: Rollout) -> int:
    """In how many environments the recurrent state was not finite after a step, and was reset."""
    return int(rollout.recurrent_resets.any(axis=0).sum())


def _find_input(rollout: Rollout) -> str | None:
    for what, tensor, learned in _inputs(rollout):
        values = tensor.cpu().numpy()
        bad = ~np.isfinite(values)
        if learned is not None:
            bad &= _aligned(learned, tensor).cpu().numpy()
        if bad.any():
            first = tuple(np.argwhere(bad)[0])
            step, env = first[0] + rollout.rewards.shape[0] - len(values), first[1]
            return f"the {what} of environment {env} was {values[first]:g} in step {step} of the rollout"
    if rollout.recurrent_resets.any():
        step, env = np.argwhere(rollout.recurrent_resets)[0]
        return f"the recurrent state of environment {env} was not finite after step {step} of the rollout"
    return None


def _find_metric(rows: np.ndarray, names: tuple[str, ...]) -> str | None:
    for minibatch, row in enumerate(rows):
        wrong = [f"{name} {value:g}" for name, value in zip(names, row, strict=True) if not math.isfinite(value)]
        if wrong:
            return f"in minibatch step {minibatch}: {', '.join(wrong)}"
    return None


def _inputs(rollout: Rollout) -> Iterator[tuple[str, Tensor, Tensor | None]]:
    """Names, values [T, N, ...] (of the last steps, if fewer), and which rows are used if not all.

    The next state counts only if its value is used: not after termination. Ignored rows are zeros by
    `Rollout.without_ignored`.
    """
    terminated, truncated = rollout.terminated, rollout.truncated
    if rollout.obs.is_floating_point():
        yield "observation", rollout.obs[:-1], None
        yield "next observation", rollout.obs[-1:], ~(terminated | truncated)[-1:]
        yield "final observation", rollout.final_obs, truncated & ~terminated
    yield "reward", rollout.rewards, None
    if rollout.actions.is_floating_point():
        yield "action", rollout.actions, None


def _aligned(rows: Tensor, values: Tensor) -> Tensor:
    """`rows` [T, N] with the dimensions of `values` [T, N, ...]."""
    return rows.view(*rows.shape, *(1,) * (values.ndim - rows.ndim))
