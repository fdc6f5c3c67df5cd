"""Which runs a sweep has, with which settings, and what it refuses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from esper.runs.layers import Layer, SettingsError
from esper.sweep.plan import Job, SweepError, make_jobs, make_sweep, parse_seeds, read_sweep

NO_FLAGS = Layer(source="flag", values={})


def jobs_of(flags: dict[str, Any] | None = None, **tables: Any) -> list[Job]:
    sweep = make_sweep({"folder": "f", **tables}, "sweep.toml")
    return make_jobs(sweep, {"threads": 1}, Layer(source="flag", values=flags or {}))


class TestSeeds:
    @pytest.mark.parametrize(
        ("given", "seeds"),
        [
            (3, (1, 2, 3)),
            ("3", (1, 2, 3)),
            ("7-9", (7, 8, 9)),
            ("1, 5,11-12", (1, 5, 11, 12)),
            ([4, 0], (4, 0)),
            ("5-5", (5,)),
        ],
    )
    def test_ways_to_say_them(self, given: object, seeds: tuple[int, ...]) -> None:
        assert parse_seeds(given) == seeds

    @pytest.mark.parametrize(
        "given", [0, -1, "", "a", "3-1", "1,,2", [], [1.5], [True], [-1], None, 1.0, 10**9, "1-99999999999", "-5"]
    )
    def test_anything_else(self, given: object) -> None:
        with pytest.raises(SweepError, match=r"must be a count .* a range .* or a list"):
            parse_seeds(given)

    @pytest.mark.parametrize("given", [[1, 1], "1-3,2"])
    def test_twice(self, given: object) -> None:
        with pytest.raises(SweepError, match=r"seed [12] is given twice"):
            parse_seeds(given)


class TestJobs:
    def test_arms_by_environment_and_seed(self) -> None:
        jobs = jobs_of(
            seeds=2,
            arms={"constant": {}, "linear": {"lr_decay": "linear"}},
            environments={"Acrobot-v1": {"seeds": [7]}, "torch/CartPole-v1": {}},
        )
        assert [job.name for job in jobs] == [
            "Acrobot-v1/constant/seed-7",
            "Acrobot-v1/linear/seed-7",
            "torch-CartPole-v1/constant/seed-1",
            "torch-CartPole-v1/linear/seed-1",
            "torch-CartPole-v1/constant/seed-2",
            "torch-CartPole-v1/linear/seed-2",
        ]
        assert [job.config.environment.env for job in jobs[1:3]] == ["Acrobot-v1", "torch/CartPole-v1"]
        assert [job.config.seed for job in jobs] == [7, 7, 1, 1, 2, 2]
        assert [job.config.ppo.policy_lr.decay for job in jobs[:2]] == ["constant", "linear"]
        assert jobs[0].run_dir == Path("f/Acrobot-v1/constant/seed-7")

    def test_the_nearer_to_the_run_the_stronger(self) -> None:
        def rate(*, arm: bool = False, own: bool = False, flag: bool = False, env: bool = True) -> float:
            (job,) = jobs_of(
                {"lr": 5e-3} if flag else {},
                settings={"lr": 1e-3},
                arms={"a": {"lr": 3e-3} if arm else {}},
                environments={
                    "CartPole-v1": ({"lr": 2e-3} if env else {}) | ({"arms": {"a": {"lr": 4e-3}}} if own else {})
                },
            )
            return job.config.ppo.policy_lr.peak

        found = [rate(env=False), rate(), rate(arm=True), rate(arm=True, own=True), rate(own=True, flag=True)]
        assert found == [1e-3, 2e-3, 3e-3, 4e-3, 5e-3]

    def test_the_preset_of_each_environment(self) -> None:
        acrobot, pendulum = jobs_of(environments={"Acrobot-v1": {}, "P": {"env": "torch/Pendulum-v1"}})
        assert (acrobot.config.ppo.total_timesteps, pendulum.config.ppo.total_timesteps) == (1_000_000, 600_000)
        assert pendulum.name == "P/default/seed-1"
        assert jobs_of(preset="none")[0].config.ppo.total_timesteps == 500_000

    def test_an_arm_of_which_a_setting_is_wrong_is_named(self) -> None:
        with pytest.raises(SettingsError) as caught:
            jobs_of(arms={"cosine": {"lr_decay": "cosin"}})
        assert caught.value.origin is not None
        assert caught.value.origin.source == "sweep.toml arms.cosine"

    @pytest.mark.parametrize(
        ("tables", "place"),
        [
            ({"settings": {"seed": 7}}, "sweep.toml settings"),
            ({"arms": {"a": {"run_dir": "x"}}}, "sweep.toml arms.a"),
            ({"arms": {"a": {"env": "Acrobot-v1"}}}, "sweep.toml arms.a"),
            ({"environments": {"CartPole-v1": {"seed": 7}}}, "sweep.toml environments.CartPole-v1"),
            (
                {"arms": {"a": {}}, "environments": {"CartPole-v1": {"arms": {"a": {"env": "X"}}}}},
                "sweep.toml environments.CartPole-v1.arms.a",
            ),
        ],
    )
    def test_what_the_sweep_sets_itself_is_no_setting_of_it(self, tables: dict[str, Any], place: str) -> None:
        with pytest.raises(SettingsError, match=r"each run has its own|an arm is compared") as caught:
            jobs_of(**tables)
        assert caught.value.origin is not None
        assert caught.value.origin.source == place

    def test_a_schedule_that_does_not_fit_the_run_is_found_before_anything_starts(self) -> None:
        with pytest.raises(SettingsError, match="warmup_steps"):
            jobs_of({"total_timesteps": 2048}, arms={"a": {"lr_warmup_steps": 100}})

    @pytest.mark.parametrize(
        ("tables", "message"),
        [
            ({"arms": {"a/b": {}}}, "'a/b': a name has letters"),
            ({"arms": {"..": {}}}, "does not begin with a dot"),
            ({"arms": {"a": 3}}, "a = 3: must be a table"),
            ({"arms": ["a"]}, "must be a table"),
            ({"environments": {"a/b": {}, "a-b": {}}}, "environment a-b is given twice"),
            ({"arms": {"cosine": {}}, "environments": {"X": {"arms": {"cosin": {}}}}}, "did you mean 'cosine'"),
            ({"folder": 3}, "folder: must be given"),
            ({"folder": "a\0b"}, "folder: must be given"),
            ({"arms": {"\u6f22" * 67: {}}}, "of at most 200 bytes, not 201"),
            ({"settings": {"env": "A"}, "environments": {"B": {}}}, "settings.env = A: the environments are those of"),
            ({"preset": 3}, "preset = 3"),
        ],
    )
    def test_what_is_no_sweep(self, tables: dict[str, Any], message: str) -> None:
        with pytest.raises(SweepError, match=re.escape(message)):
            jobs_of(**tables)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("seed = 1", "seed is unknown; a sweep has .* did you mean 'seeds'"),
            ("a = ", "not TOML"),
            ("environments = 3", "environments = 3: must be a table"),
            ("[environments]\nX = 3", "X = 3: must be a table"),
        ],
    )
    def test_files(self, tmp_path: Path, text: str, message: str) -> None:
        path = tmp_path / "s.toml"
        path.write_text(text)
        with pytest.raises(SweepError, match=message):
            read_sweep(path)
        with pytest.raises(SweepError, match="No such file"):
            read_sweep(tmp_path / "nothing.toml")
