"""What a learning-rate schedule is made of: the declaration, and every check that needs no run."""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeAlias

from esper.schedules.function import CUSTOM, Custom, Function, is_function
from esper.schedules.shape import DEFAULT_PEAK, LARGEST, NEEDED, SMALLEST, Rate, Shape
from esper.schedules.shapes import SHAPES
from esper.settings.options import Bounds, ConfigError, Merging, check_options, option
from esper.settings.values import format_value

if TYPE_CHECKING:
    BaseRate: TypeAlias = float
    Decay: TypeAlias = str | Function
else:
    # None for a function that has none beside it.
    BaseRate = float | None
    Decay = Literal[tuple(SHAPES)] | Function

_COUNT = Bounds(minimum=0)
_FRACTION = Bounds(minimum=0, below=1)
# One length each, in several units.
_WARMUP_LENGTHS = ("warmup_steps", "warmup_frac", "warmup_timesteps")
_DECAY_LENGTHS = ("decay_steps", "decay_timesteps")


@dataclass(frozen=True, kw_only=True)
class _BeforeDecay:
    """What does not depend on the shape."""

    peak: BaseRate = option(None, "base rate: the value after warmup, before decay", derived_from="points")
    warmup_steps: int | None = option(None, "warmup length in updates", bounds=_COUNT)
    warmup_frac: float | None = option(None, "warmup length as a fraction of all updates", bounds=_FRACTION)
    warmup_timesteps: int | None = option(
        None, "warmup length in environment steps, which num_envs does not change", bounds=_COUNT
    )
    warmup_shape: Literal["linear", "cosine"] | None = option(None, "how warmup rises (default linear)")
    warmup_start_ratio: float | None = option(
        None, "where warmup starts, as a fraction of the base rate (default 0)", bounds=_FRACTION
    )
    delay: int = option(0, "updates held at exactly 0 before anything else", bounds=_COUNT)
    decay: Decay = option(
        "constant",
        f"shape after warmup: {', '.join(SHAPES)}; or module:function, which gets the number of updates and returns a "
        "function of the update index that gives every rate",
    )


def _declared_by_shapes() -> dict[str, list[tuple[str, Any, dataclasses.Field[Any]]]]:
    """For each parameter of a shape: the shapes that use it, each with the type and the declaration it has there."""
    found: dict[str, list[tuple[str, Any, dataclasses.Field[Any]]]] = {}
    for name, shape in SHAPES.items():
        hints = typing.get_type_hints(shape)
        for field in dataclasses.fields(shape):
            found.setdefault(field.name, []).append((name, hints[field.name], field))
    return found


def _parameters() -> list[tuple[str, Any, Any]]:
    """The parameters of all shapes as fields that are None where they are not given."""
    parameters = []
    for name, uses in _declared_by_shapes().items():
        _, kind, field = uses[0]
        help_text, bounds = field.metadata["help"], field.metadata["bounds"]
        for shape, its_kind, its in uses:
            if (its_kind, its.metadata["help"], its.metadata["bounds"]) != (kind, help_text, bounds):
                raise TypeError(f"shape {shape} declares {name} otherwise than {uses[0][0]} does")
        if len(uses) <= 2:
            help_text = f"{', '.join(shape for shape, _, _ in uses)}: {help_text}"
        if field.default not in (None, NEEDED):
            help_text += f" (default {format_value(field.default)})"
        parameters.append((name, kind | None, option(None, help_text, bounds=bounds)))
    return parameters


if TYPE_CHECKING:

    class _Parameters(_BeforeDecay):
        def __getattr__(self, name: str) -> Any: ...

else:
    _Parameters = dataclasses.make_dataclass(
        "_Parameters", _parameters(), bases=(_BeforeDecay,), frozen=True, kw_only=True
    )
PARAMETERS = tuple(_declared_by_shapes())


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig(_Parameters, Merging):
    """A learning rate over the updates of a run. With only `peak` given it is constant.

    Its fields are those above and the parameters of all shapes. `None` means "not given"; a parameter that the chosen
    `decay` does not use is an error, not ignored. `peak` is always a number once the config is made: 3e-4 where it was
    not given, for piecewise the rate of the first point.

    `decay` may be a function of the update index too, or `module:function`, which is called with the number of updates
    and returns one. It gives absolute rates; `peak`, None where it is not given, is what the switch holds.
    """

    prefixed_by: ClassVar[str] = "peak"
    zero_peak: ClassVar[bool] = False
    # Both components at 0 would only waste rollouts.
    apart: ClassVar[tuple[str, ...]] = ("delay",)
    needs_others: ClassVar[str] = "decay"
    superfluous: ClassVar[str] = "no component is left that uses it; give no base rate beside points"

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            peak: float | None = None,
            warmup_steps: int | None = None,
            warmup_frac: float | None = None,
            warmup_timesteps: int | None = None,
            delay: int = 0,
            decay: str | Function | Rate = "constant",
            **parameters: Any,
        ) -> None: ...

    def __post_init__(self) -> None:
        given = self.peak
        if given is None and not is_function(self.decay):
            object.__setattr__(self, "peak", DEFAULT_PEAK)
        check_options(self)
        self._check_peak()
        self._check_warmup()
        self._check_decay_parameters()
        object.__setattr__(self, "peak", self.shape.base_rate(None if given is None else self.peak))

    @functools.cached_property
    def shape(self) -> Shape:
        """The decay shape with the parameters that are given."""
        if is_function(self.decay):
            return Custom(function=Function.of(self.decay))
        given = {name: getattr(self, name) for name in self._uses()}
        return SHAPES[str(self.decay)](**{name: value for name, value in given.items() if value is not None})

    @classmethod
    def of(cls, value: Any) -> Self:
        """The schedule that `value` says: itself, a number (constant), or a function of the update index.

        Raises:
            TypeError: when it is none of these.
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, numbers.Real) and not isinstance(value, bool):
            return cls(peak=float(value))
        if callable(value) or isinstance(value, Function):
            return cls(decay=value)
        raise TypeError(f"must be a {cls.__name__}, a number, or a function of the update index")

    def at_base_rate(self) -> Self:
        """The same, constant.

        Raises:
            ConfigError: for a function without a base rate.
        """
        if self.peak is None:
            raise ConfigError("decay", str(self.decay), "has no base rate beside it for ESPER_LR_SCHEDULE=off to hold")
        return type(self)(peak=self.peak)

    @classmethod
    def superseded(cls, weaker: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
        """As in `Merging`.

        A new length replaces the old one in its other units; a new shape replaces the old shape's parameters; points
        replace the base rate.
        """
        replaced = []
        for units in (_WARMUP_LENGTHS, _DECAY_LENGTHS):
            if any(unit in given for unit in units):
                replaced += [unit for unit in units if unit not in given]
        decay = given.get("decay")
        shape = SHAPES.get(str(decay))
        if decay is not None and decay != weaker.get("decay", "constant"):
            uses = [] if shape is None else [field.name for field in dataclasses.fields(shape)]
            replaced += [name for name in PARAMETERS if name not in uses]
        if "points" in given or (shape is not None and shape.has_own_peak):
            replaced.append("peak")
        return replaced

    @classmethod
    def without_default(cls, given: Mapping[str, Any]) -> tuple[str, ...]:
        """As in `Merging`: points have a base rate of their own, a function may have none."""
        return ("peak",) if given.get("points") is not None or is_function(given.get("decay")) else ()

    @classmethod
    def derived(cls, source: tuple[tuple[int, float], ...] | None) -> float | None:
        """The base rate of points: that of the first."""
        return source[0][1] if source else None

    @property
    def imports(self) -> bool:
        """Whether its rates are those of a module that is imported for them."""
        return is_function(self.decay) and isinstance(self.decay, str) and self.decay != CUSTOM

    @property
    def warmup_length(self) -> str | None:
        """The name of the parameter that gives the length of the warmup; None without warmup."""
        return next((name for name in _WARMUP_LENGTHS if getattr(self, name) is not None), None)

    def _uses(self) -> Mapping[str, dataclasses.Field[Any]]:
        """The parameters of the chosen decay."""
        if is_function(self.decay):
            return {}
        return {field.name: field for field in dataclasses.fields(SHAPES[str(self.decay)])}

    def _check_peak(self) -> None:
        peak = self.peak
        if peak is not None and (not math.isfinite(peak) or peak < 0 or (peak == 0 and not self.zero_peak)):
            raise ConfigError("peak", peak, f"must be finite and {'at least' if self.zero_peak else 'greater than'} 0")
        if peak and not SMALLEST <= peak <= LARGEST:
            raise ConfigError("peak", peak, f"must be a number in float32: from {SMALLEST:.2g} to {LARGEST:.3g}")

    def _check_warmup(self) -> None:
        shape, length = Custom if is_function(self.decay) else SHAPES[str(self.decay)], self.warmup_length
        no_warmup = shape.no_warmup
        if shape is Custom and self.delay:
            raise ConfigError("delay", self.delay, f"decay '{self.decay}' has no delay: {no_warmup}")
        if length is None:
            for name in ("warmup_shape", "warmup_start_ratio"):
                if (value := getattr(self, name)) is not None:
                    raise ConfigError(name, value, "needs a warmup: give warmup_steps or warmup_frac too")
            return
        for name in _WARMUP_LENGTHS:
            if name != length and getattr(self, name) is not None:
                raise ConfigError(name, getattr(self, name), f"give {length} or {name}, not both")
        if no_warmup is not None:
            raise ConfigError(length, getattr(self, length), f"decay '{self.decay}' has no warmup: {no_warmup}")

    def _check_decay_parameters(self) -> None:
        uses = self._uses()
        for name in PARAMETERS:
            value = getattr(self, name)
            if value is None and name in uses and uses[name].default is NEEDED:
                raise ConfigError(name, value, f"decay '{self.decay}' needs it")
            if value is not None and name not in uses:
                allowed = ", ".join(uses) or "none of the decay parameters"
                raise ConfigError(name, value, f"decay '{self.decay}' does not use it; it uses {allowed}")


@dataclass(frozen=True, kw_only=True, init=False)
class CoefficientConfig(ScheduleConfig):
    """The same for a loss coefficient, which may be 0: then its term is off."""

    zero_peak: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True, init=False)
class LimitConfig(ScheduleConfig):
    """The same for a limit, which is above 0; without a base value, points or a function there is none."""

    @classmethod
    def of(cls, value: Any) -> Self:
        """As in `ScheduleConfig`; None is no limit."""
        return cls() if value is None else super().of(value)

    def __post_init__(self) -> None:
        if self.is_off:
            for field in dataclasses.fields(self):
                if (value := getattr(self, field.name)) != field.default:
                    raise ConfigError(field.name, value, "needs a base value beside it: without one there is no limit")
            return
        if self.delay:
            raise ConfigError("delay", self.delay, "must be 0: for so long the limit would be 0, and allow nothing")
        super().__post_init__()

    @property
    def is_off(self) -> bool:
        """Whether there is no limit."""
        return self.peak is None and self.points is None and not is_function(self.decay)
