"""What a report has of episodes of `esper/Growth-v0`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from esper.analysis.page import table
from esper.analysis.plots_growth import plot_episode


def pictures_of(episodes: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, bytes]]:
    """The episodes with the highest, the middle and the lowest return by heading, each as a file name and its PNG."""
    chosen = {}
    for name, episode in _chosen(episodes).items():
        place = f"environment {episode['environment']}, round {episode['update'] + 1}"
        chosen[f"Episode with the {name} return: {place}"] = (f"episode-{name}.png", plot_episode(episode))
    return chosen


def _chosen(episodes: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    ranked = sorted(episodes, key=_return, reverse=True)
    chosen: dict[str, Mapping[str, Any]] = {}
    for name, place in (("highest", 0), ("median", len(ranked) // 2), ("lowest", len(ranked) - 1)):
        if ranked and not any(ranked[place] is each for each in chosen.values()):
            chosen[name] = ranked[place]
    return chosen


def _return(episode: Mapping[str, Any]) -> float:
    # Absent where it was not finite.
    return float(episode.get("episode_return", -math.inf))


def table_of(episodes: Sequence[Mapping[str, Any]]) -> str:
    """Means over all episodes, and how often each operation was done, by blueprint where one was planted."""
    numbers = {
        "episodes": len(episodes),
        "return": _mean(episodes, "episode_return"),
        "final accuracy (%)": _mean(episodes, "final_accuracy"),
        "parameters in seeds": _mean(episodes, "seed_parameters"),
        "fossils": _mean(episodes, "fossils"),
    }
    done: dict[str, int] = {}
    for episode in episodes:
        for action in episode["action"]:
            name = action.partition(" in ")[0] if action.startswith("germinate") else action.split(" ")[0]
            if name != "wait":
                done[name] = done.get(name, 0) + 1
    rows = [(name, f"{value:,.4g}") for name, value in numbers.items()]
    rows += [(f"{name}, per episode", f"{count / len(episodes):.3g}") for name, count in sorted(done.items())]
    return table(rows)


def _mean(episodes: Sequence[Mapping[str, Any]], name: str) -> float:
    known = [episode[name] for episode in episodes if name in episode]
    return fmean(known) if known else math.nan
