"""What TensorBoard shows of a run."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event as FileEvent
from test_sinks import update

from esper.policies.movies import write_movie
from esper.telemetry.events import EvaluationCompleted, VideoRecorded
from esper.telemetry.tensorboard import TensorBoardSink


def events(folder: Path) -> Iterator[FileEvent]:
    (path,) = folder.iterdir()
    data = path.read_bytes()
    while data:
        # A length with its checksum, and as many bytes with theirs.
        (length,) = struct.unpack("<Q", data[:8])
        yield FileEvent.FromString(data[12 : 12 + length])
        data = data[12 + length + 4 :]


def tags(folder: Path) -> set[str]:
    return {value.tag for event in events(folder) for value in event.summary.value}


def test_a_gif_is_an_image_as_it_is_and_an_mp4_is_not(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    write_movie(tmp_path / "videos" / "a.gif", [np.full((8, 16, 3), 60 * k, np.uint8) for k in range(3)], fps=5)
    (tmp_path / "videos" / "b.mp4").write_bytes(b"mp4")
    sink = TensorBoardSink(tmp_path / "tensorboard")
    for step, name in ((10, "a.gif"), (20, "b.mp4")):
        sink.emit(VideoRecorded(update=1, env_steps=step, video=f"videos/{name}", frames=3, seconds=0.1))
    sink.close()
    (event,) = [event for event in events(tmp_path / "tensorboard") if event.summary.value]
    (value,) = event.summary.value
    assert (event.step, value.tag, value.image.width, value.image.height) == (10, "video", 16, 8)
    assert value.image.encoded_image_string == (tmp_path / "videos" / "a.gif").read_bytes()
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    shown = reader.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    (image,) = shown.Images("video")
    assert (image.step, image.width, image.height) == (10, 16, 8)
    assert image.encoded_image_string == value.image.encoded_image_string


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
