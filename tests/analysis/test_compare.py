"""Arms beside each other: known cases, and what is left out."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from esper.analysis import arms, plots_comparison
from esper.analysis.arms import Arm, ArmError
from esper.analysis.comparison import compare, warnings
from esper.analysis.comparison_page import comparison_page
from esper.analysis.comparison_table import HEADINGS, _number, rows
from esper.analysis.curves import curve_of
from esper.analysis.measures import MEASURES, MEASURES_AFTER, steps_to
from esper.analysis.statistics import (
    difference_interval,
    hedges_g,
    mean_band,
    mean_interval,
    probability_of_improvement,
    ratio_interval,
)
from esper.analysis.thinning import POINTS
from esper.runs.config import RunConfig
from esper.scripts.train import main
from esper.settings.options import settings_of
from esper.telemetry.events import SCHEMA_VERSION


def load_arm(path: Path) -> Arm:
    return arms.load_arm(path, settings_of(RunConfig))


def write_run(
    folder: Path,
    seed: int,
    *,
    settings: dict[str, Any] | None = None,
    resumed: dict[str, Any] | None = None,
    skipped: int = 0,
    status: str = "completed",
    **columns: Any,
) -> Path:
    """A record whose updates have `columns`, each a list."""
    folder.mkdir(parents=True)
    config = {"env": "CartPole-v1", "policy_lr": 1e-3, "seed": seed} | (settings or {})
    updates = [
        {
            "event": "update_completed",
            "update": i,
            "env_steps": 100 * (i + 1),
            # Absent, as in a record, where there is no number.
            **{name: value for name, value in zip(columns, row, strict=True) if value == value},
        }
        for i, row in enumerate(zip(*columns.values(), strict=True))
    ]
    events = [
        {"event": "run_started", "schema": SCHEMA_VERSION, "seed": seed, "config": config},
        *(
            [{"event": "run_resumed", "schema": SCHEMA_VERSION, "update": 1, "changed": {}} | resumed]
            if resumed
            else []
        ),
        *updates,
        *[{"event": "update_skipped", "update": len(updates)}] * skipped,
        {"event": "run_finished", "status": status},
    ]
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return folder


def write_arm(folder: Path, returns: dict[int, float] | list[float], **more: Any) -> Path:
    """A run per number, by seed, whose episodes all have that return."""
    for seed, value in returns.items() if isinstance(returns, dict) else enumerate(returns):
        columns = {"episode_return_mean": [value] * 20, "episodes": [1] * 20, "value_loss": [1.0, 2.0] * 10}
        write_run(folder / f"seed-{seed}", seed, **{**columns, **more})
    return folder


def edit(run: Path, old: str, new: str) -> None:
    """Replace `old`, once, in the record of `run`."""
    text = (run / "events.jsonl").read_text()
    assert old in text
    (run / "events.jsonl").write_text(text.replace(old, new, 1))


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

    def test_one_run_that_failed_among_equal_ones(self) -> None:
        """No mean of values within 260 and 500 lies outside."""
        returns = [260.0, *(500.0 - 0.01 * i for i in range(19))]
        low, high = mean_interval(returns, np.random.default_rng(0))
        assert 400 < low < 488 < high <= 500

    def test_a_planted_effect_is_found(self) -> None:
        rng = np.random.default_rng(2)
        low, high = difference_interval(rng.normal(1.5, 1, 20).tolist(), rng.normal(0, 1, 20).tolist(), rng)
        assert 0 < low < 1.5 < high < 3

    @pytest.mark.parametrize("factor", [1e100, 1e-100, 1e200])
    def test_numbers_of_any_size(self, factor: float) -> None:
        values = [1.0, 2.0, 4.0, 5.0, 7.0, 7.5]
        small, large = (mean_interval([x * by for x in values], np.random.default_rng(0)) for by in (1.0, factor))
        assert np.divide(large, factor) == pytest.approx(small)
        band = mean_band(np.array(values)[:, None] * factor)
        assert [float(each[0]) / factor for each in band] == pytest.approx(
            [float(each[0]) for each in mean_band(np.array(values)[:, None])]
        )
        assert hedges_g([x * factor for x in values], [0.0, 0.0, factor]) == pytest.approx(
            hedges_g(values, [0.0, 0.0, 1.0])
        )

    def test_cells_stay_narrow(self) -> None:
        assert [_number(value) for value in (123456.7, 1e60, -1.23456e100, 0.5)] == [
            *("123,457", "1e+60", "-1.235e+100", "0.5")
        ]

    def test_one_value_has_no_interval(self) -> None:
        assert np.isnan(mean_interval([1.0], np.random.default_rng(0))).all()

    def test_few_values_have_the_interval_of_student(self) -> None:
        # Mean 2, standard error 1, and t of one degree of freedom at 0.975: 12.706.
        assert mean_interval([1.0, 3.0], np.random.default_rng(0)) == pytest.approx((2 - 12.706, 2 + 12.706), abs=1e-3)

    def test_a_band_leaves_out_what_is_not_known(self) -> None:
        mean, low, high = mean_band(np.array([[1.0, 5.0, np.nan], [3.0, np.nan, np.nan]]))
        np.testing.assert_array_equal(mean, [2.0, 5.0, np.nan])
        np.testing.assert_allclose(low, [2 - 12.706, np.nan, np.nan], atol=1e-3)
        np.testing.assert_allclose(high, [2 + 12.706, np.nan, np.nan], atol=1e-3)

    def test_equal_values_have_an_interval_of_no_width(self) -> None:
        assert mean_interval([2.0, 2.0, 2.0], np.random.default_rng(0)) == (2.0, 2.0)

    def test_probability_of_improvement_counts_ties_half(self) -> None:
        # Of the pairs (1, 0), (1, 1), (2, 0), (2, 1) three are greater and one is a tie.
        assert probability_of_improvement([1.0, 2.0], [0.0, 1.0]) == 3.5 / 4

    @pytest.mark.parametrize("paired", [False, True])
    def test_intervals_of_a_ratio_cover_it_as_often_as_they_say(self, paired: bool) -> None:
        rng = np.random.default_rng(3)
        scale = np.exp(rng.normal(0, 0.3, (1_000, 10, 1))) if paired else 1
        samples = np.exp(rng.normal(0, 0.3, (1_000, 10, 2))) * scale * np.array((2.0, 1.0))
        intervals = [ratio_interval(each[:, 0], each[:, 1], rng, paired=paired) for each in samples]
        covered = [low <= 2 <= high for low, high in intervals]
        # Lognormal means have skewed errors: a little less than 95 %.
        assert 0.91 <= np.mean(covered) <= 0.97

    def test_no_end_of_a_ratio_is_below_0(self) -> None:
        rng = np.random.default_rng(4)
        # Nearly always 0.1, once 100: their difference from 50 has an interval that ends below -50.
        a, b = [0.1] * 9 + [100.0], [50.0 + seed for seed in range(10)]
        assert 0 < ratio_interval(a, b, rng, paired=False).low < ratio_interval(a, b, rng, paired=False).high
        # One degree of freedom: 12.706 times the error of 1/2 of [1, 3] / 2 - 1, around the logarithm of 2.
        low, high = ratio_interval([1.0, 3.0], [1.0, 1.0], rng, paired=True)
        assert (low, high) == pytest.approx((2 * np.exp(-12.706 / 2), 2 * np.exp(12.706 / 2)), rel=1e-3)

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
            # 1, e, 1, e: deviations of (e - 1) / 2, squares 4 times that over 3.
            ("value_loss_std", (np.e - 1) / 3**0.5),
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
        assert len(MEASURES) == 11

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("ratio_std_after", 0.2),
            # 0.1, 0.3, 0.1, 0.3: deviations of 0.1, squares 0.04 over 3.
            ("ratio_std_after_variance", 0.04 / 3),
            # Differences 0.2, -0.2, 0.2: mean 0.2/3, squares (16 + 64 + 16) / 9 * 0.01, over 2.
            ("clip_fraction_after_oscillation", (0.96 / 9 / 2) ** 0.5),
            # Differences 0, 0, 0.04: mean 0.04/3, squares (1 + 1 + 4) / 9 * 0.0016, over 2.
            ("approx_kl_after_oscillation", (0.0096 / 9 / 2) ** 0.5),
            ("approx_kl_after_max", 0.05),
        ],
    )
    def test_after_the_update_by_hand(self, name: str, value: float) -> None:
        updates = {f"{name}_after": UPDATES[name] for name in ("ratio_std", "clip_fraction", "approx_kl")}
        assert MEASURES_AFTER[name].of(updates) == pytest.approx(value)

    def test_those_after_the_update_are_of_runs_that_have_them(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        without = write_run(tmp_path / "without", 1, value_loss=[1.0, 2.0])
        columns: dict[str, Any] = {f"{name}_after": [0.1, 0.2] for name in ("ratio_std", "clip_fraction", "approx_kl")}
        having = write_run(tmp_path / "having", 1, value_loss=[1.0, 2.0], **columns)
        assert main(["compare", str(without), str(having)]) == 0
        assert "approx_kl_after_max, lower is better" in capsys.readouterr().out
        page = tmp_path / "page.html"
        assert main(["compare", str(having), str(without), "--html", str(page)]) == 0
        assert "<h2>After the update</h2>" in page.read_text()
        other = write_run(tmp_path / "other", 1, value_loss=[1.0, 2.0])
        capsys.readouterr()
        assert main(["compare", str(without), str(other)]) == 0
        assert "_after" not in capsys.readouterr().out

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
        assert "too few seeds to tell arms apart (1)" in notes[3]

    def test_a_run_that_was_cut_within_its_first_line_is_said_to_be(self, tmp_path: Path) -> None:
        arm = write_arm(tmp_path / "arm", {6: 1.0, 7: 1.0})
        record = arm / "seed-7" / "events.jsonl"
        record.write_text(record.read_text()[:30])
        assert load_arm(arm).left_out == [f"{arm / 'seed-7'}: events.jsonl is cut within its first line"]

    @pytest.mark.parametrize(
        ("old", "new", "reason"),
        [
            ('"schema": 3', '"schema": 4', "its run_started has schema 4; schemas 2 and 3 are read"),
            ('"schema": 3, ', "", "its run_started has schema 1; schemas 2 and 3 are read"),
            ('"config": {', '"config": [], "old": {', "its config is []"),
            ('"env": "CartPole-v1", ', "", "its env is None"),
            ('"seed": 7, "config"', '"seed": "7", "config"', "its seed is '7'"),
            ('"value_loss": 2.0', '"value_loss": "2.0"', "its value_loss is '2.0', not a number"),
            ('"value_loss": 2.0', '"value_loss": true', "its value_loss is True, not a number"),
            ('"value_loss": 2.0', '"value_loss": null', "its value_loss is None, not a number"),
            ('"value_loss": 2.0', '"value_loss": 1' + "0" * 400, "number is infinity"),
            ('"value_loss": 2.0', '"value_loss": 1e999', "number is infinity"),
            ('"update": 1,', '"update": 2,', "its updates do not count up from 0"),
            ('"env_steps": 200', '"env_steps": 100', "its env_steps do not increase"),
            ('"env_steps": 200, ', "", "its env_steps do not increase"),
            ('{"event": "update_completed", "update": 0', '[{"update": 0', "line 2 is not JSON"),
            ('{"event": "update_completed"', '[]\n{"event": "update_completed"', "line 2 is not an event"),
            ('{"event": "update_completed"', "[" * 99_999 + "\n{", "line 2 is not JSON"),
            ('{"event": "update_completed"', '{"no": "update_completed"', "line 2 is not an event"),
            ("{", '{"event": "run_finished"}\n{', "its record has no run_started"),
            ('{"event": "update', '{"event": "run_started", "schema": 2}\n{"event": "update', "is of several runs"),
        ],
    )
    def test_a_run_that_cannot_be_read_is_left_out(self, tmp_path: Path, old: str, new: str, reason: str) -> None:
        arm = write_arm(tmp_path / "arm", {6: 1.0, 7: 1.0})
        edit(arm / "seed-7", old, new)
        loaded = load_arm(arm)
        assert list(loaded.runs) == [6]
        (left_out,) = loaded.left_out
        assert left_out.startswith(f"{arm / 'seed-7'}: ")
        assert reason in left_out
        assert len(left_out) < len(str(arm)) + 200

    @pytest.mark.parametrize(
        ("resumed", "reason"),
        [({"schema": 1}, "its run_resumed has schema 1"), ({"changed": ["policy_lr"]}, "its changed is ['policy_lr']")],
    )
    def test_where_it_went_on_counts_too(self, tmp_path: Path, resumed: dict[str, Any], reason: str) -> None:
        write_run(tmp_path / "run", 1, value_loss=[1.0], resumed=resumed)
        with pytest.raises(ArmError, match=re.escape(reason)):
            load_arm(tmp_path)

    def test_a_run_without_updates(self, tmp_path: Path) -> None:
        write_run(tmp_path / "run", 1, value_loss=[])
        with pytest.raises(ArmError, match="has no completed update"):
            load_arm(tmp_path)

    @pytest.mark.parametrize(
        ("second", "message"),
        [
            ({"settings": {"env": "Acrobot-v1"}}, "runs of Acrobot-v1, CartPole-v1"),
            ({"seed": 0}, "arm/other and .*arm/seed-0 both have seed 0"),
            (
                {"settings": {"policy_lr": 0.5}},
                r"arm/other and .*arm/seed-0 differ in policy_lr \(0.5, 0.001\); an arm",
            ),
            ({"settings": {"gamma": 0.9}}, r"differ in gamma \(0.9, None\)"),
            ({"settings": {f"s{i}": i for i in range(7)}}, r"s0 .*s4 \(4, None\) and 2 more"),
            (
                {"resumed": {"changed": {"policy_lr": [0.001, 0.5]}}},
                r"policy_lr \(0.001, from update 1 \[0.001, 0.5\], 0.001\)",
            ),
            ({"value_loss": [1.0] * 19}, "are of 19 and 20 updates"),
        ],
    )
    def test_what_is_no_arm(self, tmp_path: Path, second: dict[str, Any], message: str) -> None:
        arm = write_arm(tmp_path / "arm", [1.0])
        run: dict[str, Any] = {"seed": 1, "value_loss": [1.0] * 20}
        write_run(arm / "other", **(run | second))
        with pytest.raises(ArmError, match=message):
            load_arm(arm)

    def test_runs_may_differ_in_what_cannot_change_what_is_learned(self, tmp_path: Path) -> None:
        arm = write_arm(tmp_path / "arm", [1.0])
        settings = {"threads": 8, "device": "cuda", "compile": "off", "checkpoint_every": 5, "keep_checkpoints": 1}
        resumed = {"changed": {"threads": [1, 2]}}
        write_run(arm / "other", 1, value_loss=[1.0] * 20, settings=settings, resumed=resumed)
        assert list(load_arm(arm).runs) == [1, 0]

    def test_a_skipped_update_counts_as_one(self, tmp_path: Path) -> None:
        arm = write_arm(tmp_path / "arm", [1.0] * 5)
        write_run(arm / "skips", 9, value_loss=[1.0] * 18, skipped=2)
        loaded = load_arm(arm)
        assert len(loaded.runs) == 6
        assert warnings([loaded]) == ["arm: 2 updates were skipped, by seed 9"]

    def test_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(ArmError, match="it contains no run"):
            load_arm(tmp_path)


class TestComparison:
    def test_pairs_are_of_the_seeds_that_both_arms_have(self, tmp_path: Path) -> None:
        # Seeds differ by tens, arms by 1 in each: only pairs can tell. Those without a partner are far off.
        first = {seed: 10.0 * seed + 0.01 * (seed % 3) for seed in range(8)}
        second = {seed: value + 1 + 0.02 * (seed == 5) for seed, value in first.items() if seed < 6}
        arms = [load_arm(write_arm(tmp_path / "a", first)), load_arm(write_arm(tmp_path / "b", {**second, 20: 900.0}))]
        difference = compare(arms)["final_return"]["b"].difference
        assert difference is not None
        assert difference.pairs == 6
        # Five differences of 1 and one of 1.02.
        assert difference.mean == pytest.approx(1 + 0.02 / 6)
        assert 0.9 < difference.interval.low < difference.interval.high < 1.1
        # Of 36 pairs of runs, one of each arm: this arm's greater where its seed is not lower.
        assert difference.probability_of_improvement == 21 / 36
        assert warnings(arms) == ["b: 6 pairs with a; without a partner: seeds 6, 7 of a, seed 20 of b"]

    def test_what_an_arm_is_of_the_first_is_a_ratio_of_positive_numbers(self, tmp_path: Path) -> None:
        first = {seed: 100.0 + seed for seed in range(6)}
        arms = [
            load_arm(write_arm(tmp_path / "a", first)),
            load_arm(write_arm(tmp_path / "half", {seed: value / 2 for seed, value in first.items()})),
            load_arm(write_arm(tmp_path / "costs", {seed: -value for seed, value in first.items()})),
        ]
        found = compare(arms)["final_return"]
        half, costs = found["half"].difference, found["costs"].difference
        assert half is not None
        assert costs is not None
        # Each run of the second is half of its partner: there is nothing uncertain about it.
        assert half.ratio == 0.5
        assert half.ratio_interval == pytest.approx((0.5, 0.5))
        assert np.isnan([costs.ratio, *costs.ratio_interval]).all()
        assert [row[5] for row in rows(found)] == ["", "-50 % [-50, -50]", "-"]

    def test_few_seeds_are_no_lack_of_pairs(self, tmp_path: Path) -> None:
        arms = [load_arm(write_arm(tmp_path / name, [1.0, 2.0, 3.0])) for name in ("a", "b")]
        assert warnings(arms) == ["a, b: too few seeds to tell arms apart (3); have 5 or more"]

    def test_few_pairs_are_none(self, tmp_path: Path) -> None:
        # Of six seeds each, four are shared.
        arms = [
            load_arm(write_arm(tmp_path / name, {seed: float(seed) for seed in range(begin, begin + 6)}))
            for name, begin in (("a", 0), ("b", 2))
        ]
        difference = compare(arms)["final_return"]["b"].difference
        assert difference is not None
        assert difference.pairs == 0
        assert difference.mean == 2.0
        assert warnings(arms) == ["b: shares only seeds 2, 3, 4, 5 with a; compared without pairs"]

    def test_arms_of_other_seeds_need_no_notice(self, tmp_path: Path) -> None:
        arms = [
            load_arm(write_arm(tmp_path / name, dict.fromkeys(range(begin, begin + 5), 1.0)))
            for name, begin in (("a", 0), ("b", 5))
        ]
        assert warnings(arms) == []

    def test_arms_of_other_lengths_are_told_of(self, tmp_path: Path) -> None:
        long = load_arm(write_arm(tmp_path / "long", [1.0] * 5))
        write_run(tmp_path / "short", 1, value_loss=[1.0, 2.0])
        notes = warnings([long, load_arm(tmp_path / "short")])
        assert notes[-1] == "the arms were trained for different env_steps: long 2,000, short 200"

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
        arms = [load_arm(write_arm(tmp_path / env, [1.0], settings={"env": env})) for env in ("A-v0", "B-v0")]
        with pytest.raises(ArmError, match="A-v0, B-v0"):
            compare(arms)


class TestCurves:
    def test_runs_meet_where_their_steps_are_the_same(self, tmp_path: Path) -> None:
        write_run(tmp_path / "arm" / "a", 1, value_loss=[1.0, 10.0, 100.0], approx_kl=[0.1, 0.2, 0.3])
        skips = write_run(tmp_path / "arm" / "b", 2, value_loss=[100.0, 1.0], approx_kl=[0.3, 0.5], skipped=1)
        # It skipped the second of its updates.
        edit(skips, '"env_steps": 200', '"env_steps": 300')
        arm = load_arm(tmp_path / "arm")
        curve = curve_of(arm, "approx_kl", "env_steps")
        assert curve.x.tolist() == [100, 200, 300]
        assert curve.mean == pytest.approx([0.2, 0.2, 0.4])
        assert np.isnan(curve.low).tolist() == [False, True, False]
        # By the logarithm: the square root of 1 * 100.
        assert curve_of(arm, "value_loss", "env_steps", log=True).mean == pytest.approx([10, 10, 10])

    def test_many_updates_are_thinned_and_none_left_out(self, tmp_path: Path) -> None:
        # Of 800 updates every other one is 1, the rest 0.
        write_run(tmp_path / "arm", 1, approx_kl=[0.0, 1.0] * POINTS)
        curve = curve_of(load_arm(tmp_path / "arm"), "approx_kl", "update")
        assert curve.mean.tolist() == [0.5] * POINTS
        assert curve.x[:2].tolist() == [0.5, 2.5]


class TestPlots:
    def test_axes_span_what_the_runs_had(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        figures: list[Figure] = []
        monkeypatch.setattr(plots_comparison, "_png", figures.append)
        # Three seeds within 0 and 1 have bands from below -1 to above 2.
        for seed, value in enumerate((0.0, 1.0, 0.5)):
            write_run(tmp_path / "arm" / str(seed), seed, clip_fraction=[value] * 3, value_loss=[1.0 + 99 * value] * 3)
        arm = load_arm(tmp_path / "arm")
        assert curve_of(arm, "clip_fraction", "update").low.min() < -0.5
        plots_comparison.plot_curves([arm], ["clip_fraction", "value_loss"], "update")
        first, second = figures[0].axes
        assert first.get_ylim() == pytest.approx((-0.05, 1.05))
        # By the logarithm: 5 % of two decades beyond 1 and 100.
        assert second.get_ylim() == pytest.approx((10**-0.1, 10**2.1))


class TestPage:
    @pytest.fixture(autouse=True)
    def without_plotly(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("esper.analysis.charts.find_spec", lambda name: None)

    def test_needs_nothing_else_and_has_everything(self, tmp_path: Path) -> None:
        for name, rate in (("slow & sure", 1e-4), ("fast", 1e-3)):
            columns = {
                "ratio_std": [0.1] * 20,
                "approx_kl": [0.1] * 20,
                "lr/policy": [rate] * 20,
                "lr/value": [rate] * 20,
            }
            write_arm(tmp_path / name, [1.0, 2.0], settings={"policy_lr": rate}, **columns)
        write_run(tmp_path / "fast" / "stopped", 7, status="interrupted", value_loss=[1.0])
        arms = [str(tmp_path / name) for name in ("slow & sure", "fast")]
        assert main(["compare", *arms, "--html", str(tmp_path / "page.html")]) == 0
        page = (tmp_path / "page.html").read_text()
        assert set(re.findall(r'(?:src|href)="([a-z]+:[a-z/]+)', page)) == {"data:image/png"}
        assert page.count("<img") == 4
        assert "<h1>slow &amp; sure, fast on CartPole-v1</h1>" in page
        assert "<td>policy_lr</td><td>0.0001</td><td>0.001</td>" in page
        assert "stopped: is not complete (interrupted)" in page
        assert "<td>2</td><td>0, 1</td><td>20</td><td>2,000</td>" in page
        for name, measure in MEASURES.items():
            assert f"{name}: {measure.description}" in page

    def test_metrics_of_callbacks_are_compared_where_runs_have_them(self, tmp_path: Path) -> None:
        with_it = write_arm(tmp_path / "with", [1.0, 2.0], **{"user/$cost": [np.nan] * 10 + [3.0] * 10})
        without = write_arm(tmp_path / "without", [1.0, 2.0])
        cost = curve_of(load_arm(with_it), "user/$cost", "update").mean
        assert np.isnan(cost[:10]).all()
        assert set(cost[10:]) == {3.0}
        assert np.isnan(curve_of(load_arm(without), "user/$cost", "update").mean).all()
        for compared, pictures in (([with_it, without], 4), ([without], 3)):
            assert main(["compare", *map(str, compared), "--html", str(tmp_path / "page.html")]) == 0
            page = (tmp_path / "page.html").read_text()
            assert page.count("<img") == pictures
            assert ("Your metrics" in page) == (pictures == 4)

    @pytest.mark.parametrize(("arms", "updates"), [(1, 1), (7, 1), (1, POINTS + 1)])
    def test_of_any_size(self, tmp_path: Path, arms: int, updates: int) -> None:
        folders = [
            write_run(tmp_path / f"arm-{number}", 1, value_loss=[1.0] * updates, approx_kl=[0.1] * updates)
            for number in range(arms)
        ]
        assert main(["compare", *map(str, folders), "--html", str(tmp_path / "page.html")]) == 0
        assert ("up to 2 updates" in (tmp_path / "page.html").read_text()) == (updates > POINTS)


def test_arms_can_be_switched_where_plotly_is_installed(tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    for name, scale in (("<b>low", 1.0), ("high", 9.0)):
        write_arm(tmp_path / name, [scale, scale + 0.1, scale + 0.2], value_loss=[1.0] * 20)
    page = tmp_path / "page.html"
    assert main(["compare", str(tmp_path / "<b>low"), str(tmp_path / "high"), "--html", str(page)]) == 0
    text = page.read_text()
    assert "high has the highest final_return, " in text
    assert "The interval of the difference does not contain 0." in text
    assert re.findall(r'<input type="checkbox" value="([^"]+)"', text) == ["&lt;b&gt;low", "high"]
    panels = [each for data in re.findall(r"json\">(.*?)</script>", text) for each in json.loads(data)]
    assert panels[0]["title"] == "episode_return_mean"
    assert {trace["legendgroup"] for trace in panels[0]["traces"]} == {"<b>low", "high"}
    assert {trace.get("name") for trace in panels[0]["traces"]} == {None, "&lt;b&gt;low", "high"}
    (line,) = (trace for trace in panels[0]["traces"] if trace.get("name") == "high")
    # Seeds of 9, 9.1 and 9.2.
    assert set(line["y"]) == {9.1}


class TestCommand:
    def test_table_and_json(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("COLUMNS", raising=False)
        arms = [str(write_arm(tmp_path / name, [value, value + 1])) for name, value in (("low", 1.0), ("high", 5.0))]
        assert main(["compare", *arms, "--threshold", "5"]) == 0
        out, err = capsys.readouterr()
        lines = [re.split("  +", line.strip()) for line in out.splitlines()]
        assert lines[0] == list(HEADINGS)
        (at,) = (i for i, line in enumerate(lines) if line == ["final_return, higher is better"])
        # Means of two values 1 apart have an error of 0.5, and Student's t of one degree of freedom is 12.71; their
        # difference has one of 0.5 * 2 ** 0.5, and with two degrees it is 4.303. The logarithm of 5.5 / 1.5 has one of
        # ((0.5 / 5.5) ** 2 + (0.5 / 1.5) ** 2) ** 0.5 = 0.3455, and with 1.148 degrees it is 9.42.
        assert lines[at + 1 : at + 3] == [
            ["low", "2", "1.5 [-4.85, 7.85]", "1.5"],
            [
                "high",
                "2",
                "5.5 [-0.853, 11.9]",
                "5.5",
                "4 [0.958, 7.04]",
                "+267 % [-86, +9,404]",
                "none",
                "1.00",
                "+3.23",
            ],
        ]
        # Of low, neither run reached 5.
        assert lines[-2:] == [["low", "0 of 2", "-", "-"], ["high", "2", "100 [100, 100]", "100"]]
        assert "too few" in err
        assert main(["compare", *arms, "--json"]) == 0
        summary = json.loads(capsys.readouterr().out)["measures"]["final_return"]["high"]
        assert summary["mean"] == 5.5
        assert summary["difference"]["mean"] == 4.0

    def test_a_narrow_terminal_has_two_lines_for_an_arm(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLUMNS", "80")
        arms = [
            str(write_arm(tmp_path / name, {s: 10 * v + s / 9 for s in range(5)})) for name, v in (("a", 1), ("b", 5))
        ]
        assert main(["compare", *arms]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 80
        assert [line.split()[0] for line in lines[:6]] == ["arm", "less", "final_return,", "a", "b", "40"]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [(["nowhere"], "it contains no run"), (["nowhere", "--threshold", "much"], "--threshold much")],
    )
    def test_bad_input(self, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as stop:
            main(["compare", *arguments])
        assert stop.value.code == 2
        assert message in capsys.readouterr().err

    def test_a_page_that_cannot_be_written(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        arm = write_arm(tmp_path / "arm", [1.0])
        with pytest.raises(SystemExit) as stop:
            main(["compare", str(arm), "--html", str(tmp_path)])
        assert stop.value.code == 2
        assert f"--html {tmp_path}: cannot be written: {tmp_path}: not a file, but a folder" in capsys.readouterr().err


def test_two_hundred_arms_have_few_notes_and_pictures_that_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("esper.analysis.charts.find_spec", lambda name: None)
    paths = [write_arm(tmp_path / f"arm-{number:03}", [float(number % 50)] * 2) for number in range(200)]
    many = [load_arm(path) for path in paths]
    (note,) = warnings(many)
    assert note.startswith("arm-000, arm-001, ")
    assert "arm-009 and 190 more: too few seeds" in note
    page = comparison_page(many, compare(many), MEASURES, [note])
    assert "Drawn are the first arm and the 23 of the highest final_return." in page
    for png in re.findall(r"data:image/png;base64,([^\"]+)", page):
        assert max(Image.open(io.BytesIO(base64.b64decode(png))).size) < 8_000
    assert "<td>arm-199</td>" in page
