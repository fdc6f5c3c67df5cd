"""The settings of a run whose actions a controller chooses that does not learn."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from esper.envs.growth.config import GrowthConfig
from esper.envs.growth.heuristic import ControllerName, HeuristicConfig
from esper.settings.options import Bounds, check_options, flatten, option, section

ENV = "esper/Growth-v0"

_COUNT = Bounds(minimum=1)


@dataclass(frozen=True, kw_only=True)
class ControlConfig:
    """Episodes of `esper/Growth-v0` with a controller, or with the `policy` of a run in its place."""

    group: ClassVar[str] = "run"

    growth: GrowthConfig = section(GrowthConfig(), group="environment")
    rules: HeuristicConfig = section(HeuristicConfig())
    controller: ControllerName = option(
        "heuristic", "heuristic: rules; random: allowed actions with equal chances; wait: the host alone"
    )
    policy: str | Path | None = option(None, "folder of a run whose policy acts, in place of a controller")
    stochastic: bool = option(False, "sample the policy's actions instead of taking the most likely")
    episodes: int = option(100, "episodes, all environments together", bounds=_COUNT)
    num_envs: int = option(4, "environments stepped together", bounds=_COUNT)
    seed: int = option(1, "seed of environments and of random actions", bounds=Bounds(minimum=0))
    run_dir: str | Path | None = option(
        None, "folder of the run (default: runs/<env>/<time>-<seed>)", group="output", recorded=False
    )
    tensorboard: bool = option(True, "write TensorBoard files", group="output")
    quiet: bool = option(False, "print nothing but errors", group="output", recorded=False)

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def rounds(self) -> int:
        """How often each environment has an episode, or as many epochs where episodes end early."""
        return -(-self.episodes // self.num_envs)

    def recorded(self) -> dict[str, Any]:
        """The settings as in `config.json`, the environment's as a run of PPO has them."""
        growth, default = flatten(self.growth), flatten(GrowthConfig())
        changed = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in growth.items()
            if value != default[name]
        }
        acting: dict[str, Any] = {"controller": self.controller}
        if self.controller == "heuristic":
            acting |= flatten(self.rules)
        if self.policy is not None:
            acting = {"controller": "policy", "policy": str(self.policy), "stochastic": self.stochastic}
        return {
            "env": ENV,
            "env_kwargs": changed,
            **acting,
            "episodes": self.episodes,
            "num_envs": self.num_envs,
            "seed": self.seed,
        }
