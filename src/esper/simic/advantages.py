"""Generalised advantage estimation."""

from __future__ import annotations

from torch import Tensor

from esper.simic.scan import decayed_sums


def compute_gae(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    gamma: float,
    gae_lambda: float,
) -> tuple[Tensor, Tensor]:
    """Advantages and returns, each [T, N] (Schulman et al. 2016, arXiv 1506.02438, eq. 16).

    All inputs are [T, N], floats but for the two bool masks. `next_values[t]` is the value of the next state of step t:
    of the final observation where `truncated`, not of the reset one. After termination the value is 0; both masks stop
    the recursion.
    """
    # Masked, not multiplied by 0: the value of a final observation after termination may be NaN or infinite.
    deltas = rewards + gamma * next_values.masked_fill(terminated, 0.0) - values
    decays = gamma * gae_lambda * (~(terminated | truncated)).to(values.dtype)
    advantages = decayed_sums(deltas, decays)
    return advantages, advantages + values
