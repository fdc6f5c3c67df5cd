"""Optimizers over named parameter groups, each with its own learning rate in a 0-d tensor; Adam is the usual one.

A group keeps its parameters, and Adam's moments for them, in one flat vector each; the module's parameters are views
into it. One vector means one fused kernel per group, a gradient norm in one reduction, and an update that is undone by
one copy. Rates are written in place and never replaced, so a compiled or captured graph always sees the current one.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from esper.simic.state import StateForm, form_of

BETA1, BETA2 = 0.9, 0.999


class AdamState(NamedTuple):
    """The tensors Adam works on; one entry per group, but for the shared `step` count."""

    parameters: tuple[Tensor, ...]
    exp_avg: tuple[Tensor, ...]
    exp_avg_sq: tuple[Tensor, ...]
    step: Tensor

    def clone(self) -> AdamState:
        parameters, exp_avg, exp_avg_sq = (
            tuple(tensor.clone() for tensor in field) for field in (self.parameters, self.exp_avg, self.exp_avg_sq)
        )
        return AdamState(parameters, exp_avg, exp_avg_sq, self.step.clone())

    def tensors(self) -> tuple[Tensor, ...]:
        return (*self.parameters, *self.exp_avg, *self.exp_avg_sq, self.step)


class Optimizer(ABC):
    """What changes `groups` of named parameters of `module`. `parameters` are their flat vectors.

    Raises:
        ValueError: naming a trainable parameter that is in no group, or in two.
    """

    is_given: ClassVar[bool] = False

    def __init__(self, module: nn.Module, groups: Mapping[str, Mapping[str, nn.Parameter]]) -> None:
        _check_membership(module, groups)
        self.group_names = tuple(groups)
        self._layout = tuple(
            tuple((name, parameter.shape) for name, parameter in group.items()) for group in groups.values()
        )
        self.parameters = tuple(_flatten_in_place(group) for group in groups.values())
        self.device = self.parameters[0].device
        self.learning_rates = tuple(torch.zeros((), device=self.device) for _ in groups)
        self._places = [(*_place(module, name), name) for group in groups.values() for name in group]
        self._shares: tuple[Tensor, ...] = ()
        self._held: tuple[tuple[Tensor, slice], ...] = ()

    def check_parameters(self) -> None:
        """Check that the module's parameters are still views of the flat vectors.

        Raises:
            ValueError: naming one that is not: it would not learn.
        """
        for owner, leaf, address, name in self._places:
            if owner._parameters[leaf].data_ptr() != address:  # type: ignore[union-attr]
                how = "with torch.no_grad(): parameter.copy_(values), or load_state_dict without assign"
                raise ValueError(f"parameter {name} was replaced by another tensor; write into it: {how}")

    @abstractmethod
    def step(self, gradients: tuple[Tensor, ...], rates: tuple[Tensor, ...], enabled: Tensor) -> None:
        """One step with a flat gradient per group, at the `by_parameter` rates; nothing where `enabled` (0-d) is 0."""

    @abstractmethod
    def tensors(self) -> tuple[Tensor, ...]:
        """What a step changes in place."""

    @abstractmethod
    def backup(self) -> Any:
        """Copies of all that a step changes."""

    @abstractmethod
    def restore_unless(self, condition: Tensor, backup: Any) -> None:
        """Put `backup` back unless `condition` (0-d bool) holds."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Copies of its state and the rates; the parameters are the module's to save."""

    @abstractmethod
    def state_form(self) -> StateForm:
        """What `state_dict` holds."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copy `state` into what is here.

        Raises:
            ValueError: for a state of another optimizer.
        """

    def set_learning_rates(self, rates: Mapping[str, float]) -> None:
        """Write each group's rate into its tensor, in place."""
        for name, tensor in zip(self.group_names, self.learning_rates, strict=True):
            tensor.fill_(rates[name])

    def hold(self, names: Collection[str]) -> None:
        """Let `freeze` hold parameters `names`; called before an engine is made."""
        self._shares = tuple(map(torch.ones_like, self.parameters)) if names else ()
        begins = self.offsets()
        self._held = tuple(
            (share, slice(begins[name], begins[name] + shape.numel()))
            for share, layout in zip(self._shares, self._layout, strict=False)
            for name, shape in layout
            if name in names
        )

    def freeze(self, frozen: bool) -> None:
        """Hold them from the next step on, or let them go: their share of the rates is 0, or 1."""
        for share, place in self._held:
            share[place] = 0.0 if frozen else 1.0

    def by_parameter(self, rates: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The `rates` of the groups, or those of each number in them where some can be held."""
        return tuple(map(torch.mul, rates, self._shares)) if self._shares else rates

    def views(self, flats: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """The named parameters that flat vectors `flats` hold, for `torch.func.functional_call`."""
        named: dict[str, Tensor] = {}
        for flat, layout in zip(flats, self._layout, strict=True):
            pieces = torch.split(flat, [shape.numel() for _, shape in layout])
            named.update((name, piece.view(shape)) for (name, shape), piece in zip(layout, pieces, strict=True))
        return named

    def offsets(self) -> dict[str, int]:
        """Where each named parameter begins in its group's flat vector."""
        found: dict[str, int] = {}
        for layout in self._layout:
            sizes = [shape.numel() for _, shape in layout]
            found.update(zip((name for name, _ in layout), itertools.accumulate([0, *sizes]), strict=False))
        return found

    def _learning_rates(self) -> dict[str, Tensor]:
        return {name: rate.clone() for name, rate in zip(self.group_names, self.learning_rates, strict=True)}

    def _load_learning_rates(self, stored: Mapping[str, Tensor]) -> None:
        self._load_by_group("learning_rate", self.learning_rates, stored)

    def _load_by_group(self, key: str, tensors: tuple[Tensor, ...], stored: Mapping[str, Tensor]) -> None:
        if set(stored) != set(self.group_names):
            raise ValueError(f"{key} has groups {sorted(stored)}; this optimizer has {list(self.group_names)}")
        for name, tensor in zip(self.group_names, tensors, strict=True):
            _copy_same_shape(tensor, stored[name], f"{key} of group {name}")


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015, arXiv 1412.6980) for `groups` of named parameters of `module`."""

    def __init__(self, module: nn.Module, groups: Mapping[str, Mapping[str, nn.Parameter]], *, eps: float) -> None:
        super().__init__(module, groups)
        self.eps = eps
        zeros = tuple(torch.zeros_like(flat) for flat in self.parameters)
        step = torch.zeros((), device=self.device)
        self.state = AdamState(self.parameters, zeros, tuple(map(torch.zeros_like, zeros)), step)

    def step(self, gradients: tuple[Tensor, ...], rates: tuple[Tensor, ...], enabled: Tensor) -> None:
        adam_step(self.state, gradients, rates, enabled, self.eps)

    def tensors(self) -> tuple[Tensor, ...]:
        return self.state.tensors()

    def backup(self) -> Any:
        return self.state.clone()

    def restore_unless(self, condition: Tensor, backup: AdamState) -> None:
        restore_unless(condition, self.tensors(), backup.tensors())

    def state_dict(self) -> dict[str, Any]:
        """Copies of the moments, the step count and the rates."""
        return {
            "exp_avg": {name: t.clone() for name, t in zip(self.group_names, self.state.exp_avg, strict=True)},
            "exp_avg_sq": {name: t.clone() for name, t in zip(self.group_names, self.state.exp_avg_sq, strict=True)},
            "learning_rate": self._learning_rates(),
            "step": self.state.step.clone(),
        }

    def state_form(self) -> StateForm:
        return form_of(self.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copy `state` into the tensors that are here: none is replaced, so a compiled update goes on using them."""
        if "exp_avg" not in state:
            raise ValueError("the state is of another optimizer; give the same optimizer= again")
        self._load_by_group("exp_avg", self.state.exp_avg, state["exp_avg"])
        self._load_by_group("exp_avg_sq", self.state.exp_avg_sq, state["exp_avg_sq"])
        self._load_learning_rates(state["learning_rate"])
        _copy_same_shape(self.state.step, state["step"], "step")


def adam_step(
    state: AdamState, gradients: tuple[Tensor, ...], learning_rates: tuple[Tensor, ...], enabled: Tensor, eps: float
) -> None:
    """One step in place; where `enabled` (0-d, 0 or 1) is 0 nothing changes, without the host knowing."""
    state.step.add_(enabled)
    # 1 - beta^step in float32 loses digits to cancellation at small steps; expm1 does not. A disabled first step
    # divides by 0, but its result is multiplied by enabled = 0 through `where`.
    correction1 = -torch.expm1(state.step * math.log(BETA1))
    correction2_sqrt = (-torch.expm1(state.step * math.log(BETA2))).sqrt()
    on = enabled > 0
    for parameters, exp_avg, exp_avg_sq, gradient, learning_rate in zip(
        state.parameters, state.exp_avg, state.exp_avg_sq, gradients, learning_rates, strict=True
    ):
        new_avg = torch.lerp(exp_avg, gradient, 1 - BETA1)
        new_avg_sq = torch.lerp(exp_avg_sq, gradient * gradient, 1 - BETA2)
        denominator = new_avg_sq.sqrt() / correction2_sqrt + eps
        new_parameters = parameters - (learning_rate / correction1) * (new_avg / denominator)
        parameters.copy_(torch.where(on, new_parameters, parameters))
        exp_avg.copy_(torch.where(on, new_avg, exp_avg))
        exp_avg_sq.copy_(torch.where(on, new_avg_sq, exp_avg_sq))


def restore_unless(condition: Tensor, tensors: Iterable[Tensor], backup: Iterable[Tensor]) -> None:
    """Put `backup` back into `tensors` unless `condition` (0-d bool) holds; decided on the device."""
    for tensor, saved in zip(tensors, backup, strict=True):
        tensor.copy_(torch.where(condition, tensor, saved))


def _flatten_in_place(group: Mapping[str, nn.Parameter]) -> Tensor:
    """One vector with all parameters of `group`, which become views into it."""
    flat = torch.cat([parameter.detach().reshape(-1) for parameter in group.values()])
    pieces = torch.split(flat, [parameter.numel() for parameter in group.values()])
    for parameter, piece in zip(group.values(), pieces, strict=True):
        parameter.data = piece.view(parameter.shape)
    return flat


def _check_membership(module: nn.Module, groups: Mapping[str, Mapping[str, nn.Parameter]]) -> None:
    trainable = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    owners: dict[str, list[str]] = {name: [] for name in trainable}
    for group, parameters in groups.items():
        for name in parameters:
            owners.setdefault(name, []).append(group)
    for name, groups_of_it in owners.items():
        if len(groups_of_it) != 1:
            where = " and ".join(groups_of_it) or "no group"
            raise ValueError(f"parameter {name} is in {where}; every trainable parameter must be in exactly one group")


def _place(module: nn.Module, name: str) -> tuple[nn.Module, str, int]:
    """The module that has the parameter `name`, its name there, and where its numbers are."""
    path, _, leaf = name.rpartition(".")
    owner = module.get_submodule(path)
    return owner, leaf, owner.get_parameter(leaf).data_ptr()


def _copy_same_shape(target: Tensor, source: Tensor, what: str) -> None:
    if source.shape != target.shape:
        raise ValueError(f"{what} has shape {list(source.shape)}; expected {list(target.shape)}")
    target.copy_(source)
