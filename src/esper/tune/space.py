"""The space of a search: which settings, from which values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from esper.runs.config import RunConfig
from esper.settings.layers import common_names
from esper.settings.options import nearest, settings_of

# Settings that decide what a run is, or where it goes, are not searched.
_APART = ("env", "env_kwargs", "total_timesteps", "seed", "run_dir", "eval_every", "eval_episodes")
_RANGE = ("low", "high", "log", "step")


class TuneError(ValueError):
    """A search cannot be run; the message says what is wrong, and what is allowed."""


@dataclass(frozen=True, kw_only=True)
class Choices:
    """One of `values`, which have no order."""

    values: tuple[Any, ...]

    def contain(self, value: Any) -> bool:
        return value in self.values


@dataclass(frozen=True, kw_only=True)
class Range:
    """From `low` to `high`, both included; whole numbers if both are. `log`: uniform in the logarithm."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def contain(self, value: Any) -> bool:
        kind = int if self.whole else (int, float)
        return isinstance(value, kind) and not isinstance(value, bool) and self.low <= value <= self.high


Space = Mapping[str, Choices | Range]

# What matters most in PPO (Andrychowicz et al. 2021, arXiv 2006.05990), and the schedule of its rates.
DEFAULT_SPACE: Mapping[str, Mapping[str, Any] | Sequence[Any]] = {
    "lr": {"low": 3e-5, "high": 1e-2, "log": True},
    "lr_decay": ["constant", "linear", "cosine"],
    "lr_warmup_frac": [0.0, 0.1],
    "num_steps": [32, 64, 128, 256, 512],
    "num_minibatches": [2, 4, 8, 16],
    "update_epochs": [3, 4, 6, 10, 15],
    "gamma": [0.95, 0.98, 0.99, 0.995, 0.999],
    "gae_lambda": [0.8, 0.9, 0.95, 0.98],
    "entropy_coef": {"low": 1e-5, "high": 0.05, "log": True},
    "clip_coef": [0.1, 0.2, 0.3],
    "normalize_observations": [False, True],
    "normalize_rewards": [False, True],
}


def make_space(tables: Mapping[str, Any], source: str) -> Space:
    """The space that `tables` describe: a list of values, or a table with `low` and `high`, for each setting.

    Raises:
        TuneError: naming what is wrong.
    """
    if not isinstance(tables, Mapping) or not tables:
        raise TuneError(f"{source}: space: must be a table with the values of one setting at least")
    settings = settings_of(RunConfig)
    known = [*settings, *common_names(settings)]
    for name in tables:
        if name not in known:
            raise TuneError(f"{source}: space.{name}: is no setting{nearest(name, known)}")
        if name in _APART:
            raise TuneError(f"{source}: space.{name}: is not searched; give it as a flag, or in [settings]")
    return {name: _parameter(f"{source}: space.{name}", given) for name, given in tables.items()}


def _parameter(place: str, given: Any) -> Choices | Range:
    if isinstance(given, list | tuple):
        # A list of layers' sizes is a value, as a tuple.
        values = tuple(tuple(value) if isinstance(value, list) else value for value in given)
        if not values or len(set(map(repr, values))) < len(values):
            raise TuneError(f"{place} = {given}: must have one value or more, each once")
        return Choices(values=values)
    if not isinstance(given, Mapping) or not {"low", "high"} <= given.keys() <= set(_RANGE):
        raise TuneError(f"{place} = {given}: must be a list of values, or a table with low, high and perhaps log, step")
    low, high, log, step = (given.get(key, default) for key, default in zip(_RANGE, (0, 0, False, None), strict=True))
    if not all(type(end) in (int, float) and math.isfinite(end) for end in (low, high)) or low > high:
        raise TuneError(f"{place} = {given}: low and high must be numbers, low not above high")
    if type(log) is not bool or (log and low <= 0):
        raise TuneError(f"{place} = {given}: log must be true or false, and low above 0 with it")
    if step is not None and (log or type(step) not in (int, float) or step <= 0):
        raise TuneError(f"{place} = {given}: step must be a number above 0, and not go with log")
    return Range(low=low, high=high, log=log, step=step)
