"""Rates that follow the KL beside those of rsl_rl and skrl, where they are installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import feedback_peers

from esper.schedules import FeedbackConfig


def test_our_rates_are_those_of_rsl_rl() -> None:
    pytest.importorskip("rsl_rl")
    result = feedback_peers.compare_rule(seed=1, count=400)
    assert (result["steps"], result["different"]) == (400, 0)
    assert result["changes"] > 100
    assert min(result["at_lower_bound"], result["at_upper_bound"]) > 10


def test_another_rule_is_found_to_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rsl_rl")
    other = FeedbackConfig(target=0.0101, every="minibatch")
    monkeypatch.setattr(feedback_peers, "FEEDBACK", other)
    assert feedback_peers.compare_rule(seed=1, count=400)["different"] > 0


@pytest.mark.parametrize("package", ["rsl-rl-lib", "skrl", "esper-simic"])
def test_the_rate_goes_on_where_it_was(package: str, tmp_path: Path) -> None:
    if feedback_peers.installed_version(package) is None:
        pytest.skip(f"{package} is not installed")
    rates = feedback_peers.RESUMES[package](tmp_path)
    assert rates["loaded"] == rates["next"] == rates["never_stopped"]
