"""Feedback: a factor of a learning rate that follows the measured KL divergence; `simic/feedback.py` computes it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Literal

from esper.settings.options import Bounds, ConfigError, check_options, option

_POSITIVE = Bounds(above=0)


@dataclass(frozen=True, kw_only=True)
class FeedbackConfig:
    """The rule of rsl_rl's `schedule="adaptive"` (Rudin et al. 2022, arXiv 2109.11978), beside a schedule.

    `lr = schedule(update) * factor`. The factor begins at 1. It is divided by `step` where approx_kl is above
    2 `target`, multiplied by `step` where it is between 0 and `target` / 2, and kept within its bounds. Without a
    `target` there is no feedback.
    """

    prefixed_by: ClassVar[str] = ""

    target: float | None = option(
        None, "multiply the rate by a factor that keeps approx_kl near this (default: none)", bounds=_POSITIVE
    )
    # rsl_rl's bounds, 1e-5 and 1e-2, of its base rate, 1e-3.
    min_factor: float = option(0.01, "lowest factor", bounds=Bounds(above=0, maximum=1))
    max_factor: float = option(10.0, "highest factor", bounds=Bounds(minimum=1))
    step: float = option(1.5, "what the factor is multiplied or divided by", bounds=Bounds(above=1))
    every: Literal["update", "minibatch"] = option(
        "update", "when it changes: after an update by its mean approx_kl, or before each minibatch's step by its own"
    )

    def __post_init__(self) -> None:
        check_options(self)
        if self.is_on:
            return
        for field in dataclasses.fields(self):
            if (value := getattr(self, field.name)) != field.default:
                raise ConfigError(field.name, value, "needs a target beside it: without one there is no feedback")

    @property
    def is_on(self) -> bool:
        """Whether there is feedback."""
        return self.target is not None
