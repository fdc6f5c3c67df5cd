"""How exactly torch multiplies: float32 is float32, unless a setting says otherwise."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from esper.simic.config import Precision


@contextlib.contextmanager
def float32_products(precision: Precision, device: torch.device) -> Iterator[None]:
    """Within the block, products of float32 matrices and convolutions on a GPU are of TF32 only if `precision` says so.

    Torch's own default takes float32 for matrices and TF32 for convolutions. Elsewhere nothing changes.
    """
    if device.type != "cuda":
        yield
        return
    matrices, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(matrices)
        torch.backends.cudnn.allow_tf32 = convolutions


def autocast_dtype(precision: Precision) -> torch.dtype | None:
    """What layers of a network compute with, their weights being float32; None: with float32, too."""
    return torch.bfloat16 if precision == "bf16" else None
