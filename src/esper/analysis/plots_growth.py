"""Pictures of an episode of `esper/Growth-v0`, from its `growth_episode` record."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esper.analysis.drawing import Axes, Figure, MaxNLocator, Patch, plt
from esper.analysis.labels import plain

# Colours for the colour-blind, too (Okabe and Ito 2008); a slot without a seed is white.
_STAGES = {
    "germinated": "#F0E442",
    "training": "#E69F00",
    "blending": "#56B4E9",
    "holding": "#0072B2",
    "fossilized": "#009E73",
    "culled": "#CC79A7",
}
_MARKERS = {"germinate": "^", "cull": "x", "fossilize": "s"}
# The accuracy above which there is room for text below it.
_ROOM = 45.0
_LINES = ("-", "--", ":", "-.")

Episode = Mapping[str, Any]


def plot_episode(episode: Episode, title: str = "") -> bytes:
    """Accuracy, actions, stages and alpha of each slot, contributions and rewards over the epochs, as PNG."""
    figure = _figure(episode, title, upto=len(episode["reward"]))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    plt.close(figure)
    return buffer.getvalue()


def episode_frames(episode: Episode, title: str = "") -> list[NDArray[np.uint8]]:
    """The same picture after each epoch, [H, W, 3], on axes that stay."""
    frames = []
    for upto in range(1, len(episode["reward"]) + 1):
        figure = _figure(episode, title, upto=upto)
        figure.set_dpi(80)
        figure.canvas.draw()
        # Agg's canvas alone has it.
        frames.append(np.asarray(figure.canvas.buffer_rgba())[..., :3].copy())  # type: ignore[attr-defined]
        plt.close(figure)
    return frames


def _figure(episode: Episode, title: str, *, upto: int) -> Figure:
    slots, epochs = list(episode["stage"]), len(episode["reward"])
    heights = [3.0, *[0.55] * len(slots), 1.3, 1.1]
    figure, axes = plt.subplots(
        len(heights), figsize=(9, 8), sharex=True, height_ratios=heights, layout="constrained", squeeze=False
    )
    accuracy, *bands, contribution, reward = axes[:, 0]
    figure.suptitle(plain(title or _says(episode)), fontsize=11)
    _draw_accuracy(accuracy, episode, upto)
    for axis, slot in zip(bands, slots, strict=True):
        _draw_slot(axis, episode, slot, upto)
    for line, slot in zip(_cycled(len(slots)), slots, strict=True):
        points = _numbers(episode["contribution"][slot])
        contribution.plot(np.arange(1, upto + 1), points[:upto], line, marker=".", label=plain(slot), linewidth=1)
    contribution.axhline(0, color="0.6", linewidth=0.6)
    contribution.set_ylabel("contribution\n(points)", fontsize=8)
    contribution.set_ylim(*_limits(_numbers([points for slot in slots for points in episode["contribution"][slot]])))
    contribution.legend(fontsize=7, loc="upper left", ncols=len(slots))
    rewards = _numbers(episode["reward"])
    reward.bar(np.arange(1, upto + 1), rewards[:upto], color="0.5", width=0.7)
    reward.axhline(0, color="0.6", linewidth=0.6)
    reward.set_ylim(*_limits(rewards))
    reward.set_ylabel("reward", fontsize=8)
    reward.set(xlabel="epoch", xlim=(-0.5, epochs + 0.5))
    reward.xaxis.set_major_locator(MaxNLocator(nbins=13, integer=True))
    handles = [Patch(color=colour, label=stage) for stage, colour in _STAGES.items()]
    figure.legend(handles=handles, fontsize=8, loc="outside lower center", ncols=len(handles))
    return figure


def _says(episode: Episode) -> str:
    diverged = ", diverged" if episode.get("diverged") else ""
    return (
        f"return {episode.get('episode_return', np.nan):.2f}, accuracy {episode.get('final_accuracy', np.nan):.1f} %, "
        f"{episode['seed_parameters']:,} parameters in seeds beside {episode['host_parameters']:,}{diverged}"
    )


def _draw_accuracy(axis: Axes, episode: Episode, upto: int) -> None:
    """The curve, with a mark at each action: an action is done before its epoch."""
    accuracy = _numbers(episode["accuracy"])
    axis.plot(np.arange(upto + 1), accuracy[: upto + 1], color="0.2", linewidth=1.4)
    for index, action in enumerate(episode["action"][:upto]):
        if (marker := _MARKERS.get(action.split()[0])) is None:
            continue
        colour = {"^": "#E69F00", "x": "#CC79A7", "s": "#009E73"}[marker]
        axis.plot(index, accuracy[index], marker, color=colour, markersize=8)
        below, late = accuracy[index] > _ROOM, index > 0.8 * len(episode["reward"])
        note = axis.annotate(
            plain(action.partition(",")[0]),
            (index, accuracy[index]),
            xytext=(-3 if late else 3, -8 if below else 8),
            textcoords="offset points",
            rotation=-45 if below != late else 45,
            fontsize=7,
            ha="right" if late else "left",
            va="top" if below else "bottom",
        )
        note.set_in_layout(False)
    axis.set_ylabel("accuracy (%)", fontsize=8)
    axis.set_ylim(0, 104)


def _draw_slot(axis: Axes, episode: Episode, slot: str, upto: int) -> None:
    """A band in the colour of the stage at the end of each epoch, and the line of alpha over it."""
    stages = episode["stage"][slot][:upto]
    for index, stage in enumerate(stages):
        if stage in _STAGES:
            axis.axvspan(index + 0.5, index + 1.5, color=_STAGES[stage], linewidth=0)
    blueprints = episode["blueprint"][slot][:upto]
    for index, name in enumerate(blueprints):
        if name and (index == 0 or blueprints[index - 1] != name):
            axis.text(index + 0.6, 0.95, plain(name), fontsize=7, va="top", clip_on=True)
    alphas = np.array(episode["alpha"][slot][:upto], dtype=float)
    axis.plot(np.arange(1, upto + 1), np.where(alphas > 0, alphas, np.nan), color="black", linewidth=1.2, marker=".")
    axis.set(ylim=(-0.05, 1.15), yticks=[0, 1])
    axis.set_ylabel(f"{plain(slot)}\nalpha", fontsize=8)
    axis.tick_params(labelsize=7)


def _numbers(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def _limits(values: NDArray[np.float64]) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    low, high = min(known.min(initial=0.0), 0.0), max(known.max(initial=0.0), 0.0)
    margin = 0.1 * (high - low) or 1.0
    return low - margin, high + margin


def _cycled(count: int) -> list[str]:
    return [_LINES[index % len(_LINES)] for index in range(count)]
