"""A process compiles the step of as many agents as it likes."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from esper.simic.compiling import as_one_graph, largest_part

compile_by_torch = torch.compile


class Agent:
    def __init__(self, scale: int) -> None:
        self.scale = scale

    def step(self, x: Tensor, *, shift: int = 1) -> Tensor:
        return x * self.scale + shift


now = functools.partial(compile_by_torch, backend="eager")


def before_it_could_isolate(function: Callable[..., Any], fullgraph: bool, dynamic: bool) -> Any:
    return compile_by_torch(function, fullgraph=fullgraph, dynamic=dynamic, backend="eager")


@pytest.mark.parametrize("compile", [now, before_it_could_isolate], ids=["now", "before"])
def test_more_agents_than_recompilations_of_one_function(monkeypatch: pytest.MonkeyPatch, compile: Any) -> None:
    monkeypatch.setattr("torch.compile", compile)
    agents = torch._dynamo.config.recompile_limit + 2
    for scale in range(agents):
        step = as_one_graph(Agent(scale).step)
        # Each has another shape, too.
        assert step(torch.ones(scale + 1)).tolist() == [scale + 1.0] * (scale + 1)


def test_products_of_float32_are_chosen_and_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    as_one_graph(Agent(1).step)
    warnings.warn(
        "TensorFloat32 tensor cores for float32 matrix multiplication available but not enabled", stacklevel=1
    )
    warnings.warn("another one", stacklevel=1)
    assert [str(warning.message) for warning in recwarn] == ["another one"]


def test_parts_are_of_one_size() -> None:
    assert [largest_part(count, 4) for count in (128, 15, 10, 7, 1)] == [4, 3, 2, 1, 1]
