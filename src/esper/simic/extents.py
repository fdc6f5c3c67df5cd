"""How large the observations and actions of a rollout are."""

from __future__ import annotations

import torch

from esper.envs.base import ActionBounds
from esper.simic.rollout import Rollout


def observation_max(rollout: Rollout) -> float | None:
    """The largest absolute value of the observations that are acted on; None of images.

    None on a GPU, which the host would have to wait for.
    """
    if not rollout.obs.is_floating_point() or not rollout.obs.is_cpu:
        return None
    low, high = torch.aminmax(rollout.obs[:-1])
    return max(-float(low), float(high))


def action_extent(rollout: Rollout, bounds: ActionBounds | None) -> float | None:
    """The root mean square of actions, clipped, in units in which `bounds` are -1 and 1; None without bounds.

    A number whose bounds are equal counts for nothing. None on a GPU, which the host would have to wait for.
    """
    if bounds is None or not rollout.actions.is_cpu:
        return None
    half, middle = (torch.from_numpy(each).to(rollout.actions) for each in bounds.scale)
    units = ((rollout.actions - middle) / half).clamp(-1, 1)[..., half > 0]
    return float(units.square().mean().sqrt()) if units.numel() else None
