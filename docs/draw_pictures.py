"""Draws the pictures of the schedules in README.md and docs/schedules.md: python docs/draw_pictures.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from esper.analysis.plots import plot_schedules
from esper.schedules import SHAPES, ScheduleConfig, make_schedule

IMAGES = Path(__file__).parent / "images"
TOTAL = 200
WARMUP: dict[str, Any] = {"peak": 1e-3, "warmup_steps": 20}

WARMUPS: dict[str, dict[str, Any]] = {
    "linear": {},
    "cosine": {"warmup_shape": "cosine"},
    "linear, warmup_start_ratio 0.3": {"warmup_start_ratio": 0.3},
}
# Those that fall from the base rate to the end of the run, in one figure.
FALLS: dict[str, dict[str, Any]] = {
    "linear": {},
    "cosine": {},
    "polynomial": {"power": 2.0},
    "exponential": {"min_ratio": 0.02},
    "inverse_sqrt": {"timescale": 20.0},
    "step": dict(SHAPES["step"].example),
    "cosine_restarts": {"cycles": 3},
}


def main() -> None:
    for decay, shape in SHAPES.items():
        before = {} if shape.has_own_peak else {"peak": WARMUP["peak"]} if shape.no_warmup else WARMUP
        draw(f"decay-{decay}", {"policy": ScheduleConfig(decay=decay, **before, **shape.example)}, decay)
    components = {
        "policy": ScheduleConfig(peak=1e-3, delay=20, warmup_steps=20, decay="cosine", min_ratio=0.1),
        "value": ScheduleConfig(peak=2e-3, warmup_steps=10, decay="linear"),
    }
    draw("policy-and-value", components, "policy and value apart", size=(7, 3))
    rising = {name: ScheduleConfig(peak=1.0, warmup_steps=20, **given) for name, given in WARMUPS.items()}
    compare("warmups", rising, updates=range(30))
    falling = {name: ScheduleConfig(peak=1.0, decay=name, **given) for name, given in FALLS.items()}
    compare("decays", falling, updates=range(TOTAL))
    late = {
        f"wsd, {shape}": ScheduleConfig(peak=1.0, decay="wsd", decay_frac=0.4, wsd_shape=shape)
        for shape in ("linear", "cosine", "1-sqrt")
    }
    compare("wsd-shapes", late, updates=range(TOTAL))


def draw(name: str, configs: dict[str, ScheduleConfig], title: str, size: tuple[float, float] = (3.6, 2.2)) -> None:
    schedules = {group: make_schedule(config, TOTAL) for group, config in configs.items()}
    curves = {group: [schedule(update) for update in range(TOTAL)] for group, schedule in schedules.items()}
    phases = [schedules["policy"].phase(update) for update in range(TOTAL)]
    plot_schedules(curves, phases, IMAGES / f"{name}.png", title=title, size=size)


def compare(name: str, configs: dict[str, ScheduleConfig], updates: range) -> None:
    """Several schedules on one axis, as fractions of the base rate."""
    figure, axis = plt.subplots(figsize=(7, 3), layout="constrained")
    for label, config in configs.items():
        schedule = make_schedule(config, TOTAL)
        axis.plot(updates, [schedule.ratio(update) for update in updates], label=label, drawstyle="steps-post")
    axis.set(xlabel="update", ylabel="rate / base rate", ylim=(0, 1.05))
    axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(IMAGES / f"{name}.png", dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
