"""docs/variables.md names every environment variable that the sources read or set, and no other as Esper's."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import esper
from esper.schedules import SWITCH

SOURCE = Path(esper.__file__).parent
PAGE = (Path(__file__).parent.parent / "docs" / "variables.md").read_text()
ROWS = PAGE.partition("Libraries have theirs")[0].splitlines()
# A variable by its name, by a constant, or by a constant that has its value, too.
NAMED = re.compile(r"""os\.(?:getenv\(|environ(?:\.\w+\(|\[))\*?(?:["'](\w+)["']|(\w+))""")
# All of them: what a compiler gets, and what `schedules_enabled` looks for `SWITCH` in.
WHOLE = ("env=os.environ | variables", "environment: Mapping[str, str] = os.environ")


def named_in(path: Path) -> Iterator[str]:
    module = ".".join(("esper", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")
    for line in path.read_text().splitlines():
        if "os.environ" in line or "getenv" in line:
            found = NAMED.findall(line)
            assert found or any(whole in line for whole in WHOLE), f"{module}: {line.strip()}"
            for name, constant in found:
                value = name or getattr(importlib.import_module(module), constant)
                yield value if isinstance(value, str) else value[0]


def test_the_page_names_what_the_sources_read() -> None:
    read = {name for path in SOURCE.rglob("*.py") for name in named_in(path)} | {SWITCH}
    assert {"CXX", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "ESPER_LR_SCHEDULE"} <= read
    assert {match[1] for row in ROWS if (match := re.match(r"\| `(\w+)` \|", row))} == read


def test_the_environment_is_read_in_no_other_way() -> None:
    for path in SOURCE.rglob("*.py"):
        assert not re.search(r"from os import .*(environ|getenv)|environb|putenv|expandvars", path.read_text()), path
    for path in (*SOURCE.rglob("*.cpp"), *SOURCE.rglob("*.h"), *SOURCE.rglob("*.hpp")):
        assert "getenv" not in path.read_text(), path
