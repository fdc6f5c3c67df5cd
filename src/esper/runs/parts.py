"""Parts of the learner that are passed from Python. Files hold their names alone, so a resume needs them again."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from esper.settings.options import ConfigError, check_options, option
from esper.settings.values import Convertible


class _Named(Convertible):
    """An object from Python, or its name in files."""

    @classmethod
    def convert(cls, value: Any) -> Any:
        return value if callable(value) or isinstance(value, str) else None


class NetworkPart(_Named):
    """A network."""

    expects = "a factory that gets the spec of the environment and returns the modules of the network"


class OptimizerPart(_Named):
    """An optimizer."""

    expects = "a factory that gets parameter groups and returns a torch optimizer"


class LossTermsPart(Convertible):
    """Terms of the loss."""

    expects = "a dict of terms by name, each a function and its weight"

    @classmethod
    def convert(cls, value: Any) -> Any:
        return value if isinstance(value, dict) else None


if TYPE_CHECKING:
    _Network: TypeAlias = str | Callable[..., Any]
    _Optimizer: TypeAlias = str | Callable[..., Any]
    _LossTerms: TypeAlias = dict[str, Any]
else:
    _Network, _Optimizer, _LossTerms = NetworkPart, OptimizerPart, LossTermsPart


@dataclass(frozen=True, kw_only=True)
class PartsConfig:
    """What is made in Python in place of what settings describe; a value read from a file is a name."""

    group: ClassVar[str] = "parts"
    flags: ClassVar[bool] = False

    network: _Network | None = option(None, NetworkPart.expects)
    loss_terms: _LossTerms | None = option(None, LossTermsPart.expects)
    optimizer: _Optimizer | None = option(None, OptimizerPart.expects)

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


def check_objects(settings: Mapping[str, Any]) -> None:
    """Refuse a name in place of a part: names are what files have.

    Raises:
        ConfigError: naming the part.
    """
    for name, kind in (("network", NetworkPart), ("loss_terms", LossTermsPart), ("optimizer", OptimizerPart)):
        if isinstance(value := settings.get(name), str):
            raise ConfigError(name, value, f"must be {kind.expects}")
