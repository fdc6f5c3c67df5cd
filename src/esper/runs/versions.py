"""The versions of everything that affects results."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch

from esper import __version__


@cache
def versions() -> dict[str, str]:
    """Of Esper, torch, Gymnasium and Python, by name; the commit too, where Esper runs from a checkout."""
    commit = _commit()
    return {
        "esper": __version__,
        **({"commit": commit} if commit else {}),
        "torch": torch.__version__,
        "gymnasium": version("gymnasium"),
        "python": platform.python_version(),
    }


def _commit() -> str | None:
    """Of the checkout that this file is tracked in, if it is in any."""
    here = Path(__file__)
    git = ["git", "-C", str(here.parent)]
    try:
        # An environment inside of another project's checkout would give that project's commit.
        subprocess.run([*git, "ls-files", "--error-unmatch", here.name], check=True, capture_output=True, timeout=10)
        describe = [*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(describe, check=True, capture_output=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
