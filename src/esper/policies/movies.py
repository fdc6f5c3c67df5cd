"""Frames as an animated GIF, or as an MP4 by imageio-ffmpeg, an extra."""

from __future__ import annotations

import importlib.util
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from esper.settings.values import ConfigError
from esper.storage import files

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SUFFIXES = (".gif", ".mp4")


def check_movie(name: str, path: Path, *others: str) -> None:
    """Refuse a file that `write_movie` cannot write, but for the suffixes `others`.

    Raises:
        ConfigError: naming the setting `name`.
    """
    if path.suffix not in (allowed := (*others, *_SUFFIXES)):
        raise ConfigError(name, path, f"must end in {', '.join(allowed[:-1])} or {allowed[-1]}")
    if path.suffix == ".mp4" and importlib.util.find_spec("imageio_ffmpeg") is None:
        raise ConfigError(name, path, "needs imageio-ffmpeg: pip install 'esper-simic[video]'; a .gif does not")


def write_movie(path: str | Path, frames: Sequence[NDArray[np.uint8]], *, fps: float) -> None:
    """Write `frames`, each [H, W, 3], as its name says.

    Raises:
        ConfigError: as `check_movie`.
        OSError: when it cannot be written.
    """
    path = Path(path)
    check_movie("path", path)
    files.write_named(path, _gif(frames, fps) if path.suffix == ".gif" else _mp4(frames, fps))


def _gif(frames: Sequence[NDArray[np.uint8]], fps: float) -> bytes:
    from PIL import Image

    images, gif = [Image.fromarray(frame) for frame in frames], io.BytesIO()
    images[0].save(gif, "GIF", save_all=True, append_images=images[1:], duration=round(1000 / fps), loop=0)
    return gif.getvalue()


def _mp4(frames: Sequence[NDArray[np.uint8]], fps: float) -> bytes:
    import imageio_ffmpeg
    import numpy as np

    # H.264 has colours for each 2x2 pixels.
    even = [np.pad(frame, [(0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)], mode="edge") for frame in frames]
    height, width, _ = even[0].shape
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "movie.mp4"
        writer = imageio_ffmpeg.write_frames(str(path), (width, height), fps=fps, macro_block_size=1)
        writer.send(None)
        for frame in even:
            writer.send(np.ascontiguousarray(frame))
        writer.close()
        return path.read_bytes()
