"""The one declaration of a run's settings: flags, config files and `config.json` all come from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from esper.envs.config import EnvConfig
from esper.runs.checkpoint.config import CheckpointConfig
from esper.runs.initial_config import InitialConfig
from esper.runs.parts import PartsConfig
from esper.settings.options import Bounds, ConfigError, check_options, option, section
from esper.simic.config import PPOConfig
from esper.telemetry.config import TelemetryConfig

_COUNT = Bounds(minimum=1)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One training run. Every setting has one flat name below this; see `esper.settings.options.settings_of`."""

    group: ClassVar[str] = "run"

    environment: EnvConfig = section(EnvConfig())
    ppo: PPOConfig = section(PPOConfig())
    parts: PartsConfig = section(PartsConfig())
    initial: InitialConfig = section(InitialConfig())
    checkpoints: CheckpointConfig = section(CheckpointConfig())
    telemetry: TelemetryConfig = section(TelemetryConfig())
    seed: int = option(1, "seed of initialisation, actions, minibatches and environments", bounds=Bounds(minimum=0))
    eval_every: int | None = option(
        None,
        "updates between evaluations: whole episodes, most likely actions, a separate seed",
        bounds=_COUNT,
        may_change="always",
    )
    eval_episodes: int = option(10, "episodes of an evaluation", bounds=_COUNT, may_change="always")
    stop_at_return: float | None = option(
        None,
        "stop, with a checkpoint, after an evaluation with this mean return; needs eval_every",
        bounds=Bounds(),
        may_change="always",
    )
    record_every: int | None = option(
        None,
        "updates between videos: an episode, most likely actions, as videos/update-N (.mp4 with the extra video, "
        "else .gif)",
        bounds=_COUNT,
        group="output",
        may_change="always",
    )
    max_minutes: float | None = option(
        None, "stop after this time, with a checkpoint", bounds=Bounds(above=0), recorded=False
    )
    run_dir: str | Path | None = option(
        None, "folder of the run (default: runs/<env>/<time>-<seed>)", group="output", recorded=False
    )
    picture: bool = option(True, "draw training.png when the run ends", group="output", may_change="always")
    quiet: bool = option(False, "print nothing but errors", group="output", recorded=False)

    def __post_init__(self) -> None:
        check_options(self)
        workers, num_envs = self.environment.env_workers, self.ppo.num_envs
        if workers is not None and workers > num_envs:
            raise ConfigError("env_workers", workers, f"must be at most num_envs, {num_envs}")
        if self.stop_at_return is not None and self.eval_every is None:
            raise ConfigError("stop_at_return", self.stop_at_return, "needs evaluations: give eval_every too")
