"""One seeded generator per use, so that a change in one place does not shift the random numbers of another."""

from __future__ import annotations

import zlib

import numpy as np
import torch


def host_generator(seed: int, use: str) -> np.random.Generator:
    """The NumPy generator for `use` in a run with `seed`; streams of different uses are independent."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(zlib.crc32(use.encode()),)))


def integer_seed(seed: int, use: str) -> int:
    """A seed for a library that takes one number, 31 bits wide."""
    return int(host_generator(seed, use).integers(2**31))


def device_generator(seed: int, use: str, device: torch.device) -> torch.Generator:
    """The torch generator for `use` on `device`."""
    return torch.Generator(device).manual_seed(integer_seed(seed, use))
