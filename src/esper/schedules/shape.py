"""What a decay shape is: its parameters as options, and how the rate goes on after warmup."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar

from esper.settings.options import Bounds, ConfigError, check_options, option

Rate: TypeAlias = Callable[[int], float]
Phase: TypeAlias = Literal["delay", "warmup", "stable", "decay", "floor", "constant", "custom"]

DEFAULT_PEAK = 3e-4
# The default of a parameter that a shape cannot do without.
NEEDED = dataclasses.MISSING

# Rates are written into float32, in which larger numbers are infinite, and smaller ones 0.
LARGEST = (2 - 2**-23) * 2.0**127
SMALLEST = 2.0**-149

LENGTH = Bounds(minimum=1)
UNIT = Bounds(minimum=0, maximum=1)


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a shape has to fit into, in updates; `peak` is the base rate. Shapes count updates from after the delay.

    `batch_size` is the environment steps of an update, where they are known.
    """

    peak: float
    total_updates: int
    delay: int
    warmup: int
    batch_size: int | None = None

    @property
    def end(self) -> int:
        """The first update past the run."""
        return self.total_updates - self.delay


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A shape in a run: first update of the decay, first update past it (None: it has no end), rate of an update.

    `floor` is that of the shape, where it does not follow from its parameters.
    """

    start: int
    end: int | None
    rate: Rate
    floor: float | None = None


# The name of a parameter, what happens at the updates that it sets, and these updates.
Part: TypeAlias = tuple[str, str, list[int]]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A decay shape. A subclass has its parameters as options, the needed ones with the default `NEEDED`.

    Its docstring says what the rate is; `example` is what its picture shows. Options that a shape shares with others
    must be declared alike, but for whether they are needed. `no_warmup` says why it takes none.
    """

    name: ClassVar[str]
    example: ClassVar[Mapping[str, Any]]
    no_warmup: ClassVar[str | None] = None
    has_own_peak: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Hold the parameters to their declaration; a subclass adds what else they must be (`ConfigError`)."""
        check_options(self)

    def base_rate(self, given: float | None) -> float:
        """The base rate where `given` is what the user gave."""
        return DEFAULT_PEAK if given is None else given

    def floor(self, peak: float) -> float:
        """The lowest rate."""
        raise NotImplementedError

    def curve(self, run: Run) -> Curve:
        """The shape in `run`; a `ConfigError` names the parameter that does not fit."""
        raise NotImplementedError

    def phase(self, update: int, curve: Curve) -> Phase | None:
        """The phase of `update`, counted from after the delay; None: it follows from the ends of `curve`."""
        return None

    def parts(self, run: Run, curve: Curve) -> Iterator[Part]:
        """Parameters that take effect at certain updates, counted from after the delay."""
        return iter(())


@dataclass(frozen=True, kw_only=True)
class Floored(Shape):
    """A shape that stays above a floor."""

    min_ratio: float = option(0.0, "floor as a fraction of the base rate", bounds=UNIT)

    def floor(self, peak: float) -> float:
        return self.min_ratio * peak


@dataclass(frozen=True, kw_only=True)
class Falling(Shape):
    """A shape that falls from the end of warmup for a given time, or to the end of the run."""

    decay_steps: int | None = option(None, "decay length in updates (default: to the end of the run)", bounds=LENGTH)
    decay_timesteps: int | None = option(
        None, "decay length in environment steps, which num_envs does not change", bounds=LENGTH
    )
    min_ratio: float = option(0.0, "floor as a fraction of the base rate", bounds=UNIT)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decay_steps is not None and self.decay_timesteps is not None:
            raise ConfigError("decay_timesteps", self.decay_timesteps, "give decay_steps or decay_timesteps, not both")

    def floor(self, peak: float) -> float:
        return self.min_ratio * peak

    def curve(self, run: Run) -> Curve:
        length = self.decay_steps or run.end - run.warmup
        if self.decay_timesteps is not None:
            length = in_updates("decay_timesteps", self.decay_timesteps, run.batch_size)
        rate = self.falling(run.peak, run.warmup, length)
        return Curve(start=run.warmup, end=run.warmup + length, rate=rate)

    def falling(self, peak: float, start: int, length: int) -> Rate:
        """The rate from update `start` on, over `length` updates."""
        return fall(self.share_left, self.floor(peak), peak, start, length)

    def share_left(self, x: float) -> float:
        """How much of the way from the floor to the base rate is left, `x` of the decay being done (0 to 1)."""
        raise NotImplementedError

    def parts(self, run: Run, curve: Curve) -> Iterator[Part]:
        # A line that ends with the run is seen whole: its end is where the next update would be.
        if curve.end is not None and curve.end > run.end:
            given = "decay_steps" if self.decay_timesteps is None else "decay_timesteps"
            yield given, "the end of the decay at update", [curve.end]


def in_updates(name: str, timesteps: int, batch_size: int | None) -> int:
    """The length `name`, of so many environment steps, in whole updates.

    Raises:
        ConfigError: where the environment steps of an update are not known.
    """
    if batch_size is None:
        raise ConfigError(name, timesteps, "needs the environment steps of an update: give make_schedule a batch_size")
    return -(-timesteps // batch_size)


def progress(update: int, start: int, length: int) -> float:
    """How much of a decay is done, from 0 to 1."""
    return min(max((update - start) / length, 0.0), 1.0)


def fall(share_left: Callable[[float], float], floor: float, peak: float, start: int, length: int) -> Rate:
    """The rate that falls from `peak` to `floor` as `share_left` says."""
    return lambda update: between(floor, peak, share_left(progress(update, start, length)))


def between(low: float, high: float, share: float) -> float:
    """`low` at share 0 and `high` at share 1, exactly; rounding never leads past `high`."""
    return high if share == 1 else min(high, low + (high - low) * share)


S = TypeVar("S", bound=type[Shape])
_FOUND: dict[type[Shape], float] = {}


def shape(name: str, *, order: float = float("inf"), **example: Any) -> Callable[[S], S]:
    """Put a class among the decay shapes, as `name`; its picture has the parameters in `example`.

    `order` is the place of the name among the choices, and so of its parameters in config.json. Without it a shape
    comes after those that have one.
    """

    def register(found: S) -> S:
        found.name, found.example = name, example
        _FOUND[found] = order
        return found

    return register


def shapes() -> dict[str, type[Shape]]:
    """All shapes that are registered, by name, in their order."""
    return {found.name: found for found in sorted(_FOUND, key=lambda each: (_FOUND[each], each.name))}
