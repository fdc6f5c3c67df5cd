"""The tables and pictures of a study's page in docs/, from the runs of its sweep.

    esper sweep --config docs/study-lr-schedules.toml
    python benchmarks/study_page.py docs/study-lr-schedules.md runs/study-lr-schedules

The sweep is in a TOML file beside the page, the numbers go to a JSON file there.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from marked import fill
from PIL import Image

from esper.analysis.arms import Arm, load_arm
from esper.analysis.comparison import Summary, compare, warnings
from esper.analysis.measures import all_measures
from esper.analysis.plots_comparison import plot_curves
from esper.runs.config import RunConfig
from esper.settings.options import settings_of
from esper.sweep.plan import make_sweep, read_sweep

# Where the first arm's mean may be 0 or negative a share of it says nothing: these are shown as they are.
ABSOLUTE = ("final_return", "area_under_curve", "approx_kl_spikes", "explained_variance")
CURVES = ("episode_return_mean", "value_loss", "ratio_std", "approx_kl")

Results = Mapping[str, Mapping[str, Mapping[str, Summary]]]


def load(path: Path, folder: Path) -> dict[str, list[Arm]]:
    """The arms of each environment that `folder` has, in the order of the sweep in the file `path`."""
    sweep = make_sweep({"folder": "", **read_sweep(path)}, str(path))
    return {
        environment.name: [load_arm(folder / environment.name / arm, settings_of(RunConfig)) for arm in sweep.arms]
        for environment in sweep.environments
        if (folder / environment.name).is_dir()
    }


def table(results: Results, measure: str) -> str:
    """A row for each arm, a column for each environment: means of the first arm, differences of the others."""
    lines = [f"| | {' | '.join(results)} |", "|---" * (len(results) + 1) + "|"]
    arms = list(next(iter(results.values()))[measure])
    for arm in arms:
        cells = [
            cell(by_measure[measure][arm], by_measure[measure][arms[0]], measure) for by_measure in results.values()
        ]
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(summary: Summary, first: Summary, measure: str) -> str:
    """In bold what has an interval without 0."""
    difference = summary.difference
    if difference is None:
        return f"{summary.mean:.3g}"
    low, high = difference.interval
    scale, unit = (1.0, "") if measure in ABSOLUTE else (100 / first.mean, " %")
    text = f"{difference.mean * scale:+.3g}{unit} [{low * scale:+.3g}, {high * scale:+.3g}]"
    return f"**{text}**" if low * high > 0 else text


def numbers(results: Results, arms: Mapping[str, list[Arm]]) -> dict[str, Any]:
    return {
        environment: {
            "runs": {arm.name: len(arm.runs) for arm in arms[environment]},
            "notes": warnings(arms[environment]),
            "measures": {
                measure: {arm: dataclasses.asdict(summary) for arm, summary in by_arm.items()}
                for measure, by_arm in by_measure.items()
            },
        }
        for environment, by_measure in results.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("page", type=Path)
    parser.add_argument("folder", type=Path, help="of the sweep's runs")
    args = parser.parse_args()
    page: Path = args.page
    arms, measures = load(page.with_suffix(".toml"), args.folder), all_measures(None)
    results = {environment: compare(each, measures) for environment, each in arms.items()}
    fill(page, {measure: table(results, measure) for measure in measures})
    page.with_suffix(".json").write_text(json.dumps(numbers(results, arms), indent=1) + "\n")
    for environment, each in arms.items():
        picture = Image.open(io.BytesIO(plot_curves(each, CURVES, "update"))).convert("RGB")
        # A quarter of the size, and the same to the eye.
        picture.quantize(128).save(page.parent / "images" / f"{page.stem}-{environment}.png", optimize=True)


if __name__ == "__main__":
    main()
