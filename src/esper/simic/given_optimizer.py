"""An optimizer from Python: a torch optimizer in place of Adam, at the rates of the schedules."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from esper.settings.options import ConfigError
from esper.settings.values import spelled
from esper.simic.optimizers import Optimizer
from esper.simic.state import StateForm, form_of

# It gets a torch parameter group for each of ours: {"params": [...], "name": "policy"}, "value" and "shared".
OptimizerFactory: TypeAlias = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]


class GivenOptimizer(Optimizer):
    """The torch optimizer that `factory` makes for `groups`. Each step waits for the device.

    It may divide groups, as into parameters with weight decay and without, but not join them: each has a rate.

    Raises:
        ConfigError: naming what is wrong with it.
    """

    is_given = True

    def __init__(
        self, module: nn.Module, groups: Mapping[str, Mapping[str, nn.Parameter]], factory: OptimizerFactory
    ) -> None:
        super().__init__(module, groups)
        self._name = spelled(factory)
        self._parameters = {group: list(parameters.values()) for group, parameters in groups.items()}
        self._made = self._make(factory)
        self._owners = self._owners_of_groups()
        self._checked = False
        self._frozen: list[tuple[Tensor, slice]] = []

    def _refused(self, allowed: str) -> ConfigError:
        return ConfigError("optimizer", self._name, allowed)

    def _make(self, factory: OptimizerFactory) -> torch.optim.Optimizer:
        if isinstance(factory, torch.optim.Optimizer) or not callable(factory):
            raise self._refused("must be a factory: a class or a function that takes parameter groups")
        groups = [{"params": list(parameters), "name": name} for name, parameters in self._parameters.items()]
        try:
            made = factory(groups)
        except (TypeError, ValueError) as error:
            raise self._refused(f"fails on the parameter groups: {error}") from error
        if not isinstance(made, torch.optim.Optimizer):
            raise self._refused(f"must return a torch.optim.Optimizer, not {type(made).__name__}")
        try:
            inspect.signature(made.step).bind()
        except TypeError:
            needs = f"its {type(made).__name__} needs a closure for a step, which there is not"
            raise self._refused(needs) from None
        return made

    def _owners_of_groups(self) -> list[str]:
        """Of each group of the made optimizer that of ours which it is, or is a part of."""
        owners = {id(each): group for group, parameters in self._parameters.items() for each in parameters}
        found: list[str] = []
        seen: set[int] = set()
        for group in self._made.param_groups:
            ids = [id(parameter) for parameter in group["params"]]
            if not owners.keys() >= set(ids):
                raise self._refused("has a parameter that is not of the network")
            if len(ids) != len(set(ids)) or seen & set(ids):
                raise self._refused("has a parameter twice")
            names = sorted({owners[each] for each in ids})
            if len(names) != 1:
                what = f"joins {' and '.join(names)}, which have rates of their own" if names else "has an empty group"
                raise self._refused(what)
            seen |= set(ids)
            found += names
        missing = [group for each, group in owners.items() if each not in seen]
        if missing:
            raise self._refused(f"leaves out {len(missing)} of the parameters, the first one of {missing[0]}")
        return found

    def freeze(self, frozen: bool) -> None:
        owners = {id(share): flat for share, flat in zip(self._shares, self.parameters, strict=False)}
        self._frozen = [(owners[id(share)], place) for share, place in self._held] if frozen else []

    def by_parameter(self, rates: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Those of the groups: `step` puts back what is held."""
        return rates

    @torch.no_grad()
    def step(self, gradients: tuple[Tensor, ...], rates: tuple[Tensor, ...], enabled: Tensor) -> None:
        if not enabled:
            return
        by_name = dict(zip(self.group_names, torch.stack(rates).tolist(), strict=True))
        for group, owner in zip(self._made.param_groups, self._owners, strict=True):
            rate = by_name[owner]
            group["lr"] = group["lr"].fill_(rate) if isinstance(group["lr"], Tensor) else rate
        still = [(flat, flat.clone()) for flat, rate in zip(self.parameters, by_name.values(), strict=True) if not rate]
        held = [(flat[place], flat[place].clone()) for flat, place in self._frozen]
        views = self.views(gradients)
        for name, parameter in self._named():
            parameter.grad = views[name]
        self._made.step()
        self._made.zero_grad()
        for flat, before in (*still, *held):
            flat.copy_(before)
        if not self._checked:
            self._check_step()
            self._checked = True

    def _named(self) -> Iterator[tuple[str, nn.Parameter]]:
        for layout, parameters in zip(self._layout, self._parameters.values(), strict=True):
            yield from zip((name for name, _ in layout), parameters, strict=True)

    def _check_step(self) -> None:
        """Refuse one that replaces parameters, or has a state that checkpoints cannot hold."""
        views = self.views(self.parameters)
        for name, parameter in self._named():
            if parameter.data_ptr() != views[name].data_ptr():
                raise self._refused(f"replaces parameter {name}; it must write it in place")
        wrong = next(_not_storable(self._made.state_dict()), None)
        if wrong is not None:
            raise self._refused(f"has {wrong} in its state, which a checkpoint cannot hold")

    def tensors(self) -> tuple[Tensor, ...]:
        return self.parameters

    def backup(self) -> Any:
        return tuple(flat.clone() for flat in self.parameters), copy.deepcopy(self._made.state_dict())

    def restore_unless(self, condition: Tensor, backup: Any) -> None:
        if condition:
            return
        flats, state = backup
        for flat, before in zip(self.parameters, flats, strict=True):
            flat.copy_(before)
        self._load(state)

    def state_dict(self) -> dict[str, Any]:
        stored = copy.deepcopy(self._made.state_dict())
        groups = [{key: each for key, each in group.items() if key != "params"} for group in stored["param_groups"]]
        others = {key: value for key, value in stored.items() if key not in ("state", "param_groups")}
        return {
            "learning_rate": self._learning_rates(),
            "state": {str(index): dict(values) for index, values in stored["state"].items()},
            "groups": {str(index): group for index, group in enumerate(groups)},
            "others": others,
        }

    def state_form(self) -> StateForm:
        # What torch's optimizers store, and when, is theirs: loading checks it.
        return {"learning_rate": form_of(self._learning_rates()), "state": object, "groups": object, "others": object}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if set(state) != {"learning_rate", "state", "groups", "others"}:
            raise ValueError("the state is of another optimizer; give the same optimizer= again")
        self._load_learning_rates(state["learning_rate"])
        now = self._made.state_dict()["param_groups"]
        if len(state["groups"]) != len(now):
            raise ValueError(f"optimizer has {len(now)} groups, the state {len(state['groups'])}")
        groups = []
        for index, ours in enumerate(now):
            stored, names = state["groups"][str(index)], ours.keys() - {"params"}
            if stored.keys() != names:
                raise ValueError(f"optimizer: a group has {sorted(names)}, the state {sorted(stored)}")
            groups.append({**ours, **{key: _as_before(value, ours[key]) for key, value in stored.items()}})
        for index, values in state["state"].items():
            _check_finite(self._made.param_groups, int(index), values)
        values = {int(index): dict(each) for index, each in state["state"].items()}
        self._load({**state["others"], "state": values, "param_groups": groups})

    def _load(self, state: dict[str, Any]) -> None:
        """Load, and check that nothing was lost: torch casts what it loads to the type of the parameters."""
        # Torch keeps the tensors that it gets, and steps write into them.
        self._made.load_state_dict(copy.deepcopy(state))
        if not _same(self._made.state_dict(), state):
            raise ValueError("optimizer: its load_state_dict() does not restore what its state_dict() returned")


def _not_storable(value: Any, path: str = "") -> Iterator[str]:
    """What of a state no checkpoint can hold, with its place."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _not_storable(each, f"{path}/{key}".strip("/"))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _not_storable(each, path) if not isinstance(each, Tensor) else [f"a list of tensors at {path}"]
    elif not isinstance(value, Tensor | str | int | float | None):
        yield f"{type(value).__name__} at {path}"


def _as_before(stored: Any, now: Any) -> Any:
    """`stored` with tuples where files have lists."""
    return tuple(stored) if isinstance(now, tuple) and isinstance(stored, list) else stored


def _check_finite(groups: list[dict[str, Any]], index: int, values: Mapping[str, Any]) -> None:
    parameters = [parameter for group in groups for parameter in group["params"]]
    if not 0 <= index < len(parameters):
        raise ValueError(f"optimizer: the state has a parameter {index} of {len(parameters)}")
    for key, value in values.items():
        if isinstance(value, Tensor) and not value.isfinite().all():
            raise ValueError(f"optimizer: {key} of parameter {index} is not finite")


def _same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        return ours.keys() == theirs.keys() and all(_same(value, theirs[key]) for key, value in ours.items())
    if isinstance(ours, Tensor) and isinstance(theirs, Tensor):
        return ours.dtype == theirs.dtype and ours.equal(theirs.to(ours.device))
    return type(ours) is type(theirs) and bool(ours == theirs)
