"""A picture of an episode so far: accuracy over epochs, and the stage of each slot as a band."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from esper.envs.growth.config import GrowthConfig
from esper.envs.growth.stages import Host, Stage

# Colours for the colour-blind, too (Okabe and Ito 2008), as in reports; a slot without a seed is white.
_COLOURS = {
    Stage.DORMANT: "#FFFFFF",
    Stage.GERMINATED: "#F0E442",
    Stage.TRAINING: "#E69F00",
    Stage.BLENDING: "#56B4E9",
    Stage.HOLDING: "#0072B2",
    Stage.FOSSILIZED: "#009E73",
    Stage.CULLED: "#CC79A7",
}
_WIDTH, _LEFT, _CURVE, _BAND, _GAP = 480, 64, 200, 28, 8


def episode_picture(hosts: Sequence[Host], config: GrowthConfig) -> NDArray[np.uint8]:
    """[H, W, 3] of an episode whose `hosts` there were, one for each epoch from the first."""
    height = _GAP + _CURVE + _GAP + len(config.slots) * (_BAND + _GAP) + 20
    image = Image.new("RGB", (_WIDTH, height), "white")
    draw = ImageDraw.Draw(image)
    step = (_WIDTH - _LEFT - _GAP) / config.epochs
    for percent in (0, 50, 100):
        y = _GAP + _CURVE * (1 - percent / 100)
        draw.line([(_LEFT, y), (_WIDTH - _GAP, y)], fill="#DDDDDD")
        draw.text((_GAP, y - 6 if percent < 100 else y), f"{percent} %", fill="black")
    points = [(_LEFT + host.epoch * step, _GAP + _CURVE * (1 - host.val_accuracy / 100)) for host in hosts]
    if len(points) > 1:
        draw.line(points, fill="black", width=2)
    for index, name in enumerate(config.slots):
        top = 2 * _GAP + _CURVE + index * (_BAND + _GAP)
        draw.text((_GAP, top + _BAND // 2 - 6), name, fill="black")
        for host in hosts[1:]:
            right = _LEFT + host.epoch * step
            draw.rectangle([right - step, top, right, top + _BAND], fill=_COLOURS[host.slots[index].stage])
        draw.rectangle([_LEFT, top, _WIDTH - _GAP, top + _BAND], outline="#888888")
    latest = hosts[-1]
    stages = ", ".join(
        f"{name} {slot.stage.name.lower()}" for name, slot in zip(config.slots, latest.slots, strict=True)
    )
    draw.text((_GAP, height - 18), f"epoch {latest.epoch}, {latest.val_accuracy:.1f} %; {stages}", fill="black")
    return np.asarray(image)
