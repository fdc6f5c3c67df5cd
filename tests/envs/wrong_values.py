"""Wrong values, and odd ones that are right, by what an environment returns them as. Each is made of the right value.

Right values are those of one copy, or of all copies together as arrays with one dimension more.
"""

from __future__ import annotations

import collections
import fractions
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch


class Value(NamedTuple):
    """`ends` says of which environments it ends the run: "all", "none", single "copies", or those "together"."""

    make: Callable[[Any], Any]
    ends: str = "all"


class Arraylike:
    """As arrays of other libraries are."""

    def __init__(self, array: Any, error: BaseException | None = None) -> None:
        self._array, self._error = array, error

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        if self._error is not None:
            raise self._error
        return np.array(self._array, dtype=dtype)


class Sneaky(np.ndarray):
    """Its copies are something else."""

    def copy(self, order: Any = "C") -> Any:
        return "no copy"


class OddDict(dict[Any, Any]):
    def get(self, *arguments: Any) -> Any:
        raise KeyError("get")


class Unshown:
    """It cannot be shown, compared, nor asked for its truth."""

    def _raise(self, *arguments: Any) -> Any:
        raise RuntimeError("no")

    __repr__ = __str__ = __eq__ = __bool__ = __len__ = __hash__ = __float__ = _raise


class UnshownError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class TwoArguments(Exception):
    """Pickle cannot make it again."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first + second)


class Base(BaseException):
    pass


Outcome = collections.namedtuple("Outcome", "obs reward terminated truncated info")


def recursive(right: Any) -> Any:
    info: dict[str, Any] = {}
    info["itself"] = info
    return info


def reused(right: Any) -> Any:
    """The same array each time, changed."""
    _SAME.setdefault(right.shape, np.zeros_like(right))[...] = right
    return _SAME[right.shape]


_SAME: dict[Any, Any] = {}


def nans(right: Any) -> Any:
    return np.full(np.shape(right), np.nan, np.float32)


NOTHING: dict[str, Value] = {
    "None": Value(lambda right: None),
    "text": Value(lambda right: "hello"),
    "long text of lines": Value(lambda right: "hello\n" * 9999),
    "bytes": Value(lambda right: b"hello"),
    "a generator": Value(lambda right: (i for i in range(3))),
    "a function": Value(lambda right: nans),
    "a type": Value(lambda right: float),
    "a dictionary": Value(lambda right: {"a": right}),
    "a set": Value(lambda right: {1, 2}),
    "an empty list": Value(lambda right: []),
    "ragged lists": Value(lambda right: [[1.0], [1.0, 2.0], 3.0]),
    "objects": Value(lambda right: np.full(np.shape(right), None, dtype=object)),
    "a date": Value(lambda right: np.full(np.shape(right), np.datetime64("2020-01-01"))),
    "complex": Value(lambda right: np.asarray(right) * 1j),
    "unshown": Value(lambda right: Unshown()),
    "too many dimensions": Value(lambda right: np.stack([np.asarray(right)] * 2)),
    "a tensor with a gradient": Value(
        lambda right: torch.tensor(right, dtype=torch.float64).requires_grad_(), "either"
    ),
    "an array that raises": Value(lambda right: Arraylike(right, ValueError("not ready"))),
    "an array that exits": Value(lambda right: Arraylike(right, SystemExit("not ready"))),
    "in a record": Value(lambda right: np.zeros(np.shape(right), dtype=[("a", float)])),
    "itself within": Value(lambda right: _within()),
}
# They are numbers, in arrays of the right shape.
NUMBERS: dict[str, Value] = {
    "big-endian": Value(lambda right: np.asarray(right).astype(">f8"), "none"),
    "longdouble": Value(lambda right: np.asarray(right).astype(np.longdouble), "none"),
    "float16": Value(lambda right: np.asarray(right).astype(np.float16), "none"),
    "a tensor": Value(lambda right: torch.tensor(right), "none"),
    "of another library": Value(lambda right: Arraylike(right), "none"),
    "masked": Value(lambda right: np.ma.masked_array(right, mask=True), "none"),
    "lists": Value(lambda right: np.asarray(right).tolist(), "none"),
    "of booleans": Value(lambda right: np.asarray(right) > 9, "none"),
    "not to be written": Value(lambda right: _frozen(right), "none"),
}
OBSERVATIONS: dict[str, Value] = {
    **NOTHING,
    **NUMBERS,
    "too few numbers": Value(lambda right: right[..., :-1]),
    "too many numbers": Value(lambda right: np.concatenate([right, right], axis=-1)),
    "a number": Value(lambda right: 1.0),
    "objects that are numbers": Value(lambda right: right.astype(object)),
    "transposed": Value(lambda right: right[..., None]),
    "float64": Value(lambda right: right.astype(np.float64), "none"),
    "integers": Value(lambda right: right.astype(np.int64), "none"),
    "int8": Value(lambda right: right.astype(np.int8), "none"),
    "a tuple": Value(lambda right: tuple(right), "none"),
    "a view": Value(lambda right: np.concatenate([right, right])[: len(right)], "none"),
    "backwards": Value(lambda right: right[..., ::-1], "none"),
    "broadcast": Value(lambda right: np.broadcast_to(np.float32(0), right.shape), "none"),
    "the same array": Value(reused, "none"),
    "a kind of array": Value(lambda right: right.view(Sneaky), "none"),
    "NaN": Value(nans, "either"),
    "infinite": Value(lambda right: np.full(right.shape, -np.inf, np.float32), "either"),
    "out of its space": Value(lambda right: right + 1e6, "none"),
    "beyond float32": Value(lambda right: np.full(right.shape, 1e300), "either"),
    "whole numbers beyond float32": Value(lambda right: np.full(right.shape, 2**63 - 1), "none"),
}
REWARDS: dict[str, Value] = {
    **NOTHING,
    **NUMBERS,
    "a text of a number": Value(lambda right: "1.0"),
    "one too many": Value(lambda right: np.append(right, 1.0)),
    "a list of objects": Value(lambda right: [object(), 1.0]),
    "in an array": Value(lambda right: np.array([right]), "together"),
    "a whole number beyond all": Value(lambda right: 10**400),
    "a whole number that has no text": Value(lambda right: 10**9999),
    "a whole number beyond 64 bits": Value(lambda right: 10**25),
    "a fraction": Value(lambda right: fractions.Fraction(1, 2)),
    "NaN": Value(lambda right: np.asarray(right) * np.nan, "either"),
    "infinite": Value(lambda right: np.asarray(right) * 0 + np.inf, "either"),
    "beyond float32": Value(lambda right: np.asarray(right) * 1e300, "either"),
    "a float beyond float32": Value(lambda right: 1e300, "either"),
    "NaN, a float": Value(lambda right: float("nan"), "either"),
    "True": Value(lambda right: True, "together"),
}
ENDS: dict[str, Value] = {
    **NOTHING,
    "'False'": Value(lambda right: "False"),
    "2": Value(lambda right: np.asarray(right) * 0 + 2),
    "2, an integer": Value(lambda right: 2),
    "-1": Value(lambda right: np.asarray(right) * 0 - 1),
    "a half": Value(lambda right: np.asarray(right) * 0 + 0.5),
    "NaN": Value(lambda right: np.asarray(right) * np.nan),
    "one too many": Value(lambda right: np.append(right, False)),
    "0 and 1": Value(lambda right: np.asarray(right).astype(np.int8), "none"),
    "0. and 1.": Value(lambda right: np.asarray(right).astype(np.float64), "none"),
    "lists": Value(lambda right: np.asarray(right).tolist(), "none"),
    "a tensor": Value(lambda right: torch.tensor(right), "none"),
    "in an array": Value(lambda right: np.array([right]), "together"),
}
INFOS: dict[str, Value] = {
    "None": Value(lambda right: None, "copies"),
    "a list": Value(lambda right: [right], "copies"),
    "text": Value(lambda right: "hello", "copies"),
    "a dictionary that is none": Value(lambda right: collections.UserDict(right), "copies"),
    "unshown": Value(lambda right: Unshown(), "copies"),
    "unequal arrays": Value(lambda right: {**right, "path": np.arange(int(time.monotonic_ns() % 7))}, "none"),
    "what cannot be pickled": Value(lambda right: {**right, "lock": threading.Lock(), "made": lambda: 1}, "none"),
    "itself within": Value(lambda right: {**right, **recursive(right)}, "none"),
    "unshown within": Value(lambda right: {**right, "odd": Unshown()}, "none"),
    "keys of all kinds": Value(lambda right: {**right, 1: 1, None: 2, (1, 2): 3}, "none"),
    "Gymnasium's own names": Value(
        lambda right: {"final_info": 1, "_final_obs": 2, "_action_mask": 3, "episode": 4, **right}, "none"
    ),
    "a kind of dictionary": Value(lambda right: collections.OrderedDict(right), "none"),
}
OUTCOMES: dict[str, Value] = {
    "None": Value(lambda right: None),
    "text": Value(lambda right: "hello"),
    "the observation alone": Value(lambda right: right[0]),
    "one value fewer": Value(lambda right: right[:-1]),
    "one value more": Value(lambda right: (*right, {})),
    "no values": Value(lambda right: ()),
    "a generator": Value(lambda right: (part for part in right)),
    "a dictionary": Value(lambda right: dict(enumerate(right))),
    "an array of objects": Value(lambda right: _objects(right)),
    "unshown": Value(lambda right: Unshown()),
    "a list": Value(lambda right: list(right), "none"),
    "a named tuple": Value(lambda right: Outcome(*right) if len(right) == 5 else right, "none"),
    "late": Value(lambda right: _late(right), "none"),
}


def _within() -> list[Any]:
    within: list[Any] = []
    within.append(within)
    return within


def _frozen(right: Any) -> Any:
    array = np.array(right)
    array.flags.writeable = False
    return array


def _late(right: Any) -> Any:
    time.sleep(0.05)
    return right


def _objects(right: Any) -> Any:
    array = np.empty(len(right), dtype=object)
    for index, part in enumerate(right):
        array[index] = part
    return array


RAISED: dict[str, Callable[[], BaseException]] = {
    "ValueError": lambda: ValueError("odd"),
    "lines": lambda: ValueError("a line\n" * 9999),
    "a long word": lambda: RuntimeError("x" * 99_999),
    "escape sequences": lambda: RuntimeError("\x1b[31mred\x07\r\n\x00"),
    "surrogates": lambda: RuntimeError("\udcff"),
    "unshown": lambda: UnshownError(),
    "two arguments": lambda: TwoArguments("a", "b"),
    "what cannot be pickled": lambda: ValueError(threading.Lock()),
    "a group": lambda: BaseExceptionGroup("many", [ValueError("a"), SystemExit(3)]),
    "SystemExit": lambda: SystemExit(0),
    "SystemExit, text": lambda: SystemExit("bye"),
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": GeneratorExit,
    "StopIteration": lambda: StopIteration((1, 2)),
    "BaseException": Base,
    "RecursionError": RecursionError,
    "MemoryError": MemoryError,
    "TypeError": lambda: TypeError("reset() got an unexpected keyword argument 'seed'"),
    "KeyError": lambda: KeyError("\n"),
    "EOFError": EOFError,
    "BrokenPipeError": lambda: BrokenPipeError(32, "Broken pipe"),
    "OSError": lambda: OSError(28, "No space left on device"),
    "TimeoutError": TimeoutError,
    "a warning": lambda: UserWarning("look"),
    "NotImplementedError": NotImplementedError,
}
