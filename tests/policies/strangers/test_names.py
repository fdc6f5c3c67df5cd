"""Modules, folders and texts that a stranger's files name."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from esper.policies.evaluate import evaluate
from esper.policies.policy import load_policy
from esper.scripts.train import main
from esper.settings.options import ConfigError
from esper.storage.store import StoreError

CANARY = """
import pathlib, torch
pathlib.Path(__file__).with_name("imported").touch()
def net(shape):
    return torch.nn.Linear(shape[0], 3)
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    size = ["--preset", "none", "--num-envs", "2", "--num-steps", "8", "--num-minibatches", "2", "--threads", "1"]
    more = ["--total-timesteps", "32", "--compile", "off", "--hidden-sizes", "4", "--no-tensorboard", "--no-picture"]
    assert main(["ppo", *size, *more, "--quiet", "--run-dir", str(run)]) == 0
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Is there once the module `canary` was imported."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "canary.py").write_text(CANARY)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    yield tmp_path / "modules" / "imported"
    sys.modules.pop("canary", None)


def change(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def name_in(run: Path, **settings: Any) -> None:
    """Let every file of `run` have `settings`, with checksums that are right."""
    change(run / "config.json", **settings)
    network = {name: value for name, value in settings.items() if name == "encoder"}
    policy = {name: value for name, value in settings.items() if name != "encoder"}
    stored = json.loads((run / "policy.json").read_text())
    change(run / "policy.json", **policy, network={**stored["network"], **network})
    first, *others = (run / "events.jsonl").read_text().splitlines(keepends=True)
    started = json.loads(first)
    started["config"] |= settings
    (run / "events.jsonl").write_text("".join([(again := json.dumps(started) + "\n"), *others]))
    for checkpoint in (run / "checkpoints").iterdir():
        state = json.loads((checkpoint / "state.json").read_text())
        position = state["events_bytes"] and state["events_bytes"] + len(again) - len(first)
        change(checkpoint / "state.json", config={**state["config"], **settings}, events_bytes=position)
        manifest = json.loads((checkpoint / "manifest.json").read_text())
        for name in manifest["files"]:
            data = (checkpoint / name).read_bytes()
            manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        (checkpoint / "manifest.json").write_text(json.dumps(manifest))


def status(*arguments: object) -> int:
    try:
        return main(list(map(str, arguments)))
    except SystemExit as stop:
        return int(stop.code or 0)


COMMANDS = {
    "evaluate": ("evaluate", "RUN", "--episodes", "1"),
    "record": ("evaluate", "RUN", "--episodes", "1", "--record", "RUN.gif"),
    "enjoy": ("enjoy", "RUN", "--episodes", "1"),
    "export": ("export", "RUN"),
    "resume": ("ppo", "--resume", "RUN", "--quiet"),
    "resume with its own settings": ("ppo", "--resume", "RUN", "--quiet", "--config", "RUN/config.json"),
    "train again": ("ppo", "--config", "RUN/config.json", "--quiet", "--run-dir", "RUN-again"),
}


class TestModules:
    @pytest.mark.parametrize("setting", [{"env": "canary:CartPole-v1"}, {"encoder": "canary:net"}])
    @pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
    def test_are_not_imported_because_a_file_names_them(
        self,
        run: Path,
        imported: Path,
        command: tuple[str, ...],
        setting: dict[str, str],
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        name_in(run, **setting)
        ((name, value),) = setting.items()
        assert status(*(word.replace("RUN", str(run)) for word in command)) == 2
        assert not imported.exists()
        assert f"imports 'canary'; if that is right, add --{name} {value} or --trust" in capsys.readouterr().err

    @pytest.mark.parametrize("setting", [{"env": "canary:CartPole-v1"}, {"encoder": "canary:net"}])
    @pytest.mark.parametrize(
        "command", [("report", "RUN"), ("compare", "RUN", "RUN-two"), ("checkpoint", "inspect", "RUN")]
    )
    def test_nor_by_what_only_shows(
        self, run: Path, imported: Path, command: tuple[str, ...], setting: dict[str, str]
    ) -> None:
        name_in(run, **setting)
        shutil.copytree(run, f"{run}-two")
        assert status(*(word.replace("RUN", str(run)) for word in command)) in (0, 2)
        assert not imported.exists()

    @pytest.mark.parametrize("flags", [("--env", "canary:CartPole-v1"), ("--trust",)])
    def test_are_imported_when_the_user_says_so(self, run: Path, imported: Path, flags: tuple[str, ...]) -> None:
        name_in(run, env="canary:CartPole-v1")
        assert status("evaluate", run, "--episodes", "1", *flags) == 0
        assert imported.exists()
        imported.unlink()
        sys.modules.pop("canary")
        assert status("ppo", "--resume", run, "--quiet", *flags) == 0
        assert imported.exists()

    def test_a_run_with_an_encoder_of_a_module(
        self, tmp_path: Path, imported: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = tmp_path / "own"
        size = ["--preset", "none", "--num-envs", "2", "--num-steps", "8", "--num-minibatches", "2", "--threads", "1"]
        more = ["--total-timesteps", "32", "--compile", "off", "--no-tensorboard", "--no-picture", "--quiet"]
        assert main(["ppo", *size, *more[:-1], "--encoder", "canary:net", "--run-dir", str(run)]) == 0
        assert f"esper evaluate {run} --encoder canary:net\n" in capsys.readouterr().out
        for command in (("evaluate", run, "--episodes", "1"), ("ppo", "--resume", run, "--quiet")):
            assert status(*command) == 2
            assert "add --encoder canary:net or --trust" in capsys.readouterr().err
            assert status(*command, "--encoder", "canary:net") == 0
            assert status(*command, "--trust") == 0

    def test_of_another_name_than_was_given(
        self, run: Path, imported: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        name_in(run, env="canary:CartPole-v1")
        assert status("evaluate", run, "--env", "other:CartPole-v1") == 2
        assert "its env is 'canary:CartPole-v1', not 'other:CartPole-v1'" in capsys.readouterr().err
        assert status("ppo", "--resume", run, "--env", "CartPole-v1") == 2
        assert not imported.exists()

    def test_in_python(self, run: Path, imported: Path) -> None:
        name_in(run, env="canary:CartPole-v1")
        with pytest.raises(StoreError, match="imports 'canary'"):
            load_policy(run)
        assert load_policy(run, env="canary:CartPole-v1").environment.env == "canary:CartPole-v1"
        assert load_policy(str(run), trust=True).environment.env == "canary:CartPole-v1"
        given = load_policy(run, env=lambda: gymnasium.make("CartPole-v1"))
        assert given.predict(np.zeros(4))[1] is None
        with pytest.raises(ConfigError, match="was passed from Python, where it must be passed again"):
            evaluate(given, episodes=1, seed=0)
        # To load a policy is not to make its environment, nor is to use one in its place.
        assert not imported.exists()
        load_policy(run, trust=True).predict(np.zeros(4))
        assert imported.exists()

    def test_a_shape_is_no_command(self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        shape = ["touch", str(tmp_path / "pwned")]
        stored = json.loads((run / "policy.json").read_text())
        images = {"kind": "images", "shape": shape, "highest": 255}
        change(run / "policy.json", observations=images, network={**stored["network"], "encoder": "subprocess:run"})
        for flags, message in (((), "its encoder imports 'subprocess'"), (("--trust",), "observations.shape = ")):
            assert status("evaluate", run, *flags) == 2
            assert message in capsys.readouterr().err
        assert not (tmp_path / "pwned").exists()

    def test_arguments_may_name_no_files(self, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        name_in(run, env_kwargs={"xml_file": "../../model.xml"})
        for command in (("evaluate", run), ("ppo", "--resume", run)):
            assert status(*command) == 2
            assert "its env_kwargs have '../../model.xml'" in capsys.readouterr().err


class TestFolders:
    @pytest.mark.parametrize("begun", [True, False])
    def test_a_file_does_not_say_where_to_write(
        self, run: Path, tmp_path: Path, begun: bool, capsys: pytest.CaptureFixture[str]
    ) -> None:
        name_in(run, run_dir=str(tmp_path / "elsewhere"))
        if not begun:
            shutil.rmtree(run / "checkpoints")
        assert status("ppo", "--resume", run) == 2
        assert "run_dir" in (error := capsys.readouterr().err)
        assert "is not a setting that a run records" in error
        assert not (tmp_path / "elsewhere").exists()


class TestTypes:
    @pytest.mark.parametrize(
        ("field", "value", "message"),
        [
            ("observations", "x", "observations = 'x': must be a mapping"),
            ("observations", {"kind": "vectors"}, "observations.size = None"),
            ("observations", {"kind": "vectors", "size": True}, "observations.size = True: must be a whole number"),
            ("observations", {"kind": "vectors", "size": 2**30}, "from 1 to 16,777,216"),
            ("observations", {"kind": "vectors", "size": 4, "x": 1}, "observations = 'x': must be of"),
            ("observations", {"kind": ["vectors"]}, "observations.kind = ['vectors']: must be one of vectors, images"),
            ("observations", {"kind": "images", "shape": [3, 4], "highest": 255}, "must be a list of 3 whole numbers"),
            (
                "observations",
                {"kind": "images", "shape": [3, 9999, 9999], "highest": 255},
                "16,777,216 numbers at most",
            ),
            (
                "observations",
                {"kind": "images", "shape": [3, 8, 8], "highest": 0},
                "highest = 0: must be a whole number",
            ),
            ("actions", None, "actions = None: must be a mapping"),
            ("actions", {"kind": "multi_discrete", "nvec": []}, "actions.nvec = []"),
            ("actions", {"kind": "multi_discrete", "nvec": [2, "3"]}, "actions.nvec = '3'"),
            ("network", [], "network = []: must be a mapping"),
            ("network", {"hidden_sizes": [4] * 2000}, "must be a list of 1 to 1,000 whole numbers"),
            ("network", {"hidden_sizes": [2**40]}, "from 1 to 16,777,216"),
            ("network", {"hidden_sizes": None}, "hidden_sizes = none: must be numbers"),
            ("network", {"actor_hidden_sizes": [2**40]}, "network.actor_hidden_sizes = 1099511627776"),
            ("network", {"critic_hidden_sizes": "4"}, "network.critic_hidden_sizes = '4'"),
            ("network", {"encoder": "resnet"}, "encoder = resnet"),
            ("network", {"activation": ["tanh"]}, "activation = ['tanh']"),
            ("network", {"__class__": 1}, "network = '__class__'"),
            ("masked", "yes", "masked = 'yes': must be true or false"),
            ("env", 3, "env = 3: must be text"),
            ("env_kwargs", [], "env_kwargs = []: must be a JSON object"),
            ("vector", "x", "vector = x: must be one of"),
            ("format", [2], "format [2] is not the 2"),
        ],
    )
    def test_of_a_policy(self, run: Path, field: str, value: object, message: str) -> None:
        change(run / "policy.json", **{field: value})
        with pytest.raises(StoreError) as refused:
            load_policy(run)
        assert message in str(refused.value)

    def test_a_record_that_is_cut_in_a_line_is_reported_up_to_there(self, run: Path) -> None:
        record = (run / "events.jsonl").read_bytes()
        (run / "events.jsonl").write_bytes(record[: record.rindex(b"update_completed") + 100])
        assert status("report", run) == 0
        page = (run / "report" / "report.html").read_text()
        assert "not finished, 1 of 2 updates" in page

    def test_and_one_that_is_damaged_before_its_end_is_not(self, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        lines = (run / "events.jsonl").read_bytes().splitlines(keepends=True)
        (run / "events.jsonl").write_bytes(b"".join([lines[0], b"\0" * (len(lines[1]) - 1) + b"\n", *lines[2:]]))
        assert status("report", run) == 2
        assert "events.jsonl: cannot be read: line 2 is not JSON" in capsys.readouterr().err
        assert status("ppo", "--resume", run) == 2
        assert "events.jsonl: line 2 is not JSON" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ('"total_updates": 2', '"total_updates": "2"', "its total_updates is '2', not a whole number"),
            ('"schedules": {', '"schedules": 3, "x": {', "its schedules is 3, not a mapping"),
            ('"seed": 1, "total_updates"', '"total_updates"', "one of its run_started has no seed"),
            ('"env": "CartPole-v1"', '"env": 7', "its run_started names no environment"),
            ('"entropy":', '"entropy":[],"x":', "its entropy is [], not a number"),
            ('"update":0', f'"update":{10**30}', "its update is 1e+30, not a whole number"),
            ('"lr_phase/policy":"', '"lr_phase/policy":3,"y":"', "its lr_phase/policy is 3, not text"),
        ],
    )
    def test_of_a_record(self, run: Path, old: str, new: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
        text = (run / "events.jsonl").read_text()
        assert old in text
        (run / "events.jsonl").write_text(text.replace(old, new, 1))
        assert status("report", run) == 2
        assert message in capsys.readouterr().err


class TestTexts:
    HOSTILE = "<script>alert(1)</script>\x1b]0;x\x07$\\frac$"

    def test_a_page_shows_them_as_they_are(self, run: Path, tmp_path: Path) -> None:
        lines = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
        lines[0]["config"] = {**lines[0]["config"], "env": self.HOSTILE, self.HOSTILE: self.HOSTILE}
        lines[0]["versions"] = {self.HOSTILE: self.HOSTILE}
        lines[0]["schedules"] = {self.HOSTILE: {self.HOSTILE: self.HOSTILE}}
        lines[-1]["cause"] = self.HOSTILE
        (run / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        arm = tmp_path / "<img src=x> $\\frac$"
        run.rename(arm)
        assert status("report", arm) == 0
        shutil.copytree(arm, other := tmp_path / "b&b")
        html = tmp_path / "compare.html"
        assert status("compare", arm, other, "--html", html) == 0
        for page in (arm / "report" / "report.html", html):
            text = page.read_text()
            # Those that draw its curves are its own.
            assert "<script>alert" not in text
            assert "<img src=x" not in text
            assert "&lt;script&gt;" in text

    def test_a_terminal_is_not_steered(self, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        name_in(run, env=self.HOSTILE)
        for command in (("checkpoint", "inspect", run), ("evaluate", run), ("ppo", "--resume", run), ("compare", run)):
            status(*command)
            output, errors = capsys.readouterr()
            assert "\x1b" not in output + errors
            assert "\x07" not in output + errors
