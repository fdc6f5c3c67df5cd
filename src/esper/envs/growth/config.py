"""The settings of `esper/Growth-v0`, its `env_kwargs`. Imports neither torch nor gymnasium."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from esper.envs.growth.stages import Blend, Operation
from esper.settings.options import Bounds, ConfigError, check_options, option

RewardMode: TypeAlias = Literal["shaped", "sparse"]

_POINTS = Bounds(minimum=0, maximum=100)
_NOT_NEGATIVE = Bounds(minimum=0)
_COUNT = Bounds(minimum=1)


@dataclass(frozen=True, kw_only=True)
class GrowthConfig:
    """Host, data, blueprints, gates and reward. Accuracies are in percent, gains and contributions in points of it."""

    dataset: str = option("digits", "digits (scikit-learn's), or module:function that returns four arrays")
    data_seed: int = option(0, "how the digits are split, and their noise", bounds=_NOT_NEGATIVE)
    noise: float = option(
        0.3, "standard deviation of the noise on the digits, whose pixels are 0 to 1", bounds=_NOT_NEGATIVE
    )
    channels: tuple[int, ...] = option((8, 16, 32), "channels of the host's blocks; a slot follows each", bounds=_COUNT)
    blueprints: tuple[str, ...] = option(
        ("norm", "attention", "depthwise", "conv"), "what can be planted, by name, or module:name of a Blueprint"
    )
    epochs: int = option(25, "epochs of the host, and steps of an episode", bounds=_COUNT)
    epoch_steps: int = option(16, "steps of the optimizer of a host in an epoch", bounds=_COUNT)
    batch_size: int = option(16, "images in such a step", bounds=Bounds(minimum=2))
    host_lr: float = option(0.01, "learning rate of host and seeds, SGD", bounds=Bounds(above=0))
    host_momentum: float = option(0.9, "momentum of SGD", bounds=Bounds(above=0, below=1))

    device: str = option("cpu", "where hosts are trained: cpu, cuda, or cuda:N")

    min_epochs: int = option(3, "gates: epochs in a stage before the next one", bounds=_COUNT)
    min_gain: float = option(0.5, "gate to blending: points gained while the seed trained", bounds=_POINTS)
    min_gradient: float = option(
        0.05, "gate to blending: gradient of a parameter of the seed, relative to the host's", bounds=_NOT_NEGATIVE
    )
    min_alpha: float = option(0.95, "gate to holding: alpha", bounds=Bounds(above=0, maximum=1))
    min_contribution: float = option(1.0, "gate to fossilized: counterfactual contribution", bounds=_POINTS)
    blend_steps: int = option(5, "epochs in which alpha rises to 1", bounds=_COUNT)

    reward: RewardMode = option("shaped", "shaped: at each step; sparse: at the end")
    contribution_weight: float = option(0.1, "reward for a point of contribution", bounds=_NOT_NEGATIVE)
    shaping_weight: float = option(0.3, "weight of the potential of the stages", bounds=_NOT_NEGATIVE)
    shaping_gamma: float = option(0.99, "discount of the potential: that of the agent", bounds=_POINTS)
    rent_weight: float = option(0.5, "rent: weight of ln(1 + seed parameters / host parameters)", bounds=_NOT_NEGATIVE)
    max_rent: float = option(8.0, "the highest rent of a step", bounds=_NOT_NEGATIVE)
    accuracy_weight: float = option(0.05, "reward at the end for a percent of accuracy", bounds=_NOT_NEGATIVE)
    fossil_bonus: float = option(3.0, "reward at the end for each useful fossil", bounds=_NOT_NEGATIVE)

    def __post_init__(self) -> None:
        check_options(self)
        for name in ("channels", "blueprints"):
            if not getattr(self, name):
                raise ConfigError(name, "", "must not be empty")

    @property
    def slots(self) -> tuple[str, ...]:
        """The names of the slots, one after each block."""
        count = len(self.channels)
        return ("early", "mid", "late") if count == 3 else tuple(f"block {block + 1}" for block in range(count))

    @property
    def choices(self) -> tuple[tuple[str, ...], ...]:
        """What an action chooses, by name: slot, blueprint ("none" is 0), blend, operation."""
        blends = tuple(blend.name.lower() for blend in Blend)
        return (self.slots, ("none", *self.blueprints), blends, tuple(each.name.lower() for each in Operation))
