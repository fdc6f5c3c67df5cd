"""The Dockerfile copies all that installing needs: Esper is built from those files alone."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "Dockerfile").read_text()


def test_what_it_copies_is_what_the_build_reads() -> None:
    copied = [name for line in re.findall(r"^COPY (?!--from)(.*) \S+$", TEXT, re.MULTILINE) for name in line.split()]
    assert all((ROOT / name).exists() for name in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {"pyproject.toml", "setup.py", project["project"]["readme"], *project["project"]["license-files"]}
    assert needed | set(project["tool"]["setuptools"]["packages"]["find"]["where"]) <= set(copied)
    assert set(re.findall(r"--constraint /(\S+)", TEXT)) <= set(copied)


def test_it_runs_the_command_without_rights() -> None:
    assert TEXT.index("\nUSER esper\n") < TEXT.index('\nENTRYPOINT ["esper"]\n')
