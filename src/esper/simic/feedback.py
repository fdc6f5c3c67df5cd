"""Factors of the learning rates that follow the measured KL divergence, on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from esper.schedules import FeedbackConfig


class Feedback:
    """A factor for each of the parameter groups `configs`, a 0-d tensor that is written in place; 1 where it is off."""

    def __init__(self, configs: Mapping[str, FeedbackConfig], device: torch.device) -> None:
        self.configs = tuple(configs.values())
        self.factors = tuple(torch.ones((), device=device) for _ in configs)
        self.is_on = any(config.is_on for config in self.configs)
        self._groups = tuple(configs)

    @property
    def changing(self) -> tuple[Tensor, ...]:
        """The factors, where any of them ever changes."""
        return self.factors if self.is_on else ()

    def rates(self, learning_rates: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The rates of the schedules, times the factors."""
        return tuple(rate * factor for rate, factor in zip(learning_rates, self.factors, strict=True))

    def follow(self, every: str, approx_kl: Tensor, enabled: Tensor) -> None:
        """Change the factors that change with `every` update or minibatch, where `enabled` (0-d bool) holds."""
        for config, factor in zip(self.configs, self.factors, strict=True):
            if config.is_on and config.every == every:
                factor.copy_(torch.where(enabled, adjusted(factor, approx_kl, config), factor))

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of the factors by group."""
        return {group: factor.clone() for group, factor in zip(self._groups, self.factors, strict=True)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on with the factors in `state`, in place, where they are on; else they are 1."""
        for group, config, factor in zip(self._groups, self.configs, self.factors, strict=True):
            factor.copy_(state[group]) if config.is_on else factor.fill_(1.0)
            factor.clamp_(config.min_factor, config.max_factor)

    def reset(self) -> None:
        """Begin again at 1."""
        for factor in self.factors:
            factor.fill_(1.0)

    def values(self) -> dict[str, float] | None:
        """The factors as the host reads them; None where there is no feedback."""
        return {group: float(factor) for group, factor in self.state_dict().items()} if self.is_on else None


# What float32 makes of an approx_kl of 0: the error of (r - 1) - log r near 1.
ROUNDING = 1e-7


def adjusted(factor: Tensor, approx_kl: Tensor, config: FeedbackConfig) -> Tensor:
    """`factor` after a measured `approx_kl`, both 0-d; one of 0, but for rounding, or NaN changes nothing."""
    assert config.target is not None
    too_far, too_near = approx_kl > 2 * config.target, (approx_kl > ROUNDING) & (approx_kl < config.target / 2)
    changed = torch.where(too_far, factor / config.step, torch.where(too_near, factor * config.step, factor))
    return changed.clamp(config.min_factor, config.max_factor)
