"""Searches: what is refused, what is pruned, how they go on, and what they leave."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("optuna")

import optuna
from optuna.trial import TrialState

from esper.runs.layers import Layer, SettingsError, file_layer, resolve
from esper.scripts.train import main
from esper.sweep.job import Outcome
from esper.sweep.plan import Job
from esper.tune.page import write_page
from esper.tune.plan import Tuning, check_same, make_tuning, read_tables
from esper.tune.search import Search, best_of, evaluations, open_study, score, values_of
from esper.tune.space import TuneError

LR = {"lr": {"low": 1e-4, "high": 1e-2, "log": True}}


def make(folder: Path, flags: dict[str, Any] | None = None, **tables: Any) -> Tuning:
    settings = {"env": "torch/CartPole-v1", "total_timesteps": 20_480, **(flags or {})}
    folder.mkdir(exist_ok=True)
    return make_tuning(
        {"space": LR, "seeds": 1, **tables},
        folder,
        Layer(source="tune", values={"quiet": True}),
        Layer(source="flag", values=settings),
        "x.toml",
    )


class Recorded:
    """A launcher whose runs evaluate to 1e4 times their rate, in ten steps; `interrupt` names jobs that are stopped."""

    slots = 1

    def __init__(self, interrupt: tuple[str, ...] = ()) -> None:
        self.started: list[Job] = []
        self.cancelled: list[Job] = []
        self._interrupt = interrupt
        self._over: list[tuple[Job, Outcome]] = []
        self._open: dict[str, tuple[Job, int]] = {}

    def check(self, jobs: Sequence[Job]) -> str | None:
        return None

    def start(self, job: Job) -> None:
        self.started.append(job)
        job.run_dir.mkdir()
        self._open[job.name] = (job, 0)

    def ended(self, seconds: float) -> list[tuple[Job, Outcome]]:
        for name, (job, done) in list(self._open.items()):
            if job.arm in self._interrupt:
                self._end(name, "interrupted")
                continue
            write(job, done + 1, finished=done == 9)
            self._open[name] = (job, done + 1)
            if done == 9:
                self._end(name, "completed")
        over, self._over = self._over, []
        return over

    def cancel(self, job: Job) -> None:
        self.cancelled.append(job)
        self._end(job.name, "interrupted")

    def stop(self) -> None:
        for name in list(self._open):
            self._end(name, "interrupted")

    def close(self) -> None: ...

    def _end(self, name: str, status: Any) -> None:
        self._over.append((self._open.pop(name)[0], Outcome(status=status)))


def write(job: Job, count: int, *, finished: bool) -> None:
    rate = job.config.ppo.policy_lr.peak
    lines = [
        {"event": "evaluation_completed", "eval_return_mean": 1e4 * rate * step / 10, "env_steps": 2048 * step}
        for step in range(1, count + 1)
    ]
    lines += [{"event": "run_finished", "status": "completed", "env_steps": 20_480}] * finished
    (job.run_dir / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def search(tuning: Tuning, launcher: Recorded, stop: Any = lambda: False) -> Search:
    found = Search(tuning, launcher, lambda search, line: None)
    found.run(stop)
    return found


class TestRefused:
    @pytest.mark.parametrize(
        ("space", "message"),
        [
            ({"lrr": [1e-3]}, r"space.lrr: is no setting; did you mean 'lr'"),
            ({"seed": [1, 2]}, r"space.seed: is not searched"),
            ({"lr": []}, r"space.lr = \[\]: must have one value or more, each once"),
            ({"lr": [1e-3, 1e-3]}, "each once"),
            ({"lr": 1e-3}, "must be a list of values, or a table with low, high"),
            ({"lr": {"low": 1e-2, "high": 1e-3}}, "low not above high"),
            ({"lr": {"low": 0, "high": 1e-3, "log": True}}, "low above 0"),
            ({"lr": {"low": 1e-4, "high": 1e-3, "log": True, "step": 1e-4}}, "step must be"),
            ({"lr_decay": ["constant", "cosin"]}, r"space.lr_decay: cosin must be one of .*did you mean 'cosine'"),
            ({"num_envs": [0, 8]}, r"space.num_envs: 0 must be"),
            ({"num_envs": {"low": 1.5, "high": 8}}, r"space.num_envs: 1.5 must be a whole number"),
            ({}, "space: must be a table"),
        ],
    )
    def test_a_space(self, tmp_path: Path, space: dict[str, Any], message: str) -> None:
        with pytest.raises(TuneError, match=message):
            make(tmp_path, space=space)

    @pytest.mark.parametrize(
        ("tables", "message"),
        [
            ({"trials": 0}, "trials = 0: must be a whole number, 1 or more"),
            ({"sampler": "grid"}, "sampler = grid: must be one of tpe, random"),
            ({"seeds": 2, "final_seeds": "2-4"}, "final_seeds: 2 is of the search too"),
            ({"seeds": "x"}, "^x.toml: seeds = x: must be a count"),
            ({"final_seeds": "7,"}, "^x.toml: final_seeds = 7,: must be a count"),
            ({"settings": {"seed": 3}}, "seed: each run of a search has its own"),
        ],
    )
    def test_a_table(self, tmp_path: Path, tables: dict[str, Any], message: str) -> None:
        with pytest.raises(TuneError, match=message):
            make(tmp_path, **tables)

    def test_an_unknown_table(self, tmp_path: Path) -> None:
        (tmp_path / "x.toml").write_text("trails = 3\n")
        with pytest.raises(TuneError, match=r"trails is unknown; .*did you mean 'trials'"):
            read_tables(tmp_path / "x.toml")

    def test_settings_that_are_wrong_without_a_search(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match="num_minibatches"):
            make(tmp_path, {"num_minibatches": 7})

    def test_a_range_with_an_end_that_no_run_can_have(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match="lr = -1"):
            make(tmp_path, space={"lr": {"low": -1.0, "high": 1e-3}})

    def test_a_space_of_which_all_is_given(self, tmp_path: Path) -> None:
        with pytest.raises(TuneError, match="nothing is left to search"):
            make(tmp_path, {"lr": 1e-3})

    def test_a_line_that_was_cut_is_dropped(self, tmp_path: Path) -> None:
        study, file = open_study(make(tmp_path)), tmp_path / "study.log"
        study.tell(study.ask({"lr": optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True)}), 1.0)
        file.write_bytes(file.read_bytes() + b'{"op_code":5,"worker_id":"')
        for _ in range(2):
            assert [trial.value for trial in open_study(make(tmp_path)).trials] == [1.0]

    @pytest.mark.parametrize("text", ["hello\n", "{}\n"])
    def test_a_file_that_is_no_study(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "study.log").write_text(text)
        with pytest.raises(TuneError, match=r"study\.log: is no study of Optuna"):
            open_study(make(tmp_path))

    def test_a_link_is_not_followed(self, tmp_path: Path) -> None:
        (tmp_path / "mine").touch()
        (folder := tmp_path / "search").mkdir()
        (folder / "study.log").symlink_to(tmp_path / "mine")
        with pytest.raises(TuneError, match=r"study\.log: is a link"):
            open_study(make(folder))
        assert (tmp_path / "mine").read_text() == ""

    def test_another_search_in_the_folder(self, tmp_path: Path) -> None:
        check_same(make(tmp_path))
        check_same(make(tmp_path, trials=99))
        with pytest.raises(TuneError, match="has a search already, with other space"):
            check_same(make(tmp_path, space={"lr": [1e-3, 1e-4]}))
        with pytest.raises(TuneError, match="with other settings"):
            check_same(make(tmp_path, {"num_envs": 4}))


class TestTrials:
    def test_the_first_has_the_settings_that_are_there_without_a_search(self, tmp_path: Path) -> None:
        launcher = Recorded()
        search(make(tmp_path, trials=1), launcher)
        assert launcher.started[0].config.ppo.policy_lr.peak == 1e-3  # of the preset of CartPole-v1

    def test_all_run_and_the_best_is_found(self, tmp_path: Path) -> None:
        tuning, launcher = make(tmp_path, trials=6, pruner="none"), Recorded()
        study = search(tuning, launcher).study
        rates = [job.config.ppo.policy_lr.peak for job in launcher.started]
        assert len(rates) == 6
        best = best_of(study)
        assert best is not None
        assert values_of(best, tuning)["lr"] == max(rates)
        # The mean of the last three evaluations: (0.8 + 0.9 + 1) / 3 of 1e4 times the rate.
        assert best.value == pytest.approx(0.9 * 1e4 * max(rates))

    def test_a_score_of_zero_is_above_those_below_it(self) -> None:
        only = optuna.create_study(direction="maximize")
        for value in (-5.0, 0.0, -1.0):
            only.tell(only.ask(), value)
        best = best_of(only)
        assert best is not None
        assert best.value == 0.0

    def test_each_seed_is_a_run_and_their_mean_is_the_score(self, tmp_path: Path) -> None:
        launcher = Recorded()
        study = search(make(tmp_path, trials=1, seeds="5-7"), launcher).study
        assert [job.run_dir.name for job in launcher.started] == ["seed-5", "seed-6", "seed-7"]
        assert study.trials[0].value == pytest.approx(0.9 * 1e4 * 1e-3)

    def test_one_below_the_median_is_ended_early(self, tmp_path: Path) -> None:
        launcher = Recorded()
        study = search(make(tmp_path, trials=12), launcher).study
        pruned = [trial for trial in study.trials if trial.state is TrialState.PRUNED]
        assert pruned
        assert {f"trial-{trial.number:03}" for trial in pruned} == {job.arm for job in launcher.cancelled}
        assert all(len(evaluations(job.run_dir)) < 10 for job in launcher.cancelled)
        # Not one of the first five, and none is the best.
        assert all(trial.number >= 5 for trial in pruned)
        best = best_of(study)
        assert best is not None
        assert max(trial.params["lr"] for trial in study.trials) == best.params["lr"]

    def test_values_that_do_not_go_together_fail_their_trial_alone(self, tmp_path: Path) -> None:
        launcher = Recorded()
        tuning = make(tmp_path, trials=8, space={"num_minibatches": [4, 7]}, pruner="none")
        study = search(tuning, launcher).study
        failed = [trial for trial in study.trials if trial.state is TrialState.FAIL]
        assert failed
        assert {trial.params["num_minibatches"] for trial in failed} == {7}
        assert all("must divide" in trial.user_attrs["cause"] for trial in failed)
        assert len(launcher.started) == 8 - len(failed)


class TestGoingOn:
    def test_a_stopped_search_finishes_its_trial_and_repeats_none(self, tmp_path: Path) -> None:
        tuning, first = make(tmp_path, trials=4, pruner="none"), Recorded(interrupt=("trial-002",))
        begun = search(tuning, first, stop=lambda: len(first.started) == 3)
        assert [trial.state for trial in begun.study.trials] == [TrialState.COMPLETE] * 2 + [TrialState.RUNNING]
        (tmp_path / "trial-002" / "seed-1").rmdir()
        second = Recorded()
        study = search(tuning, second).study
        assert [job.arm for job in second.started] == ["trial-002", "trial-003"]
        # With the values that it had.
        assert second.started[0].config == first.started[2].config
        assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 4
        assert len({trial.params["lr"] for trial in study.trials}) == 4

    def test_more_trials_may_follow(self, tmp_path: Path) -> None:
        search(make(tmp_path, trials=2), Recorded())
        launcher = Recorded()
        search(make(tmp_path, trials=3), launcher)
        assert [job.arm for job in launcher.started] == ["trial-002"]


def test_the_score_is_of_the_last_three_evaluations() -> None:
    assert score([100.0, 1.0, 2.0, 6.0]) == 3.0
    assert score([5.0]) == 5.0


def test_the_page_begins_with_the_difference_on_fresh_seeds(tmp_path: Path) -> None:
    def answer(final: dict[str, dict[int, float]]) -> str:
        write_page(tuning, study, final)
        return (tmp_path / "tune.html").read_text().partition('<p class="answer">')[2].partition("</p>")[0]

    tuning = make(tmp_path, trials=3)
    study = open_study(tuning)
    assert answer({}) == "No trial is complete yet."
    study = search(tuning, Recorded()).study
    best = best_of(study)
    assert best is not None
    assert answer({}).startswith(f"Best so far: trial {best.number} with ")
    # In pairs: 20 and 30, whose mean is 25. Their deviation is 7.07, its error 7.07 / 2 ** 0.5 = 5, and Student's
    # quantile for two values 12.706: 25 - 63.5 = -38.5 and 25 + 63.5 = 88.5. Unpaired the error would be 11.2.
    line = answer({"best": {1001: 30.0, 1002: 50.0}, "start": {1001: 10.0, 1002: 20.0}})
    assert line.startswith(f"Trial {best.number} scores 40 [")
    assert line.endswith("The interval of the difference, 25 [-38.5, 88.5], contains 0.")
    line = answer({"best": {1001: 30.0, 1002: 41.0}, "start": {1001: 10.0, 1002: 20.0}})
    assert line.endswith("does not contain 0.")


@pytest.mark.slow
def test_from_the_command_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A real search; its file trains the best trial again, and its page needs no network."""
    (tmp_path / "space.toml").write_text(
        "seeds = 1\nfinal_seeds = '7-8'\n[space]\nlr = [1e-3, 3e-3]\nupdate_epochs = [2, 4]\n"
    )
    folder = tmp_path / "found"
    command = ["tune", "--env", "torch/CartPole-v1", "--config", str(tmp_path / "space.toml")]
    command += ["--total-timesteps", "4096", "--trials", "2", "--workers", "1", "--output", str(folder)]
    assert main(command) == 0
    printed = capfd.readouterr().out
    assert "2 of 2 trials" in printed
    assert f"esper ppo --config {folder / 'best.toml'} --preset none" in printed
    found = resolve([file_layer(folder / "best.toml")]).config
    (best,) = [path for path in folder.iterdir() if path.name.startswith("best-")]
    again = json.loads((best / "seed-7" / "config.json").read_text())
    assert found.ppo.policy_lr.peak == again["policy_lr"]
    assert found.ppo.update_epochs == again["update_epochs"]
    assert found.ppo.normalize_rewards == again["normalize_rewards"] is True
    assert sorted(path.name for path in (folder / "start").iterdir() if path.is_dir()) == ["seed-7", "seed-8"]
    page = (folder / "tune.html").read_text()
    assert "With seeds that no trial saw" in page
    assert 'src="http' not in page
    assert "seed" not in tomllib.loads((folder / "best.toml").read_text())
    # The same command has nothing left to do, and says the same.
    assert main(command) == 0
    assert "2 of 2 trials" in capfd.readouterr().out


def test_without_optuna_the_command_that_installs_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "esper.tune.search", raising=False)
    with pytest.raises(SystemExit):
        main(["tune", "--output", str(tmp_path / "x")])
    assert "pip install 'esper-simic[tune]'" in capfd.readouterr().err
