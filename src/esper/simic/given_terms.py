"""Loss terms from Python: functions of a minibatch, with weights that may change with the update."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from esper.schedules.shape import LARGEST
from esper.settings.options import ConfigError
from esper.simic.losses import LOSS_TERMS, Inputs, LossTerm

# The mean over a minibatch (0-d), and its weight in the loss: a number, or a function of the update's index.
GivenTerm: TypeAlias = tuple[Callable[[Inputs], Tensor], float | Callable[[int], float]]


class GivenTerms:
    """The `terms` of the loss that `given` names. Weights are 0-d tensors that are written in place.

    Raises:
        ConfigError: naming the term and what is wrong with it.
    """

    def __init__(self, given: Mapping[str, GivenTerm], device: torch.device) -> None:
        known = [term.name for term in LOSS_TERMS]
        for name, term in given.items():
            if not isinstance(name, str) or not name.isidentifier() or name in known:
                allowed = f"must be a name of letters, digits and _, and none of {', '.join(known)}"
                raise ConfigError("loss_terms", name, allowed)
            if not (isinstance(term, tuple) and len(term) == 2 and callable(term[0])):
                raise ConfigError("loss_terms", f"{name}: {term}", "must be a function and its weight")
        self._weights = {name: (weight, torch.zeros((), device=device)) for name, (_, weight) in given.items()}
        self.names = tuple(given)
        self.terms = tuple(self._term(name, mean) for name, (mean, _) in given.items())
        self.set_weights(0)

    def set_weights(self, update: int) -> None:
        """Write the weights of update number `update` into their tensors."""
        for name, (weight, tensor) in self._weights.items():
            value = weight(update) if callable(weight) else weight
            if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST:
                at = f" in update {update}" if callable(weight) else ""
                raise ConfigError("loss_terms", f"{name}: {value!r}", f"must have a finite number as its weight{at}")
            tensor.fill_(value)

    def _term(self, name: str, mean: Callable[[Inputs], Tensor]) -> LossTerm:
        weight = self._weights[name][1]

        def checked(inputs: Inputs) -> Tensor:
            value = mean(inputs)
            if not isinstance(value, Tensor) or value.ndim:
                found = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise ConfigError("loss_terms", name, f"must return the mean over the minibatch, 0-d, not {found}")
            return value

        return LossTerm(name, checked, lambda inputs: weight)
