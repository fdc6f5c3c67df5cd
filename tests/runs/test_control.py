"""Runs of controllers that do not learn: their record, and what is made of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from esper.analysis.arms import load_arm
from esper.analysis.runs import read_events
from esper.envs.growth.config import GrowthConfig
from esper.envs.growth.vector import GrowthVectorEnv
from esper.runs import control as control_module
from esper.runs.config import RunConfig
from esper.runs.control import ControlResult, control
from esper.runs.control_config import ControlConfig
from esper.scripts.train import main
from esper.settings.options import settings_of

sys.path.insert(0, str(Path(__file__).parents[1] / "envs" / "growth"))
from scripted import ScriptedEnv


def scripted(config: ControlConfig) -> GrowthVectorEnv:
    return ScriptedEnv(config.growth, config.num_envs)  # type: ignore[return-value]


@pytest.fixture
def real() -> None:
    """Real hosts, which take longer."""


@pytest.fixture(autouse=True)
def _scripted(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "real" not in request.fixturenames:
        monkeypatch.setattr(control_module, "make_env", scripted)


def ran(folder: Path, **changes: Any) -> ControlResult:
    settings: dict[str, Any] = {"episodes": 4, "num_envs": 2, "quiet": True, "tensorboard": False, "run_dir": folder}
    return control(ControlConfig(**(settings | changes)))


def events(folder: Path, name: str) -> list[dict[str, Any]]:
    return [event for event in read_events(folder) if event["event"] == name]


class TestRecord:
    def test_has_every_round_and_every_episode(self, tmp_path: Path) -> None:
        result = ran(tmp_path / "run")
        assert (result.status, len(result.episodes)) == ("completed", 4)
        started, *_, finished = read_events(tmp_path / "run")
        assert started["config"]["env"] == "esper/Growth-v0"
        assert started["config"]["controller"] == "heuristic"
        assert started["total_updates"] == 2
        assert (finished["episodes"], finished["env_steps"]) == (4, 2 * 25 * 2)
        rounds = events(tmp_path / "run", "round_completed")
        assert [(each["update"], each["env_steps"], each["episodes"]) for each in rounds] == [(0, 50, 2), (1, 100, 2)]
        assert rounds[0]["user/final_accuracy"] == result.episodes[0].final_accuracy
        assert json.loads((tmp_path / "run" / "config.json").read_text()) == started["config"]

    def test_an_episode_is_whole(self, tmp_path: Path) -> None:
        episode = ran(tmp_path / "run").episodes[0]
        assert [len(each) for each in (episode.accuracy, episode.reward, episode.action, episode.reason)] == [
            26,
            *[25] * 3,
        ]
        assert episode.accuracy[:6] == [
            10.0,
            20.0,
            pytest.approx(30.2),
            pytest.approx(40.4),
            *map(pytest.approx, (50.6, 60.8)),
        ]
        assert list(episode.stage) == ["early", "mid", "late"]
        planted = episode.action.index("germinate norm in early, linear")
        assert set(episode.action[:planted]) == {"wait"}
        assert episode.stage["early"][planted : planted + 2] == ["training", "training"]
        assert episode.blueprint["early"][planted - 1 : planted + 1] == ["", "norm"]
        fossil = episode.action.index("fossilize early")
        # A point of alpha is worth 4 points.
        assert episode.contribution["early"][fossil] == 4.0
        assert episode.contribution["early"][planted] is None
        assert episode.reason[fossil] == "it contributes 4 points"
        assert episode.fossils >= 1

    def test_the_same_seed_gives_the_same_episodes(self, tmp_path: Path) -> None:
        first = ran(tmp_path / "a", controller="random")
        assert first.episodes == ran(tmp_path / "b", controller="random").episodes
        assert first.episodes != ran(tmp_path / "c", controller="random", seed=2).episodes

    def test_settings_of_the_environment_are_its_env_kwargs(self, tmp_path: Path) -> None:
        ran(tmp_path / "run", growth=GrowthConfig(epochs=7, blueprints=("norm", "conv")))
        config = next(read_events(tmp_path / "run"))["config"]
        assert config["env_kwargs"] == {"epochs": 7, "blueprints": ["norm", "conv"]}
        assert events(tmp_path / "run", "round_completed")[0]["env_steps"] == 14

    def test_waiting_changes_nothing(self, tmp_path: Path) -> None:
        result = ran(tmp_path / "run", controller="wait")
        assert {action for episode in result.episodes for action in episode.action} == {"wait"}
        assert "stable_epochs" not in next(read_events(tmp_path / "run"))["config"]


class TestCommand:
    FLAGS = ("--episodes", "4", "--num-envs", "2", "--no-tensorboard")

    def test_runs_reports_and_compares(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        arms = tmp_path / "heuristic", tmp_path / "random"
        for arm in arms:
            for seed in ("1", "2"):
                flags = ["--controller", arm.name, "--seed", seed, "--run-dir", str(arm / seed)]
                assert main(["heuristic", *self.FLAGS, *flags]) == 0
        out = capsys.readouterr().out
        assert "round 2/2  return" in out
        assert "finished after 4 episodes" in out
        page = tmp_path / "page.html"
        assert main(["compare", *map(str, arms), "--html", str(page)]) == 0
        out = capsys.readouterr().out
        for measure in ("final_return, higher", "final_accuracy, higher", "seed_parameters, lower"):
            assert f"{measure} is better" in out
        assert "<td>controller</td><td>heuristic</td><td>random</td>" in page.read_text()
        assert "policy_lr" not in page.read_text()
        assert load_arm(arms[0], settings_of(RunConfig)).runs[1].updates["user/fossils"].shape == (2,)

    def test_the_report_has_the_episodes(self, tmp_path: Path) -> None:
        run = tmp_path / "run"
        assert main(["heuristic", *self.FLAGS, "--controller", "random", "--run-dir", str(run), "--quiet"]) == 0
        assert main(["report", str(run)]) == 0
        page = (run / "report" / "report.html").read_text()
        assert "completed, 2 of 2 rounds, 100 environment steps" in page
        assert {path.name for path in (run / "report").glob("*.png")} == {
            *("learning.png", "own-1.png"),
            *(f"episode-{name}.png" for name in ("highest", "median", "lowest")),
        }
        assert "<td>final accuracy (%)</td>" in page
        assert "<td>cull, per episode</td>" in page

    @pytest.mark.parametrize("kind", ["png", "gif"])
    def test_records_the_best_episode(self, tmp_path: Path, kind: str) -> None:
        file, flags = tmp_path / f"best.{kind}", ["--epochs", "8", "--blueprints", "norm", "--quiet"]
        assert main(["heuristic", *self.FLAGS, *flags, "--run-dir", str(tmp_path / "run"), "--record", str(file)]) == 0
        with Image.open(file) as picture:
            assert getattr(picture, "n_frames", 1) == (8 if kind == "gif" else 1)

    def test_the_module_does_the_same(self) -> None:
        with pytest.raises(SystemExit) as stop:
            main(["heuristic", "--help"])
        assert stop.value.code == 0

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (["--epochs", "0"], "--epochs 0: must be at least 1"),
            (["--controller", "ppo"], "--controller ppo: must be one of heuristic, random, wait"),
            (["--cull-drop", "-1"], "--cull-drop -1: must be"),
            (["--record", "x.avi"], "--record x.avi: must end in .png, .gif or .mp4"),
            (["--plateau-gian", "1"], "did you mean"),
            (["--policy", "nowhere"], "nowhere"),
        ],
    )
    def test_wrong_flags(self, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as stop:
            main(["heuristic", *flags])
        assert stop.value.code == 2
        assert message in capsys.readouterr().err

    def test_a_folder_with_a_run_in_it_is_refused(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        command = ["heuristic", *self.FLAGS, "--quiet", "--run-dir", str(tmp_path / "run")]
        assert main(command) == 0
        (tmp_path / "run" / "notes").touch()
        with pytest.raises(SystemExit):
            main(command)
        assert "has files in it" in capsys.readouterr().err


def test_pictures_show_what_was_done(tmp_path: Path) -> None:
    """A fossil is a band of its colour, which a run that waits has not."""

    def green(controller: str) -> int:
        file = tmp_path / f"{controller}.png"
        flags = ["--episodes", "1", "--num-envs", "1", "--quiet", "--no-tensorboard", "--controller", controller]
        assert main(["heuristic", *flags, "--run-dir", str(tmp_path / controller), "--record", str(file)]) == 0
        pixels = np.asarray(Image.open(file).convert("RGB")).astype(int)
        return int((np.abs(pixels - [0, 158, 115]).max(axis=-1) < 8).sum())

    # The legend alone has some.
    assert green("heuristic") > 10 * green("wait")


@pytest.mark.usefixtures("real")
class TestRealHosts:
    @pytest.fixture(autouse=True)
    def _with_digits(self) -> None:
        pytest.importorskip("sklearn")

    SMALL = ("--num-envs", "2", "--quiet", "--no-tensorboard")

    def test_a_policy_acts_in_place_of_a_controller(self, tmp_path: Path) -> None:
        kwargs = json.dumps({"epochs": 3, "epoch_steps": 2, "batch_size": 4, "channels": [2, 3]})
        run = ["--env", "esper/Growth-v0", "--env-kwargs", kwargs, "--preset", "none", "--num-steps", "3"]
        learner = ["--rnn", "lstm", "--rnn-size", "4", "--update-epochs", "1", "--num-minibatches", "1"]
        trained = ["--metrics-after", "--total-timesteps", "12", "--no-picture", "--run-dir", str(tmp_path / "ppo")]
        assert main(["ppo", *self.SMALL, *run, *learner, *trained]) == 0
        assert all("approx_kl_after" in event for event in events(tmp_path / "ppo", "update_completed"))

        def episodes(folder: str, *flags: str) -> list[dict[str, Any]]:
            command = ["--policy", str(tmp_path / "ppo"), "--episodes", "4", "--run-dir", str(tmp_path / folder)]
            assert main(["heuristic", *self.SMALL, *command, *flags]) == 0
            return [{**event, "time": 0} for event in events(tmp_path / folder, "growth_episode")]

        first = episodes("first")
        assert first == episodes("again")
        assert [len(each["action"]) for each in first] == [3] * 4
        assert list(first[0]["stage"]) == ["block 1", "block 2"]
        config = next(read_events(tmp_path / "first"))["config"]
        assert (config["controller"], config["env_kwargs"]["epochs"]) == ("policy", 3)
        assert first != episodes("sampled", "--stochastic")
        # PPO, and its policy beside the rules, are arms of one comparison.
        assert main(["heuristic", *self.SMALL, "--episodes", "4", "--run-dir", str(tmp_path / "rules")]) == 0
        assert main(["compare", *(str(tmp_path / name) for name in ("ppo", "first", "rules"))]) == 0

    def test_a_policy_of_another_environment_is_refused(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = ["--env", "CartPole-v1", "--preset", "none", "--num-steps", "8", "--total-timesteps", "16"]
        assert main(["ppo", *self.SMALL, *run, "--no-picture", "--run-dir", str(tmp_path / "ppo")]) == 0
        with pytest.raises(SystemExit):
            main(["heuristic", "--policy", str(tmp_path / "ppo")])
        assert "is a policy of CartPole-v1, not of esper/Growth-v0" in capsys.readouterr().err
