"""A policy as a file that runs without Esper: raw observations [N, ...] in, the most likely actions out."""

from __future__ import annotations

import copy
import importlib.util
import io
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from esper.checkpoint.store import write_atomically
from esper.envs.base import Images
from esper.policy import Policy
from esper.simic.networks import ActorCritic

SUFFIXES = (".pt2", ".onnx")
_ONNX_PACKAGES = ("onnx", "onnxscript")


class ExportError(Exception):
    """A policy that cannot be exported as asked, and why."""


def export_policy(policy: Policy, path: Path) -> None:
    """Write `policy` to `path`, by its ending for `torch.export.load` or for ONNX; normalization is part of it.

    A policy with memory also takes what it remembers, [N, S], zeros where an episode begins, and also gives what it
    remembers then.

    Discrete actions are int64 [N], counted from 0, continuous ones float32 [N, A], not clipped to the environment's
    bounds.

    Raises:
        ExportError: for another ending, or where packages are missing.
        OSError: when the file cannot be written.
    """
    if path.suffix not in SUFFIXES:
        raise ExportError(f"{path}: must end in {' or '.join(SUFFIXES)}")
    if path.suffix == ".onnx":
        missing = [name for name in _ONNX_PACKAGES if importlib.util.find_spec(name) is None]
        if missing:
            raise ExportError(f"{path}: ONNX needs {' and '.join(missing)}; pip install {' '.join(missing)}")
        write_atomically(path, _onnx(_program(policy.network), 2 if policy.network.memory_size else 1))
    else:
        file = io.BytesIO()
        torch.export.save(_program(policy.network), file)
        write_atomically(path, file.getvalue())


class _Actor(nn.Module):
    def __init__(self, network: ActorCritic) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        del self.network.critic

    def forward(self, observations: Tensor) -> Tensor:
        return self.network.act(observations)


class _Remembering(nn.Module):
    def __init__(self, network: ActorCritic) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)

    @torch.no_grad()
    def forward(self, observations: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        memory = memory.clone()
        return self.network.act(observations, memory=memory), memory


def _program(network: ActorCritic) -> ExportedProgram:
    # Two rows, as torch takes a size of 1 for one that never changes.
    dtype = torch.uint8 if isinstance(network.observations, Images) else torch.float32
    examples = {"observations": torch.zeros((2, *network.observations.shape), dtype=dtype)}
    if network.memory_size:
        examples["memory"] = torch.zeros(2, network.memory_size)
    actor, rows = (_Remembering if network.memory_size else _Actor)(network), {0: Dim("batch")}
    return torch.export.export(actor, tuple(examples.values()), dynamic_shapes=dict.fromkeys(examples, rows))


def _onnx(program: ExportedProgram, inputs: int) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "policy.onnx"
        torch.onnx.export(
            program,
            f=path,
            input_names=["observations", "memory"][:inputs],
            output_names=["actions", "memory_after"][:inputs],
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        return path.read_bytes()
