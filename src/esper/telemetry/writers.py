"""What writes events down beside the record. Each library is imported by the runs that use it alone."""

from __future__ import annotations

from pathlib import Path

from esper.options import ConfigError
from esper.telemetry.config import TelemetryConfig
from esper.telemetry.events import Sink


def make_writers(config: TelemetryConfig, run_dir: Path, env_steps: int) -> list[Sink]:
    """The writers that `config` asks for, for a run in `run_dir` that has done `env_steps`.

    Raises:
        ConfigError: for one whose library is not there.
    """
    writers: list[Sink] = []
    if config.tensorboard:
        from esper.telemetry.tensorboard import TensorBoardSink

        writers.append(TensorBoardSink(run_dir / "tensorboard", env_steps))
    if config.wandb is not None:
        try:
            from esper.telemetry.wandb import WandbSink
        except ModuleNotFoundError as error:
            raise ConfigError("wandb", config.wandb, f"needs {error.name}: pip install 'esper-simic[wandb]'") from None
        writers.append(WandbSink(config.wandb, run_dir))
    return writers
