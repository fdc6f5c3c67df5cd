"""State trees: nested mappings whose leaves are tensors, arrays, scalars of NumPy, and JSON values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

_SEPARATOR = "/"
_LARGEST_INTEGER = 2**63
# Suffix of the path of a tensor that stands for one number: a NumPy scalar, or a float that is not finite. No name is
# empty, so no other path has two separators in a row.
_NUMPY, _PYTHON = "//numpy", "//python"
# The dtypes that NumPy and safetensors both have.
_DTYPES = frozenset(
    {
        *(torch.bool, torch.uint8, torch.uint16, torch.uint32, torch.uint64),
        *(torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.float32, torch.float64),
    }
)


class TreeError(ValueError):
    """A tree has a wrong form; the message says where, and how."""


def split(tree: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of `tree` by path, and the rest, which is JSON.

    Raises:
        TreeError: for a name or a value that cannot be stored.
    """
    tensors: dict[str, Tensor] = {}

    def rest_of(branch: Mapping[str, Any], path: str) -> dict[str, Any]:
        rest = {}
        for name, value in branch.items():
            if not isinstance(name, str) or not name or _SEPARATOR in name:
                raise TreeError(f"{path}{name!s:.60} is no name: names must be text without a {_SEPARATOR}, not empty")
            here = path + name
            if isinstance(value, Mapping):
                rest[name] = rest_of(value, here + _SEPARATOR)
            elif isinstance(value, Tensor | np.ndarray):
                tensors[here] = _as_tensor(value, here)
            elif isinstance(value, np.generic):  # before float, as np.float64 is one, too
                tensors[here + _NUMPY] = _as_tensor(np.asarray(value), here)
            elif isinstance(value, float) and not math.isfinite(value):
                tensors[here + _PYTHON] = torch.tensor(value, dtype=torch.float64, device="cpu")
            else:
                _check_json(value, here)
                rest[name] = value
        return rest

    try:
        return tensors, rest_of(tree, "")
    except RecursionError:
        raise TreeError("it is nested too deep") from None


def _as_tensor(value: Tensor | np.ndarray, here: str) -> Tensor:
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biuf" or value.dtype.itemsize > 8:
            raise TreeError(f"{here} is an array of {value.dtype}; it must be of numbers or booleans")
        # torch has no other byte order, no negative strides, and no read-only arrays.
        native = value.dtype.newbyteorder("=")
        plain = value.dtype == native and value.flags.writeable and all(step >= 0 for step in value.strides)
        return torch.as_tensor(value if plain else np.array(value, dtype=native, order="C"), device="cpu")
    if value.layout != torch.strided or value.is_quantized or value.dtype not in _DTYPES:
        raise TreeError(f"{here} is a {value.layout} tensor of {value.dtype}; it must be of numbers that NumPy has")
    return value


def _check_json(value: Any, here: str) -> None:
    """Refuse what JSON would change; tuples become lists."""
    if isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check_json(item, f"{here}[{index}]")
    elif isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str):
                raise TreeError(f"{here} has the name {name!r:.60}, which is not text")
            _check_json(item, f"{here}[{name!r:.60}]")
    elif not (value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))):
        allowed = "an array, a number, text, a boolean, None, or a mapping or list of those; in a list, finite numbers"
        raise TreeError(f"{here} is {_kind(value)}; it must be {allowed}")


def merge(tensors: Mapping[str, Tensor], rest: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `split`; changes `rest`.

    Raises:
        TreeError: for a tensor without a place in `rest`.
    """
    for path, tensor in tensors.items():
        path, value = _stored_as(path, tensor)
        *branches, name = path.split(_SEPARATOR)
        place: Any = rest
        for branch in branches:
            place = place.get(branch) if isinstance(place, dict) else None
        if not isinstance(place, dict) or name in place:
            raise TreeError(f"tensor {path!r:.200} has no place in the state")
        place[name] = value
    return rest


def _stored_as(path: str, tensor: Tensor) -> tuple[str, Any]:
    """The path of `tensor`, and its value in the original type."""
    for ending in (_NUMPY, _PYTHON):
        if path.endswith(ending):
            path = path.removesuffix(ending)
            try:
                number = tensor.numpy()
            except TypeError as error:  # for dtypes that NumPy lacks
                raise TreeError(f"{path}: {error}") from None
            if number.ndim:
                raise TreeError(f"{path} has shape {list(number.shape)}; it must be one number")
            return path, number[()] if ending == _NUMPY else number.item()
    return path, tensor


def with_arrays(tree: Any) -> Any:
    """`tree` with NumPy arrays in place of tensors."""
    if isinstance(tree, Mapping):
        return {name: with_arrays(value) for name, value in tree.items()}
    return tree.numpy() if isinstance(tree, Tensor) else tree


def on_host(tree: Any) -> Any:
    """`tree` with a copy on the CPU of each tensor that is elsewhere."""
    if isinstance(tree, Mapping):
        return {name: on_host(value) for name, value in tree.items()}
    return tree.cpu() if isinstance(tree, Tensor) else tree


def check_form(tree: Any, form: Any, *, finite: bool = False, path: str = "") -> None:
    """Check `tree` against `form`: names, dtype and shape of tensors (and finite values if `finite`), types.

    A form is a tree of types and tensors, whose values are ignored; `object` matches anything.

    Raises:
        TreeError: naming the first difference.
    """
    here = path or "state"
    if isinstance(form, Mapping):
        if not isinstance(tree, Mapping):
            raise TreeError(f"{here} is {_kind(tree)}, not a mapping")
        if set(tree) != set(form):
            differences = [("lacks", set(form) - set(tree)), ("has the unknown", set(tree) - set(form))]
            raise TreeError(f"{here} " + " and ".join(f"{verb} {_some(names)}" for verb, names in differences if names))
        for name, value in form.items():
            check_form(tree[name], value, finite=finite, path=f"{path}{_SEPARATOR}{name}".strip(_SEPARATOR))
    elif isinstance(form, Tensor):
        _check_tensor(tree, form, here)
        if finite and not torch.as_tensor(tree, device="cpu").isfinite().all():
            raise TreeError(f"{here} has values that are not finite")
    elif form is not object and type(tree) is not form:
        raise TreeError(f"{here} is {_kind(tree)}, not of type {form.__name__}")
    elif form is int and not -_LARGEST_INTEGER <= tree < _LARGEST_INTEGER:
        raise TreeError(f"{here} is out of range")


def differences(stored: Any, now: Any, path: str = "") -> Iterator[str]:
    """`path: stored, now ...` for every leaf that differs between two trees without tensors."""
    if isinstance(stored, Mapping) and isinstance(now, Mapping):
        for name in sorted({*map(str, stored), *map(str, now)}):
            yield from differences(stored.get(name), now.get(name), f"{path}{_SEPARATOR}{name}".strip(_SEPARATOR))
    elif stored != now or type(stored) is not type(now):
        yield f"{path}: {stored!r:.60}, now {now!r:.60}"


def _check_tensor(value: Any, form: Tensor, here: str) -> None:
    if not isinstance(value, Tensor | np.ndarray):
        raise TreeError(f"{here} is {_kind(value)}, not a tensor")
    tensor = torch.as_tensor(value, device="cpu")
    for what, found, expected in (("dtype", tensor.dtype, form.dtype), ("shape", tensor.shape, form.shape)):
        if found != expected:
            shown = [list(x) if isinstance(x, torch.Size) else x for x in (found, expected)]
            raise TreeError(f"{here} has {what} {shown[0]}, not {shown[1]}")


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return "a tensor"
    try:
        return f"{value!r:.60} ({type(value).__name__})"
    except Exception:  # a custom object may have no text
        return f"a value of type {type(value).__name__}"


def _some(names: set[Any]) -> str:
    shown = sorted(map(str, names))[:5]
    return ", ".join(f"{name:.60}" for name in shown) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
