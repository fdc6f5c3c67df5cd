"""Commands where there is neither a display nor a home that can be written, as in a container."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

TINY = ("--env", "CartPole-v1", "--num-envs", "2", "--num-steps", "8", "--total-timesteps", "16", "--compile", "off")
NAMES = ("DISPLAY", "MPLCONFIGDIR", "SDL_", "WAYLAND_", "XDG_")


def esper(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(NAMES)}
    command = [sys.executable, "-m", "esper", *arguments]
    environment = kept | {"HOME": "/dev/null"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_pictures_are_drawn_without_a_word(tmp_path: Path) -> None:
    trained = esper(tmp_path, "ppo", *TINY, "--run-dir", "run")
    assert (trained.returncode, trained.stderr) == (0, "")
    assert (tmp_path / "run" / "training.png").stat().st_size > 0
    recorded = esper(tmp_path, "evaluate", "run", "--episodes", "1", "--record", "episode.gif")
    assert (recorded.returncode, recorded.stderr) == (0, "")
    assert "over 1 episode, seed 0" in recorded.stdout
    assert (tmp_path / "episode.gif").stat().st_size > 0
    shown = esper(tmp_path, "enjoy", "run")
    assert shown.returncode == 2
    assert shown.stderr.startswith("esper enjoy: error: env = CartPole-v1: cannot be shown: there is no display")


def test_matplotlib_may_warn_of_other_things() -> None:
    import esper.analysis.drawing  # noqa: F401

    assert logging.getLogger("matplotlib").level == logging.NOTSET
