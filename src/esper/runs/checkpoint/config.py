"""The settings of checkpoints. Does not import torch, so the command line starts quickly."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from esper.settings.options import Bounds, ConfigError, check_options, option


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When checkpoints are written and how many are kept. One is always written when a run begins and when it stops."""

    group: ClassVar[str] = "checkpoints"

    checkpoint_every: int | str = option("5m", "updates, or minutes as 5m, between checkpoints", may_change="always")
    keep_checkpoints: int = option(3, "newest checkpoints that are kept", bounds=Bounds(minimum=1), may_change="always")

    def __post_init__(self) -> None:
        check_options(self)
        if not any(self.interval):
            raise ConfigError(
                "checkpoint_every", self.checkpoint_every, "must be updates, at least 1, or minutes as 5m or 0.5m"
            )

    @property
    def interval(self) -> tuple[int, float]:
        """Updates and seconds between checkpoints; the unused one is 0."""
        if isinstance(self.checkpoint_every, int):
            return max(self.checkpoint_every, 0), 0.0
        minutes = re.fullmatch(r"(\d{1,9}(\.\d{1,9})?)m", self.checkpoint_every)
        return 0, float(minutes[1]) * 60 if minutes else 0.0
