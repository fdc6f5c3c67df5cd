"""Runs the core of the tests with several Pythons and torches, each pair in an environment of its own in .venvs."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PYTHONS = ("3.11", "3.12", "3.13")
CORE = ("tests/simic", "tests/schedules", "tests/runs/resume/test_resume.py")


def main() -> int:
    pins = Path("constraints.txt").read_text()
    pinned, oldest = first(r"(?m)^torch==(.+)$", pins), first('"torch>=(.+)"', Path("pyproject.toml").read_text())
    there = [version for version in PYTHONS if interpreter(version)]
    cells = [cell.partition("/") for cell in sys.argv[1:]]
    pairs = [(python, torch or pinned) for python, _, torch in cells]
    pairs = pairs or [*((version, pinned) for version in there), *((version, oldest) for version in there[:1])]
    results = {f"Python {python}, torch {torch}": result(python, torch, pins) for python, torch in pairs}
    print("\n" + "\n".join(f"{name}: {text}" for name, text in results.items()))
    return int(set(results.values()) != {"passed"})


def first(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    assert found, pattern
    return found[1]


def interpreter(version: str) -> str | None:
    """The path of this Python, if it is there."""
    path = shutil.which(f"python{version}")
    # A shim can be there without its Python.
    return (
        path if path and subprocess.run([path, "--version"], check=False, capture_output=True).returncode == 0 else None
    )


def result(python: str, torch: str, pins: str) -> str:
    """The outcome of the tests, in a word."""
    found = interpreter(python)
    if found is None:
        return "not here"
    folder = Path(".venvs", f"python{python}-torch{torch}")
    own = folder / "bin" / "python"
    if not own.exists():
        run([found, "-m", "venv", str(folder)])
    constraints = folder / "constraints.txt"
    constraints.write_text(re.sub(r"(?m)^torch==.+$", f"torch=={torch}", pins))
    if not run([str(own), "-m", "pip", "install", "-c", str(constraints), "-e", ".[dev]"]):
        return "cannot be installed"
    tests = os.environ.get("CORE", "").split() or CORE
    return "passed" if run([str(own), "-m", "pytest", *tests]) else "failed"


def run(command: Sequence[str]) -> bool:
    print(" ".join(command), flush=True)
    return subprocess.run(command, check=False).returncode == 0


if __name__ == "__main__":
    raise SystemExit(main())
