"""Movies, read again."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from esper.policies.movies import write_movie
from esper.scripts.train import main
from esper.settings.options import ConfigError

# From black to red, in a size of which neither side is even.
FRAMES = [np.full((33, 21, 3), (value, 0, 0), dtype=np.uint8) for value in (0, 100, 200)]


def test_a_gif_has_every_frame(tmp_path: Path) -> None:
    write_movie(tmp_path / "a.gif", FRAMES, fps=10)
    with Image.open(tmp_path / "a.gif") as gif:
        assert (gif.n_frames, gif.size, gif.info["duration"]) == (3, (21, 33), 100)  # type: ignore[attr-defined]


# The reader leaves its pipes to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_video_has_every_frame_in_its_order(tmp_path: Path) -> None:
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    write_movie(tmp_path / "a.mp4", FRAMES, fps=10)
    reader = ffmpeg.read_frames(str(tmp_path / "a.mp4"))
    about = next(reader)
    assert (about["size"], about["fps"], about["codec"]) == ((22, 34), 10.0, "h264")
    reds = [np.frombuffer(frame, np.uint8).reshape(34, 22, 3)[..., 0].mean() for frame in reader]
    assert reds == pytest.approx([0, 100, 200], abs=8)


def test_what_cannot_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match=r"a.avi: must end in .gif or .mp4"):
        write_movie(tmp_path / "a.avi", FRAMES, fps=10)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'esper-simic\[video\]'"):
        write_movie(tmp_path / "a.mp4", FRAMES, fps=10)
    for command in ("evaluate RUN", "heuristic"):
        with pytest.raises(SystemExit):
            main([*command.split(), "--record", "a.avi"])
        assert "--record a.avi: must end in" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
