"""Weights & Biases in its offline mode. Needs the extra `wandb`."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from esper.analysis.runs import read_events
from esper.runs.config import RunConfig
from esper.runs.layers import Layer, resolve
from esper.runs.run import run
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


def history(file: bytes) -> Iterator[dict[str, str]]:
    """What was logged, from a file of wandb's: seven bytes, then a LevelDB log of protocol buffers."""
    from wandb.proto.wandb_internal_pb2 import Record

    position, whole = 7, b""
    while position + 7 <= len(file):
        # A block of 32 KiB ends in zeros where no header of seven bytes fits any more.
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", file, position)
        whole += file[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # full, last
            record = Record()
            record.ParseFromString(whole)
            whole = b""
            if record.HasField("history"):
                yield {"/".join(item.nested_key) or item.key: item.value_json for item in record.history.item}


def test_a_run_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    events = train(tmp_path / "run", snapshot_every=2)
    assert not [event for event in events if event["event"] == "sink_failed"]
    (path,) = (tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb")
    deadline = time.monotonic() + 60
    # Its own process may be writing still when `finish` has returned.
    while len(rows := list(history(path.read_bytes()))) < 4 and time.monotonic() < deadline:
        time.sleep(0.1)
    updates = [event for event in events if event["event"] == "update_completed"]
    assert [float(row["lr/policy"]) for row in rows] == [event["lr/policy"] for event in updates]
    assert [int(row["_step"]) for row in rows] == [1024, 2048, 3072, 4096]
    assert [float(row["value_loss"]) for row in rows] == [event["value_loss"] for event in updates]
    assert "mean/value_loss" in rows[1]


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
