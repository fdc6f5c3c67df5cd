"""What TensorBoard shows of a run."""

from __future__ import annotations

import struct
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event as FileEvent
from test_sinks import update

from esper.telemetry.events import EvaluationCompleted
from esper.telemetry.tensorboard import TensorBoardSink


def tags(folder: Path) -> set[str]:
    (path,) = folder.iterdir()
    data, found = path.read_bytes(), set()
    while data:
        # A length with its checksum, and as many bytes with theirs.
        (length,) = struct.unpack("<Q", data[:8])
        event = FileEvent.FromString(data[12 : 12 + length])
        found |= {value.tag for value in event.summary.value}
        data = data[12 + length + 4 :]
    return found


def test_tags_are_in_groups(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").mkdir()
    sink = TensorBoardSink(tmp_path / "tensorboard")
    sink.emit(update(returns=(1.0, 3.0)))
    sink.emit(
        EvaluationCompleted(
            update=1,
            env_steps=2,
            eval_episodes=3,
            eval_return_mean=4.0,
            eval_return_std=0.0,
            eval_length_mean=5.0,
            seconds=0.1,
        )
    )
    sink.close()
    found = tags(tmp_path / "tensorboard")
    assert found >= {
        *("rollout/episode_return_mean", "rollout/episodes", "losses/value_loss", "losses/approx_kl"),
        *("train/clip_coef", "train/optimizer_steps", "time/steps_per_second", "lr/policy", "grad_norm/policy"),
        *("eval/eval_return_mean", "eval/seconds"),
    }
    assert all("/" in tag for tag in found)
