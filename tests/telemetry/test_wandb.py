"""Weights & Biases in its offline mode. Needs the extra `wandb`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from received import check_received, in_wandb

from esper.analysis.runs import read_events
from esper.runs.config import RunConfig
from esper.runs.layers import Layer, resolve
from esper.runs.run import resume_run, run
from esper.settings.options import ConfigError
from esper.telemetry import writers
from esper.telemetry.config import TelemetryConfig


def train(run_dir: Path, **settings: Any) -> list[dict[str, Any]]:
    values = {
        "env": "torch/CartPole-v1",
        "total_timesteps": 4096,
        "threads": 1,
        "run_dir": str(run_dir),
        "tensorboard": False,
        "picture": False,
        "quiet": True,
        "wandb": "esper-tests",
        **settings,
    }
    run(resolve([Layer(source="test", values=values)]).config)
    return list(read_events(run_dir))


def test_a_run_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    events = train(tmp_path / "run", snapshot_every=2)
    assert not [event for event in events if event["event"] == "sink_failed"]
    points = in_wandb(tmp_path / "run")
    losses = [event["value_loss"] for event in events if event["event"] == "update_completed"]
    assert points["value_loss"] == list(zip([1024, 2048, 3072, 4096], losses, strict=True))
    assert [step for step, _ in points["mean/value_loss"]] == [2048, 4096]
    check_received(tmp_path / "run")


@pytest.mark.parametrize("there", [0, 1025], ids=["a file of its own", "what was sent"])
def test_a_resumed_run_logs_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: int) -> None:
    """In the offline mode all is: the file replaces that of the run before. Online wandb says which step is next."""
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    train(tmp_path / "run", total_timesteps=2048, eval_every=1, eval_episodes=1)
    monkeypatch.setattr(wandb.Run, "starting_step", property(lambda run: there))
    resume_run(tmp_path / "run", [Layer(source="test", values={"total_timesteps": 3072, "quiet": True})])
    steps = [step for step in (1024, 2048, 3072) if step >= there]
    points = in_wandb(tmp_path / "run")
    assert [[step for step, _ in points[name]] for name in ("value_loss", "eval_return_mean")] == [steps, steps]


def test_without_an_account_the_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`wandb.init` raises where it may neither ask nor write."""
    wandb = pytest.importorskip("wandb")

    def refuse(**arguments: Any) -> None:
        raise wandb.UsageError("api_key not configured")

    monkeypatch.setattr(wandb, "init", refuse)
    events = train(tmp_path / "run")
    (failed,) = [event for event in events if event["event"] == "sink_failed"]
    assert (failed["sink"], failed["cause"]) == ("WandbSink", "UsageError: api_key not configured")
    assert events[-1]["status"] == "completed"


def test_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writers, "find_spec", lambda name: None)
    config = RunConfig(run_dir=str(tmp_path / "run"), telemetry=TelemetryConfig(wandb="x"))
    with pytest.raises(ConfigError, match=r"needs wandb: pip install 'esper-simic\[wandb\]'"):
        run(config)
    assert not (tmp_path / "run").exists()
