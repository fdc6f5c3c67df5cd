"""One thread: the tensors of the tests are small, and results must not depend on the machine's cores."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

sys.path[:0] = [str(Path(__file__).parent / name) for name in ("", "runs/resume", "policies/strangers")]
pytest_plugins = ["kernels"]
torch.set_num_threads(1)
# The processes that would compile a graph's kernels side by side take longer to import torch than to compile.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

# The first call of anything can be slow on a busy machine; that is no failure.
hypothesis.settings.register_profile("esper", deadline=None)
hypothesis.settings.load_profile("esper")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="also what takes too long to be run with every change")


class HostReads(TorchDispatchMode):
    """Counts operations that bring a tensor's value to the host."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default):
            self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.fixture
def host_reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What reads a value on the host: scalars by dispatch, whole tensors by the methods that do so."""
    with HostReads() as mode:
        for name in ("tolist", "numpy", "cpu", "__array__"):
            original = getattr(Tensor, name)

            def watched(self: Tensor, *args: Any, _name: str = name, _original: Any = original, **kwargs: Any) -> Any:
                mode.seen.append(_name)
                return _original(self, *args, **kwargs)

            monkeypatch.setattr(Tensor, name, watched)
        yield mode.seen
