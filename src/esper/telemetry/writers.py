"""The sinks beside the record. Each library is imported only by runs that use it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from esper.settings.options import ConfigError
from esper.system.errors import describe
from esper.telemetry.config import TelemetryConfig
from esper.telemetry.events import Sink, Writer


def check_writers(config: TelemetryConfig) -> None:
    """Refuse a writer whose library is missing or broken.

    Raises:
        ConfigError: with what to install.
    """
    for name in ("wandb", "mlflow"):
        if (given := getattr(config, name)) is None:
            continue
        if find_spec(name) is None:
            raise ConfigError(name, given, f"needs {name}: pip install 'esper-simic[{name}]'")
        try:
            import_module(f"esper.telemetry.{name}")
        except Exception as error:
            raise ConfigError(name, given, f"{name} cannot be imported: {describe(error)}") from error


def check_sinks(sinks: Sequence[Sink]) -> None:
    """Refuse what gets no events.

    Raises:
        ConfigError: naming it.
    """
    allowed = "must be a list of objects with emit(event) and close()"
    if isinstance(sinks, str) or not isinstance(sinks, Sequence):
        raise ConfigError("sinks", repr(sinks), allowed)
    for sink in sinks:
        methods = (getattr(sink, name, None) for name in ("emit", "close"))
        if isinstance(sink, type) or not all(map(callable, methods)):
            raise ConfigError("sinks", repr(sink), allowed)


def make_writers(config: TelemetryConfig, run_dir: Path, env_steps: int) -> Iterator[Writer]:
    """The writers of `config`, made one at a time, for a run that has done `env_steps`."""
    if config.tensorboard:
        from esper.telemetry.tensorboard import TensorBoardSink

        yield TensorBoardSink(run_dir / "tensorboard", env_steps)
    if config.wandb is not None:
        from esper.telemetry.wandb import WandbSink

        yield WandbSink(config.wandb, run_dir)
    if config.mlflow is not None:
        from esper.telemetry.mlflow import MlflowSink

        yield MlflowSink(config.mlflow, run_dir)
