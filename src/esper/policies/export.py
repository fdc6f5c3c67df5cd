"""A policy as a file that runs without Esper: raw observations [N, ...] in, the most likely actions out."""

from __future__ import annotations

import copy
import importlib.util
import io
import logging
import tempfile
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from esper.envs.base import ActionBounds, Images, scaled_to
from esper.policies.policy import Policy
from esper.simic.nets.actor_critic import ActorCritic
from esper.storage import files
from esper.system.torch_defaults import torch_defaults

SUFFIXES = (".pt2", ".onnx")
_ONNX_PACKAGES = ("onnx", "onnxscript")


class ExportError(Exception):
    """A policy cannot be exported; the message says why."""


@torch_defaults()
def export_policy(policy: Policy, path: str | Path) -> None:
    """Write `policy` to `path`, for `torch.export.load` or ONNX according to its suffix, with its normalization.

    With action masks the policy also takes `masks`, bool [N, M]. A recurrent policy also takes its state `memory` [N,
    S], zeros where an episode begins, and also returns the next state.

    Discrete actions are int64 [N], counted from 0, continuous ones float32 [N, A]. If actions were scaled in training,
    they are in the environment's units and within its bounds; otherwise they are not clipped.

    Raises:
        ExportError: for another suffix, or if packages are missing.
        OSError: when the file cannot be written.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ExportError(f"{path}: must end in {' or '.join(SUFFIXES)}")
    if path.suffix == ".onnx":
        missing = [name for name in _ONNX_PACKAGES if importlib.util.find_spec(name) is None]
        if missing:
            raise ExportError(f"{path}: ONNX needs {' and '.join(missing)}: pip install 'esper-simic[onnx]'")
        files.write_named(path, _onnx(policy))
    else:
        file = io.BytesIO()
        torch.export.save(_program(policy), file)
        files.write_named(path, file.getvalue())


class _Player(nn.Module):
    def __init__(self, network: ActorCritic) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False)
        if not network.state_size:
            del self.network.critic
        self.scaled = _Scaled(bounds) if (bounds := scaled_to(network.actions)) else nn.Identity()

    def forward(
        self, observations: Tensor, masks: Tensor | None = None, memory: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        memory = None if memory is None else memory.clone()
        actions: Tensor = self.scaled(self.network.act(observations, masks=masks, recurrent_state=memory))
        return actions if memory is None else (actions, memory)


class _Scaled(nn.Module):
    """Actions [N, A] scaled from [-1, 1] to `bounds`, as in training."""

    def __init__(self, bounds: ActionBounds) -> None:
        super().__init__()
        numbers = (*bounds.scale, bounds.low, bounds.high)
        self.factor, self.offset, self.low, self.high = (
            nn.Buffer(torch.tensor(each, dtype=torch.float32)) for each in numbers
        )

    def forward(self, actions: Tensor) -> Tensor:
        return (actions * self.factor + self.offset).clamp(self.low, self.high)


def _inputs(policy: Policy) -> dict[str, Tensor]:
    """Example inputs, with two rows, as torch would treat a size of 1 as constant."""
    network = policy.network
    dtype = torch.uint8 if isinstance(network.observations, Images) else torch.float32
    inputs = {"observations": torch.zeros((2, *network.observations.shape), dtype=dtype)}
    if policy.masked:
        inputs["masks"] = torch.ones((2, network.actions.outputs), dtype=torch.bool)
    if network.state_size:
        inputs["memory"] = torch.zeros(2, network.state_size)
    return inputs


def _program(policy: Policy) -> ExportedProgram:
    inputs, rows = _inputs(policy), {0: Dim("batch")}
    more = {name: example for name, example in inputs.items() if name != "observations"}
    shapes = dict.fromkeys(inputs, rows)
    return torch.export.export(_Player(policy.network), (inputs["observations"],), more, dynamic_shapes=shapes)


def _onnx(policy: Policy) -> bytes:
    # It would warn that torchvision, which is not needed, is missing, and about its own deprecated calls.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)
        path = Path(folder) / "policy.onnx"
        torch.onnx.export(
            _program(policy),
            f=path,
            input_names=list(_inputs(policy)),
            output_names=["actions", *(["memory_after"] if policy.network.state_size else [])],
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        return path.read_bytes()
