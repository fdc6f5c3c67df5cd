"""Arms beside each other: known cases, and what is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from esper.analysis.arms import ArmError, load_arm
from esper.analysis.comparison import compare, warnings
from esper.analysis.measures import MEASURES, steps_to
from esper.analysis.statistics import (
    difference_interval,
    hedges_g,
    mean_interval,
    probability_of_improvement,
)
from esper.scripts.train import main


def write_run(folder: Path, seed: int, *, env: str = "CartPole-v1", status: str = "completed", **columns: Any) -> Path:
    """A record whose updates have `columns`, each a list."""
    folder.mkdir(parents=True)
    updates = [
        {"event": "update_completed", "update": i, "env_steps": 100 * (i + 1), **dict(zip(columns, row, strict=True))}
        for i, row in enumerate(zip(*columns.values(), strict=True))
    ]
    events = [
        {"event": "run_started", "seed": seed, "config": {"env": env}},
        *updates,
        {"event": "run_finished", "status": status},
    ]
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return folder


def write_arm(folder: Path, returns: list[float], **settings: Any) -> Path:
    """A run per number, whose episodes all have that return."""
    for seed, value in enumerate(returns):
        columns = {"episode_return_mean": [value] * 20, "episodes": [1] * 20, "value_loss": [1.0, 2.0] * 10}
        write_run(folder / f"seed-{seed}", seed, **(columns | settings))
    return folder


class TestStatistics:
    def test_intervals_of_identical_arms_cover_zero_as_often_as_they_say(self) -> None:
        rng = np.random.default_rng(0)
        arms = rng.normal(size=(1_000, 2, 10))
        covered = [low <= 0 <= high for low, high in (difference_interval(a, b, rng) for a, b in arms)]
        # A share of 1,000 that is 0.95 in truth is within 0.93 and 0.97 but once in 250 times.
        assert 0.93 <= np.mean(covered) <= 0.97

    def test_intervals_of_a_mean_too(self) -> None:
        rng = np.random.default_rng(1)
        covered = [low <= 3 <= high for low, high in (mean_interval(x, rng) for x in rng.normal(3, 1, (1_000, 10)))]
        assert 0.93 <= np.mean(covered) <= 0.97

    def test_a_planted_effect_is_found(self) -> None:
        rng = np.random.default_rng(2)
        low, high = difference_interval(rng.normal(1.5, 1, 20), rng.normal(0, 1, 20), rng)
        assert 0 < low < 1.5 < high < 3

    def test_one_value_has_no_interval(self) -> None:
        assert np.isnan(mean_interval([1.0], np.random.default_rng(0))).all()

    def test_equal_values_have_an_interval_of_no_width(self) -> None:
        assert mean_interval([2.0, 2.0, 2.0], np.random.default_rng(0)) == (2.0, 2.0)

    def test_probability_of_improvement_counts_ties_half(self) -> None:
        # Of the pairs (1, 0), (1, 1), (2, 0), (2, 1) three are greater and one is a tie.
        assert probability_of_improvement([1.0, 2.0], [0.0, 1.0]) == 3.5 / 4

    def test_effect_size(self) -> None:
        # Means 1 apart, pooled deviation 1, and 4 degrees of freedom: 1 - 3 / 15 = 0.8.
        assert hedges_g([1.0, 2.0, 3.0], [0.0, 1.0, 2.0]) == pytest.approx(0.8)


UPDATES = {
    "env_steps": np.array([100.0, 200.0, 300.0, 400.0]),
    "episode_return_mean": np.array([np.nan, 1.0, 3.0, 5.0]),
    "episodes": np.array([0, 1, 1, 2]),
    "value_loss": np.exp(np.array([0.0, 1.0, 0.0, 1.0])),
    "ratio_std": np.array([0.1, 0.3, 0.1, 0.3]),
    "clip_fraction": np.array([0.0, 0.2, 0.0, 0.2]),
    "approx_kl": np.array([0.01, 0.01, 0.01, 0.05]),
    "explained_variance": np.array([np.nan, 0.0, 0.5, 1.0]),
}


class TestMeasures:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("final_return", 5.0),
            # Trapezoids of 2 and 4 over 100 steps each, by 200 steps.
            ("area_under_curve", 3.0),
            # Differences 1, -1, 1: mean 1/3, squared deviations 4/9 + 16/9 + 4/9 over 2.
            ("value_loss_roughness", (12 / 9) ** 0.5),
            # 0, 1, 0, 1 around 1/2: 4 quarters over 3.
            ("value_loss_variance", 1 / 3),
            ("ratio_std", 0.2),
            ("ratio_std_variance", 0.04 / 3),
            ("clip_fraction_oscillation", 0.2 * (12 / 9) ** 0.5),
            ("approx_kl_max", 0.05),
            ("approx_kl_spikes", 0.25),
            ("explained_variance", 0.5),
        ],
    )
    def test_by_hand(self, name: str, value: float) -> None:
        assert MEASURES[name].of(UPDATES) == pytest.approx(value)

    def test_all_are_tried(self) -> None:
        assert len(MEASURES) == 10

    def test_steps_to_a_threshold(self) -> None:
        assert steps_to(3.0)(UPDATES) == 300
        assert steps_to(9.0)(UPDATES) == np.inf


class TestArms:
    def test_a_run_or_a_folder_of_runs(self, tmp_path: Path) -> None:
        arm = write_arm(tmp_path / "arm", [1.0, 2.0])
        assert list(load_arm(arm).runs) == [0, 1]
        assert list(load_arm(arm / "seed-1").runs) == [1]

    def test_runs_that_tell_nothing_are_left_out_by_name(self, tmp_path: Path) -> None:
        arm = write_arm(tmp_path / "arm", [1.0])
        write_run(arm / "stopped", 5, status="interrupted", value_loss=[1.0])
        (arm / "empty").mkdir()
        (arm / "empty" / "events.jsonl").touch()
        half = write_run(arm / "half", 6, value_loss=[1.0]) / "events.jsonl"
        half.write_text(half.read_text()[:-20])
        loaded = load_arm(arm)
        assert list(loaded.runs) == [0]
        assert [reason.split(": ")[0].rsplit("/", 1)[1] for reason in loaded.left_out] == ["empty", "half", "stopped"]
        notes = warnings([loaded])
        assert "stopped: is not complete (interrupted)" in notes[2]
        assert "1 seeds are too few" in notes[3]

    @pytest.mark.parametrize(
        ("second", "message"),
        [
            ({"env": "Acrobot-v1"}, "runs of Acrobot-v1, CartPole-v1"),
            ({"seed": 0}, "both have seed 0"),
        ],
    )
    def test_what_is_no_arm(self, tmp_path: Path, second: dict[str, Any], message: str) -> None:
        arm = write_arm(tmp_path / "arm", [1.0])
        write_run(arm / "other", **({"seed": 1, "value_loss": [1.0]} | second))
        with pytest.raises(ArmError, match=message):
            load_arm(arm)

    def test_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(ArmError, match="there is no run"):
            load_arm(tmp_path)


class TestComparison:
    def test_pairs_by_seed_where_both_arms_have_the_same(self, tmp_path: Path) -> None:
        # Seeds differ by tens, arms by 1 in each: only pairs can tell.
        a, b = ([10.0 * seed + shift + 0.01 * (seed % 3) for seed in range(8)] for shift in (0.0, 1.0))
        arms = [load_arm(write_arm(tmp_path / name, x)) for name, x in (("a", a), ("b", [*b[:7], b[7] + 0.02]))]
        difference = compare(arms)["final_return"]["b"].difference
        assert difference is not None
        assert difference.paired
        assert 0.9 < difference.interval.low < difference.interval.high < 1.1
        assert not compare([arms[0], load_arm(write_arm(tmp_path / "c", b[:5]))])["final_return"]["c"].difference.paired  # type: ignore[union-attr]

    def test_better_is_lower_for_what_should_be_low(self, tmp_path: Path) -> None:
        calm, wild = [1.0, 1.1] * 10, [1.0, 9.0] * 10
        arms = [
            load_arm(write_arm(tmp_path / "wild", [1.0, 2.0], value_loss=wild)),
            load_arm(write_arm(tmp_path / "calm", [1.0, 2.0], value_loss=calm)),
        ]
        difference = compare(arms)["value_loss_roughness"]["calm"].difference
        assert difference is not None
        assert difference.mean < 0
        assert difference.probability_of_improvement == 1.0

    def test_a_metric_that_runs_lack_is_counted(self, tmp_path: Path) -> None:
        arm = load_arm(write_arm(tmp_path / "arm", [1.0, np.nan]))
        results = compare([arm])
        assert results["final_return"]["arm"].without == 1
        assert results["approx_kl_max"]["arm"].without == 2
        assert results["approx_kl_max"]["arm"].values == {}

    def test_arms_of_different_environments(self, tmp_path: Path) -> None:
        arms = [load_arm(write_arm(tmp_path / env, [1.0], env=env)) for env in ("A-v0", "B-v0")]
        with pytest.raises(ArmError, match="A-v0, B-v0"):
            compare(arms)


class TestCommand:
    def test_table_and_json(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        arms = [str(write_arm(tmp_path / name, [value, value + 1])) for name, value in (("low", 1.0), ("high", 5.0))]
        assert main(["compare", *arms, "--threshold", "5"]) == 0
        out, err = capsys.readouterr()
        assert "final_return" in out
        assert "steps_to_threshold" in out
        # Of low, one run reached 5 at no time, and the other neither.
        assert "low   mean -, IQM -, 2 without" in out
        assert "less the first 4 [4, 4] by pairs, P(better) 1.00" in out
        assert "too few" in err
        assert main(["compare", *arms, "--json"]) == 0
        summary = json.loads(capsys.readouterr().out)["measures"]["final_return"]["high"]
        assert summary["mean"] == 5.5
        assert summary["difference"]["mean"] == 4.0

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [(["nowhere"], "there is no run"), (["nowhere", "--threshold", "much"], "--threshold much")],
    )
    def test_bad_input(self, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as stop:
            main(["compare", *arguments])
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
