"""State trees: nested mappings whose leaves are tensors, arrays and JSON values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

_SEPARATOR = "/"
_LARGEST_INTEGER = 2**63


class TreeError(ValueError):
    """A tree that is not what it should be: where, and how."""


def split(tree: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of `tree` by path, and the rest of it."""
    tensors: dict[str, Tensor] = {}

    def rest_of(branch: Mapping[str, Any], path: str) -> dict[str, Any]:
        rest = {}
        for name, value in branch.items():
            if _SEPARATOR in name:
                raise TreeError(f"{path}{name}: names must not have a {_SEPARATOR}")
            if isinstance(value, Mapping):
                rest[name] = rest_of(value, f"{path}{name}{_SEPARATOR}")
            elif isinstance(value, Tensor | np.ndarray):
                tensors[path + name] = torch.as_tensor(value)
            else:
                rest[name] = value
        return rest

    return tensors, rest_of(tree, "")


def merge(tensors: Mapping[str, Tensor], rest: dict[str, Any]) -> dict[str, Any]:
    """The tree that `split` took apart; takes `rest` over.

    Raises:
        TreeError: for a tensor without a place.
    """
    for path, tensor in tensors.items():
        *branches, name = path.split(_SEPARATOR)
        place: Any = rest
        for branch in branches:
            place = place.get(branch) if isinstance(place, dict) else None
        if not isinstance(place, dict) or name in place:
            raise TreeError(f"tensor {path!r:.200} has no place in the state")
        place[name] = tensor
    return rest


def with_arrays(tree: Any) -> Any:
    """`tree` with NumPy arrays in place of tensors, for who does not know torch."""
    if isinstance(tree, Mapping):
        return {name: with_arrays(value) for name, value in tree.items()}
    return tree.numpy() if isinstance(tree, Tensor) else tree


def check_like(
    tree: Any, template: Any, *, finite: bool = False, free: frozenset[str] = frozenset(), path: str = ""
) -> None:
    """Hold `tree` to the names, types, shapes and dtypes of `template`, and where `finite` to finite tensors.

    What is at the paths in `free` is not looked at.

    Raises:
        TreeError: naming the first difference.
    """
    here = path or "state"
    if path in free:
        return
    if isinstance(template, Mapping):
        if not isinstance(tree, Mapping):
            raise TreeError(f"{here} is {_kind(tree)}, not a mapping")
        if set(tree) != set(template):
            differences = [("lacks", set(template) - set(tree)), ("has the unknown", set(tree) - set(template))]
            raise TreeError(f"{here} " + " and ".join(f"{verb} {_some(names)}" for verb, names in differences if names))
        for name, value in template.items():
            check_like(tree[name], value, finite=finite, free=free, path=f"{path}{_SEPARATOR}{name}".strip(_SEPARATOR))
    elif isinstance(template, Tensor | np.ndarray):
        _check_tensor(tree, torch.as_tensor(template), here)
        if finite and not tree.isfinite().all():
            raise TreeError(f"{here} has values that are not finite")
    elif type(tree) is not type(template):
        raise TreeError(f"{here} is {_kind(tree)}, not {_kind(template)}")
    elif isinstance(tree, int) and not -_LARGEST_INTEGER <= tree < _LARGEST_INTEGER:
        raise TreeError(f"{here} is out of range")


def differences(stored: Any, now: Any, path: str = "") -> Iterator[str]:
    """`path: stored, now ...` for every leaf in which two trees without tensors differ."""
    if isinstance(stored, Mapping) and isinstance(now, Mapping):
        for name in sorted({*map(str, stored), *map(str, now)}):
            yield from differences(stored.get(name), now.get(name), f"{path}{_SEPARATOR}{name}".strip(_SEPARATOR))
    elif stored != now or type(stored) is not type(now):
        yield f"{path}: {stored!r:.60}, now {now!r:.60}"


def _check_tensor(value: Any, template: Tensor, here: str) -> None:
    if not isinstance(value, Tensor):
        raise TreeError(f"{here} is {_kind(value)}, not a tensor")
    for what, found, expected in (("dtype", value.dtype, template.dtype), ("shape", value.shape, template.shape)):
        if found != expected:
            shown = [list(x) if isinstance(x, torch.Size) else x for x in (found, expected)]
            raise TreeError(f"{here} has {what} {shown[0]}, not {shown[1]}")


def _kind(value: Any) -> str:
    return "a tensor" if isinstance(value, Tensor) else f"{value!r:.60} ({type(value).__name__})"


def _some(names: set[Any]) -> str:
    shown = sorted(map(str, names))[:5]
    return ", ".join(f"{name:.60}" for name in shown) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
