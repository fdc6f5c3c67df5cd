"""The settings of telemetry. Does not import torch, so the command line starts quickly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from esper.settings.options import Bounds, check_options, option

Level: TypeAlias = Literal["off", "minimal", "normal", "debug"]


@dataclass(frozen=True, kw_only=True)
class TelemetryConfig:
    """What is recorded of a run, and where. None of it changes what the run learns."""

    group: ClassVar[str] = "output"

    telemetry: Level = option(
        "normal",
        "what is recorded: off, not even updates; minimal, each update; normal, also rolling statistics, anomalies and "
        "a diagnosis; debug, also every minibatch",
        may_change="always",
    )
    snapshot_every: int = option(
        10, "updates between snapshots of rolling statistics", bounds=Bounds(minimum=1), may_change="always"
    )
    tensorboard: bool = option(True, "write TensorBoard files", may_change="always")
    wandb: str | None = option(None, "also log to this project of Weights & Biases (extra wandb)", may_change="always")
    mlflow: str | None = option(None, "also log to this experiment of MLflow (extra mlflow)", may_change="always")

    def __post_init__(self) -> None:
        check_options(self)
