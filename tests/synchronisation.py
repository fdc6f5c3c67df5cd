"""Says where the host waits for a GPU: within a block that is an error."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Literal

import torch


@contextlib.contextmanager
def synchronisation(mode: Literal["error", "default"]) -> Iterator[None]:
    """Within the block, an operation that makes the host wait for the GPU raises a RuntimeError, or does not."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        # Torch calls its own mode a prototype, the first time that it is set.
        warnings.simplefilter("ignore")
        torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
