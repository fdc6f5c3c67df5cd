"""A function of the update index in place of a shape: given in Python, or by its import path."""

from __future__ import annotations

import contextlib
import importlib
import math
import numbers
import operator
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from esper.schedules.shape import LARGEST, Curve, Phase, Rate, Run, Shape
from esper.settings.options import ConfigError
from esper.settings.values import Convertible

# How settings record a function that was given in Python.
CUSTOM = "custom"
# The rates of all updates are in memory, and in every checkpoint.
MOST_UPDATES = 4_000_000
_PATH = re.compile(r"[^:\s]+:[^:\s]+")


@dataclass(frozen=True, kw_only=True)
class Function(Convertible):
    """What `decay` is where a function gives the rates.

    `name` is what settings record: `module:factory`, or `custom`. `call` is a function given in Python, `table` the
    rates that a function gave to a run which is resumed. `path` is for the record: where the function can be imported.
    """

    expects: ClassVar[str] = "module:function"

    name: str = CUSTOM
    path: str | None = None
    call: Rate | None = field(default=None, hash=False)
    table: tuple[float, ...] | None = None
    _tables: dict[int, tuple[float, ...]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not _is_name(self.name):
            raise ConfigError("decay", self.name, f"must be {self.expects}")
        if self.table is not None:
            if not self.table:
                raise ConfigError("decay", self.name, "must have a rate for each update")
            for update, rate in enumerate(self.table):
                self._checked(update, rate)

    def __str__(self) -> str:
        return self.name

    @classmethod
    def convert(cls, value: Any) -> Function | str | None:
        """What `decay` holds for `value`; None where it is no function. An import path stays text."""
        if isinstance(value, Function) or (isinstance(value, str) and _is_name(value)):
            return value
        return cls(call=value, path=_import_path(value)) if callable(value) else None

    @classmethod
    def of(cls, decay: Function | str) -> Function:
        """The function that a converted `decay` stands for."""
        if isinstance(decay, Function):
            return decay
        return cls(name=decay, path=None if decay == CUSTOM else decay)

    def rates(self, total_updates: int) -> tuple[float, ...]:
        """The rate of each of `total_updates` updates: the function is called for them once.

        Raises:
            ConfigError: when it cannot be called, or gives what is no rate.
        """
        if self.table is not None:
            return self.table
        if total_updates not in self._tables:
            if total_updates > MOST_UPDATES:
                allowed = f"gives each rate apart, for at most {MOST_UPDATES:,} updates; this run has {total_updates:,}"
                raise ConfigError("decay", self.name, allowed)
            call = self._function(total_updates)
            self._tables[total_updates] = tuple(
                self._checked(update, self._called(call, update, f"for update {update}"))
                for update in range(total_updates)
            )
        return self._tables[total_updates]

    def _function(self, total_updates: int) -> Rate:
        if self.call is not None:
            return self.call
        if self.name == CUSTOM:
            allowed = "stands for a function that was given in Python and is not stored; give it again"
            raise ConfigError("decay", self.name, allowed if self.path is None else f"{allowed} ({self.path})")
        module, _, attribute = self.name.partition(":")
        try:
            factory = operator.attrgetter(attribute)(importlib.import_module(module))
        except Exception as error:
            raise ConfigError("decay", self.name, f"cannot be loaded: {error or type(error).__name__}") from None
        made = self._called(factory, total_updates, f"with {total_updates}, the number of updates")
        if not callable(made):
            allowed = f"is called with the number of updates and must return a function of the update, not {made!r:.60}"
            raise ConfigError("decay", self.name, allowed)
        return made  # type: ignore[no-any-return]

    def _called(self, function: Callable[[int], Any], argument: int, how: str) -> Any:
        try:
            return function(argument)
        except Exception as error:
            raise ConfigError("decay", self.name, f"raised {type(error).__name__}: {error}, called {how}") from error

    def _checked(self, update: int, rate: Any) -> float:
        # A number that is too large for a float is as bad as infinity.
        with contextlib.suppress(OverflowError):
            if isinstance(rate, numbers.Real) and not isinstance(rate, bool) and 0 <= float(rate) <= LARGEST:
                return float(rate)
        allowed = f"gives {rate!r:.60} for update {update}; a rate must be a number, finite and at least 0"
        if isinstance(rate, float) and LARGEST < rate < math.inf:
            allowed += f", and at most {LARGEST:.3g}, the largest in float32"
        raise ConfigError("decay", self.name, allowed)


@dataclass(frozen=True, kw_only=True)
class Custom(Shape):
    """What a function gives; past the updates it was made for, its last rate."""

    no_warmup = "the function gives every rate"

    function: Function

    def base_rate(self, given: float | None) -> float | None:  # type: ignore[override]
        # What the switch holds; without one there is nothing to hold.
        return given

    def curve(self, run: Run) -> Curve:
        table = self.function.rates(run.total_updates)
        last = len(table) - 1
        return Curve(start=0, end=len(table), rate=lambda update: table[min(update, last)], floor=table[-1])

    def phase(self, update: int, curve: Curve) -> Phase:
        return "custom"


def is_function(decay: object) -> bool:
    """Whether `decay` is a function, or the name of one, and not a shape."""
    return isinstance(decay, Function) or callable(decay) or (isinstance(decay, str) and _is_name(decay))


def _is_name(text: str) -> bool:
    return text == CUSTOM or _PATH.fullmatch(text) is not None


def _import_path(function: Any) -> str | None:
    """`module:name`, where that leads to `function` in any process."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if module not in sys.modules or module == "__main__" or not isinstance(name, str):
        return None
    try:
        found = operator.attrgetter(name)(sys.modules[module])
    except AttributeError:
        return None
    return f"{module}:{name}" if found is function else None
