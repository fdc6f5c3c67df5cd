"""`torch.compile` for a process that makes many agents, and the sizes of what is launched at once."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any, TypeVar, cast

import torch

F = TypeVar("F", bound=Callable[..., Any])


def as_one_graph(function: F) -> F:
    """`function`, a Python function or method, compiled as one graph.

    Dynamo allows a function only so many recompilations. Here they are counted for each call of this by itself.
    """
    # `RuntimeConfig.precision` says the one; the other is how Inductor reduces.
    for message in ("TensorFloat32 tensor cores", r"\s*Online softmax is disabled"):
        warnings.filterwarnings("ignore", message=message, category=UserWarning)
    options: dict[str, Any] = {"fullgraph": True, "dynamic": False}
    if "isolate_recompiles" in inspect.signature(torch.compile).parameters:
        options["isolate_recompiles"] = True
    else:
        function = _with_own_code(function)
    return cast(F, torch.compile(function, **options))


def largest_part(count: int, limit: int) -> int:
    """The largest divisor of `count` up to `limit`, so that all parts have the same size."""
    return max(size for size in range(1, limit + 1) if count % size == 0)


def _with_own_code(function: F) -> F:
    """A copy of `function`: older versions of torch count by code object."""
    if isinstance(function, MethodType):
        return cast(F, MethodType(_with_own_code(function.__func__), function.__self__))
    assert isinstance(function, FunctionType)
    code, defaults = function.__code__.replace(), function.__defaults__
    copy = FunctionType(code, function.__globals__, function.__name__, defaults, function.__closure__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return cast(F, copy)
