"""The settings of an environment, free of gymnasium so that the command line answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

from esper.options import check_options, option

ScaleActions: TypeAlias = Literal["auto", "on", "off"]


@dataclass(frozen=True, kw_only=True)
class EnvConfig:
    """Which environment, and how copies of it are stepped together."""

    group: ClassVar[str] = "environment"

    env: str = option(
        "CartPole-v1",
        "Gymnasium environment id, module:ID for one that a module registers, or torch/ID (CartPole-v1, Acrobot-v1, "
        "Pendulum-v1, MountainCar-v0, MountainCarContinuous-v0)",
    )
    env_kwargs: dict[str, Any] = option({}, 'arguments of the environment as JSON, as {"continuous": true}')
    vector: Literal["auto", "native", "sync", "async", "envpool"] = option(
        "auto",
        "how copies are stepped: the environment's own vector version, one after the other, one process each, or "
        "EnvPool's version of it by threads; auto: native where there is one, else sync",
    )
    scale_actions: ScaleActions = option(
        "auto",
        "scale Box actions from [-1, 1] to their bounds, where these are finite; auto: where one is farther from 0 "
        "than 4 or nearer than 0.25, or 0 is not between them",
    )

    def __post_init__(self) -> None:
        check_options(self)
