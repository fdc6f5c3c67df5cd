"""Summaries of scores over episodes or seeds."""

from __future__ import annotations

from collections.abc import Sequence

from scipy import stats


def interquartile_mean(scores: Sequence[float]) -> float:
    """Mean of the middle half of `scores` (Agarwal et al. 2021, arXiv 2108.13264)."""
    return float(stats.trim_mean(scores, 0.25))
