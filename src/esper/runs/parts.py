"""Parts of the learner that are passed from Python. Files hold their names alone, so a resume needs them again."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from esper.settings.options import ConfigError, check_options, option


@dataclass(frozen=True, kw_only=True)
class PartsConfig:
    """What is made in Python in place of what settings describe; a value read from a file is a name."""

    group: ClassVar[str] = "parts"
    flags: ClassVar[bool] = False

    network: str | Callable[..., Any] | None = option(
        None, "factory that gets the spec of the environment and returns the modules of the network"
    )
    loss_terms: dict[str, Any] | None = option(
        None, "further terms of the loss by name, each a function and its weight"
    )
    optimizer: str | Callable[..., Any] | None = option(
        None, "factory that gets parameter groups and returns a torch optimizer"
    )

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def given(self) -> dict[str, Any]:
        """The parts that are not the usual ones, by name."""
        parts = {"network": self.network, "loss_terms": self.loss_terms, "optimizer": self.optimizer}
        return {name: part for name, part in parts.items() if part}

    def check(self) -> None:
        """Refuse parts of which only the names are known, and loss terms that have no name in files.

        Raises:
            ConfigError: naming the part.
        """
        again = "was given in Python, where it must be given again: esper.resume(folder, {}=...)"
        for name, part in self.given.items():
            if isinstance(part, str):
                raise ConfigError(name, part, again.format(name))
        for name, term in (self.loss_terms or {}).items():
            if isinstance(term, list | tuple) and term and isinstance(term[0], str):
                raise ConfigError("loss_terms", f"{name}: {term[0]}", again.format("loss_terms"))
            weight = term[1] if isinstance(term, tuple) and len(term) == 2 and callable(term[0]) else None
            number = isinstance(weight, int | float) and math.isfinite(weight)
            if not (callable(weight) or number):
                allowed = "must be a function and its weight, a finite number or a function of the update's index"
                raise ConfigError("loss_terms", f"{name}: {term}", allowed)
