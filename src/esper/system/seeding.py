"""One seeded generator per use, so that a change in one place does not shift the random numbers of another.

Also the global generators, for environments that use them; the project itself does not.
"""

from __future__ import annotations

import contextlib
import random
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

_WORDS = 624  # of the state of a Mersenne Twister


def host_generator(seed: int, use: str) -> np.random.Generator:
    """The NumPy generator for `use` in a run with `seed`; streams of different uses are independent."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(zlib.crc32(use.encode()),)))


def integer_seed(seed: int, use: str) -> int:
    """A seed for a library that takes one number, 31 bits wide."""
    return int(host_generator(seed, use).integers(2**31))


def device_generator(seed: int, use: str, device: torch.device) -> torch.Generator:
    """The torch generator for `use` on `device`."""
    return torch.Generator(device).manual_seed(integer_seed(seed, use))


class GlobalGenerators:
    """A state of the global generators of `random`, `numpy.random` and torch (on the CPU), seeded by `seed`.

    Within `in_place` the generators have this state; afterwards their previous one.
    """

    def __init__(self, seed: int) -> None:
        self._state = seeded_globals(seed)
        self._in_place = False

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Use this state within the block; it may be nested."""
        if self._in_place:
            yield
            return
        outside = global_state()
        set_global_state(self._state)
        self._in_place = True
        try:
            yield
        finally:
            self._in_place = False
            self._state = global_state()
            set_global_state(outside)

    def state_dict(self) -> dict[str, Any]:
        return global_state() if self._in_place else self._state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state`; not within `in_place`.

        Raises:
            ArithmeticError, LookupError, RuntimeError, TypeError, ValueError: when it is not valid.
        """
        outside = global_state()
        try:
            set_global_state(state)
            self._state = global_state()
        finally:
            set_global_state(outside)


def seeded_globals(seed: int) -> dict[str, Any]:
    """The state of the global generators seeded by `seed`."""
    return _state_of(
        random.Random(integer_seed(seed, "random")),
        np.random.RandomState(integer_seed(seed, "numpy.random")),
        device_generator(seed, "torch", torch.device("cpu")),
    )


def global_state() -> dict[str, Any]:
    """The state of this process's global generators, as arrays and JSON values."""
    return _state_of(random, np.random, torch.default_generator)


def set_global_state(state: Mapping[str, Any]) -> None:
    """Restore the global generators of this process.

    Raises:
        ArithmeticError, LookupError, RuntimeError, TypeError, ValueError: when `state` is not valid.
    """
    gauss = state["random"]["gauss"]
    words = tuple(np.asarray(state["random"]["words"]).tolist())
    random.setstate((3, words, None if gauss is None else float(gauss)))
    np.random.set_state(checked_twister(state["numpy"]))  # noqa: NPY002 - environments may draw from it
    torch.default_generator.set_state(torch.as_tensor(state["torch"], device="cpu"))


def checked_twister(state: Mapping[str, Any]) -> dict[str, Any]:
    """`state` of a `numpy.random.RandomState`, which would read out of bounds at an invalid position.

    Raises:
        ValueError: for an invalid position.
    """
    if not 0 <= state["state"]["pos"] <= _WORDS:
        raise ValueError(f"pos {state['state']['pos']!r:.40} is not a position in a Mersenne Twister")
    return dict(state)


def _state_of(python: Any, numpy: Any, torch_generator: torch.Generator) -> dict[str, Any]:
    _, words, gauss = python.getstate()
    return {
        "random": {"words": np.array(words, dtype=np.uint32), "gauss": gauss},
        "numpy": numpy.get_state(legacy=False),
        "torch": torch_generator.get_state(),
    }
