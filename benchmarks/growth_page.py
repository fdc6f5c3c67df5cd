"""Fills docs/growth.md with what docs/study-growth.toml showed: `esper compare ... --json > docs/study-growth.json`.

python benchmarks/growth_page.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from marked import fill

DOCS = Path(__file__).parents[1] / "docs"
ROWS = (
    *("final_return", "area_under_curve", "value_loss_variance", "value_loss_roughness"),
    *("ratio_std_after", "ratio_std_after_variance", "approx_kl_after_max", "approx_kl_after_oscillation"),
)


def cell(summary: dict[str, Any]) -> str:
    """The mean, and how it differs from the first arm's, with its interval."""
    found, difference = f"{summary['mean']:.3g}", summary.get("difference")
    if difference is None:
        return found
    change, (low, high) = difference["ratio"], difference["ratio_interval"]
    return f"{found} ({100 * (change - 1):+.0f} % [{100 * (low - 1):+.0f}, {100 * (high - 1):+.0f}])"


def main() -> None:
    found = json.loads((DOCS / "study-growth.json").read_text())
    arms = found["arms"]
    lines = [f"| measure | {' | '.join(arms)} |", "|---" * (len(arms) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(cell(found['measures'][name][arm]) for arm in arms)} |" for name in ROWS]
    lines += [f"| runs | {' | '.join(map(str, arms.values()))} |"]
    fill(DOCS / "growth.md", {"study": "\n".join(lines)})


if __name__ == "__main__":
    main()
