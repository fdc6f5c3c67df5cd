"""Writes constraints.txt: the version of each package that Esper and all its extras need, as pip resolves them.

Nothing is installed. Versions that are pinned stay while they fit, but those of the packages that are named; `all` is
every package.
"""

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

FILE = Path("constraints.txt")
HEADING = (
    "# The versions this project is tested with; `make setup` installs exactly these. `make constraints` writes them.\n"
)
# What torch pins itself, where it has CUDA; and what builds packages, which is no matter of theirs.
NOT_PINNED = ("nvidia", "cuda", "triton", "setuptools")


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> list[str]:
    return [line for line in FILE.read_text().splitlines() if "==" in line]


def resolve(constraints: list[str]) -> dict[str, str]:
    """The version of each package, by its name."""
    extras = tomllib.loads(Path("pyproject.toml").read_text())["project"]["optional-dependencies"]
    with tempfile.TemporaryDirectory() as folder:
        kept, report = Path(folder, "constraints.txt"), Path(folder, "report.json")
        kept.write_text("\n".join(constraints))
        command = [*(sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet")]
        command += ["--constraint", str(kept), "--report", str(report), "--editable", f".[{','.join(extras)}]"]
        subprocess.run(command, check=True)
        found = [each["metadata"] for each in json.loads(report.read_text())["install"] if not each["is_direct"]]
    return {each["name"]: each["version"].partition("+")[0] for each in found}


def main() -> None:
    upgraded = {plain(name) for name in sys.argv[1:]}
    kept = [pin for pin in pins() if not upgraded & {plain(pin.partition("==")[0]), "all"}]
    found = resolve(kept)
    names = sorted((name for name in found if not plain(name).startswith(NOT_PINNED)), key=str.lower)
    FILE.write_text(HEADING + "".join(f"{name}=={found[name]}\n" for name in names))


if __name__ == "__main__":
    main()
