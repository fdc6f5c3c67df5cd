"""Torch as in a new process, whatever the caller set."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

_AUTOCAST = ("cpu", "cuda")


@contextlib.contextmanager
def torch_defaults() -> Iterator[None]:
    """Within the block new tensors are of float32 on the CPU where nothing else is said, and nothing is autocast.

    The caller may have set another default dtype or device, or be in a block of `autocast` or `inference_mode`: weights
    of another dtype do not fit what computes with them, and kernels would read them as float32. It is not for blocks
    that call environments, which keep what the caller set.
    """
    with contextlib.ExitStack() as stack:
        # Each is entered only where it changes something: what is set otherwise is a reason to compile anew.
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.no_grad())
        for device in filter(torch.is_autocast_enabled, _AUTOCAST):
            stack.enter_context(torch.autocast(device, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if (dtype := torch.get_default_dtype()) is not torch.float32:
            stack.callback(torch.set_default_dtype, dtype)
            torch.set_default_dtype(torch.float32)
        yield
