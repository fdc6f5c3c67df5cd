"""The versions of everything that affects results."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch

from esper import __version__
from esper.simic.engines.native.engine import NativeEngine
from esper.simic.ppo import PPOAgent


@cache
def versions() -> dict[str, str]:
    """Versions of Esper, torch, Gymnasium and Python, by name; also the commit if Esper runs from a checkout."""
    commit = _commit()
    return {
        "esper": __version__,
        **({"commit": commit} if commit else {}),
        "torch": torch.__version__,
        "gymnasium": version("gymnasium"),
        "python": platform.python_version(),
    }


def versions_of(agent: PPOAgent) -> dict[str, str]:
    """The same, and which kernels compute the updates of `agent`, if any do."""
    engine = agent.updater.engine
    return versions() | ({"kernels": engine.variant} if isinstance(engine, NativeEngine) else {})


def other_arithmetic(stored: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What of `stored` and other versions `now` may round differently."""
    names = [name for name in ("torch", "kernels") if name in stored and stored[name] != now.get(name)]
    return [f"{name} {stored[name]}, now {now.get(name, 'none')}" for name in names]


def _commit() -> str | None:
    """The commit of the checkout in which this file is tracked, if any."""
    here = Path(__file__)
    git = ["git", "-C", str(here.parent)]
    try:
        # A virtual environment inside another project's checkout would yield that project's commit.
        subprocess.run([*git, "ls-files", "--error-unmatch", here.name], check=True, capture_output=True, timeout=10)
        describe = [*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(describe, check=True, capture_output=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
