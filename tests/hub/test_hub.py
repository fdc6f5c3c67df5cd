"""Runs on the Hub: what is pushed, what the card says, and what is taken of a stranger's repository."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("huggingface_hub")

from huggingface_hub import HfApi, ModelCard, constants
from local_hub import SHA, LocalHub, serving

from esper.analysis.statistics import interval_from_moments
from esper.hub.card import make_card, training_command
from esper.hub.shared import shared, shared_files
from esper.policies.evaluate import evaluate
from esper.policies.policy import load_policy
from esper.runs.config import RunConfig
from esper.runs.layers import as_recorded, changed_settings, recorded_layer, resolve
from esper.runs.presets import with_preset
from esper.scripts.flags import flag_layer
from esper.scripts.train import main, make_parsers

REPO = "me/cart"
FLAGS = "--env CartPole-v1 --preset none --num-envs 4 --num-steps 32 --total-timesteps 512 --eval-every 2 --quiet"
SHARED = {
    *("config.json", "events.jsonl", "policy.json", "policy.safetensors", "training.png"),
    *("best/policy.json", "best/policy.safetensors"),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("hub") / "run"
    flags = [*FLAGS.split(), "--lr-decay", "cosine", "--value-lr", "0.002", "--no-tensorboard", "--run-dir", str(run)]
    assert main(["ppo", *flags]) == 0
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, tmp_path / "run")
    return Path("run")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LocalHub]:
    there = LocalHub()
    with serving(there) as url:
        # As HF_ENDPOINT does, which is read when the library is imported.
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
        yield there


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a refused command says, in its one line."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code == 2
    says = capsys.readouterr().err
    assert says.count("\n") == 1, says
    return says.removeprefix(f"esper {arguments[0]}: error: ").rstrip()


def names_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


class TestRoundTrip:
    def test_what_is_pushed_is_pulled_and_acts_the_same(
        self, run: Path, hub: LocalHub, capsys: pytest.CaptureFixture[str]
    ) -> None:
        hub.exists = False
        assert main(["push", "run", REPO, "--private"]) == 0
        assert capsys.readouterr().out == f"pushed   {hub.url}/me/cart\n"
        (created,) = hub.created
        assert (created["organization"], created["name"], created["visibility"]) == ("me", "cart", "private")
        assert set(hub.files) == {"README.md", *SHARED}
        assert main(["pull", REPO]) == 0
        assert names_in(Path("cart")) == {"README.md", *SHARED}
        for name in SHARED:
            assert (Path("cart") / name).read_bytes() == (run / name).read_bytes()
        out = capsys.readouterr().out
        assert "next     esper evaluate cart\n" in out
        assert "         esper evaluate cart/best\n" in out
        scores = [evaluate(load_policy(folder), episodes=3, seed=1).returns for folder in ("run", "cart")]
        assert scores[0] == scores[1]
        assert main(["report", "cart"]) == 0

    def test_a_second_push_leaves_nothing_of_the_first_but_what_is_not_ours(self, run: Path, hub: LocalHub) -> None:
        assert main(["push", "run", REPO]) == 0
        hub.files |= {".gitattributes": b"x", "notes.txt": b"mine"}
        shutil.rmtree(run / "best")
        (run / "episode.gif").write_bytes(b"GIF89a")
        assert main(["push", "run", REPO]) == 0
        ours = {name for name in SHARED if not name.startswith("best/")}
        assert set(hub.files) == {*ours, "README.md", "episode.gif", ".gitattributes", "notes.txt"}
        # One for each push, so that nobody sees a half of it.
        assert hub.asked.count("POST /api/models/me/cart/commit/main") == 2
        assert "![episode](episode.gif)" in hub.files["README.md"].decode()

    def test_one_revision_of_it(self, run: Path, hub: LocalHub, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["push", "run", REPO]) == 0
        hub.revisions.add("v1")
        assert main(["pull", f"{REPO}@v1", "old/runs/cart"]) == 0
        assert names_in(Path("old/runs/cart")) == {"README.md", *SHARED}
        assert "GET /api/models/me/cart/revision/v1" in hub.asked
        # What was listed is what is downloaded, though the tag may move.
        assert f"GET /me/cart/resolve/{SHA}/policy.json" in hub.asked
        assert refused(capsys, "pull", f"{REPO}@v2") == "me/cart: has no revision v2"
        assert refused(capsys, "pull", f"{REPO}@") == "me/cart@: names no revision behind its @"


class TestCard:
    def test_the_hub_reads_its_head(self, run: Path) -> None:
        latest = [event for event in events(run) if event["event"] == "evaluation_completed"][-1]
        card = ModelCard(make_card(run, REPO, shared_files(run)))
        assert card.data.library_name == "esper-simic"
        assert card.data.pipeline_tag == "reinforcement-learning"
        assert {"reinforcement-learning", "deep-reinforcement-learning", "CartPole-v1"} <= set(card.data.tags)
        (result,) = card.data.eval_results
        assert (result.task_type, result.dataset_name) == ("reinforcement-learning", "CartPole-v1")
        assert result.metric_type == "mean_reward"
        assert result.metric_value == f"{latest['eval_return_mean']:.2f} +/- {latest['eval_return_std']:.2f}"

    def test_what_it_says_of_the_run(self, run: Path) -> None:
        main(["report", "run"])
        card = make_card(run, REPO, shared_files(run))
        assert "esper pull me/cart\nesper evaluate cart\n" in card
        assert 'load_policy("cart")' in card
        assert "| lr_decay | `cosine` |" in card
        assert "| value_lr | `0.002` |" in card
        assert "gae_lambda" not in card
        assert re.search(r"\| `value_lr` \| `decay cosine, peak 0.002, .*, decay_end 4` \|", card)
        assert "Completed: 512 environment steps, seed 1." in card
        assert "![learning](report/learning.png)" in card

    def test_its_command_trains_with_the_same_settings(self, run: Path) -> None:
        values = json.loads((run / "config.json").read_text())
        (command,) = re.findall(r"^esper ppo .*$", make_card(run, REPO, shared_files(run)), re.MULTILINE)
        assert settings_of_command(command) == values

    @pytest.mark.parametrize(
        "given",
        [
            {"hidden_sizes": [32, 16], "target_kl": 0.02, "normalize_advantages": False, "seed": 7},
            {"env": "a:B-v0", "env_kwargs": {"size": 3, "name": "it's"}, "vector": "sync", "num_envs": 2},
            {"policy_lr_decay": "piecewise", "policy_lr_points": [[0, 0.001], [5, 0.0005]], "value_lr": 0.01},
            {"lr_decay": "wsd", "lr_decay_frac": 0.5, "lr_warmup_steps": 3, "clip_coef_decay": "linear"},
            {"lr_kl_target": 0.01, "rnn": "gru", "rnn_size": 16, "tensorboard": False, "init_from": "runs/a b"},
        ],
    )
    def test_commands_of_many_settings(self, given: dict[str, object]) -> None:
        values = as_recorded(resolve([recorded_layer({"env": "CartPole-v1", **given}, "test")]).config)
        command = training_command(values)
        assert command is not None
        assert settings_of_command(command) == values

    def test_what_only_python_has_gives_no_command(self) -> None:
        values = as_recorded(RunConfig())
        assert training_command({**values, "env": "<mine.Env>"}) is None
        assert training_command({**values, "policy_lr_decay": "custom"}) is None
        assert training_command({**values, "loss_terms": ["<mine.bonus>"]}) is None

    def test_defaults_are_not_among_its_settings(self) -> None:
        assert changed_settings(as_recorded(RunConfig())) == {}

    def test_names_of_modules_are_given_again(self, run: Path) -> None:
        path = run / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "env": "corridor:Corridor-v0"}))
        card = make_card(run, REPO, shared_files(run))
        assert "esper evaluate cart --env corridor:Corridor-v0\n" in card
        assert "load_policy(\"cart\", env='corridor:Corridor-v0')" in card

    def test_an_environment_that_only_python_has(self, run: Path) -> None:
        path = run / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "env": "<mine.Cart>"}))
        card = make_card(run, REPO, shared_files(run))
        assert "# PPO on `mine.Cart`\n" in card
        assert "esper evaluate cart" not in card
        assert 'load_policy("cart", env=make_env)' in card
        assert "Trained from Python" in card

    def test_text_of_a_strangers_run_is_no_markup(self, run: Path) -> None:
        path = run / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "env": "a` | <b>\n# x", "env_kwargs": {"|": "`"}}))
        card = make_card(run, REPO, shared_files(run))
        assert "# PPO on `a' \\| <b> # x`\n" in card
        assert ModelCard(card).data.tags[-1] == "a` | <b>\n# x"

    def test_without_evaluations_it_has_no_score(self, run: Path) -> None:
        lines = (run / "events.jsonl").read_text().splitlines(keepends=True)
        (run / "events.jsonl").write_text("".join(line for line in lines if "evaluation_completed" not in line))
        card = make_card(run, REPO, shared_files(run))
        assert ModelCard(card).data.eval_results is None
        assert "The run was not evaluated while it trained" in card

    def test_what_was_not_finite_and_what_changed_on_the_way(self, run: Path) -> None:
        started, *others = events(run)
        evaluation = next(event for event in others if event["event"] == "evaluation_completed")
        del evaluation["eval_return_mean"]
        resumed = {
            name: started[name] for name in ("schedules", "engine", "threads", "telemetry", "versions", "schema")
        }
        resumed |= {"event": "run_resumed", "checkpoint": "x", "update": 3, "env_steps": 384, "time": 0.0}
        resumed |= {"resume_schedule": "extend", "exact_resume": True, "total_updates": 4, "lr": {}}
        resumed |= {"lr_before": {}, "broken": [], "changed": {"policy_lr": [0.003, 0.001]}}
        others = [event for event in others if event["event"] != "evaluation_completed"]
        (run / "events.jsonl").write_text("\n".join(map(json.dumps, [started, resumed, *others, evaluation])))
        card = make_card(run, REPO, shared_files(run))
        assert "Changed at update 3: `policy_lr 0.003 to 0.001`" in card
        assert ModelCard(card).data.eval_results is None
        assert re.search(r"\| latest \| \d+ \| nan \|", card)

    def test_settings_that_are_none(self, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = run / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "speed": 3}))
        assert refused(capsys, "push", "run", REPO) == "run/config.json: speed is no setting"

    def test_the_interval_of_a_mean(self) -> None:
        # Of 1 to 5: mean 3, variance 10 / 5 = 2, so a standard error of sqrt(2 / 4) = 0.70711; t(4) is 2.77645.
        low, high = interval_from_moments(3.0, 2**0.5, 5)
        assert (low, high) == pytest.approx((3 - 1.96324, 3 + 1.96324), abs=1e-5)

    def test_a_folder_in_place_of_an_upload(self, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["push", "run", REPO, "--output", "out"]) == 0
        assert names_in(Path("out")) == {"README.md", *SHARED}
        assert capsys.readouterr().out.startswith("card     out/README.md\n")
        assert refused(capsys, "push", "run", REPO, "--output", "out") == "out: File exists"


class TestRefusedPushes:
    def test_what_is_no_run(self, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert refused(capsys, "push", "nowhere", REPO) == "nowhere: No such file or directory"
        (run / "policy.json").unlink()
        assert (
            refused(capsys, "push", "run", REPO) == "run: has no policy.json; give the folder of a run that has ended"
        )

    def test_a_broken_policy_and_record(self, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (run / "best" / "policy.safetensors").write_bytes(b"no")
        assert refused(capsys, "push", "run", REPO).startswith("run/best/policy.safetensors: not a complete")
        shutil.rmtree(run / "best")
        record = run / "events.jsonl"
        record.write_text("".join(record.read_text().splitlines(keepends=True)[1:]))
        assert refused(capsys, "push", "run", REPO).startswith("run: events.jsonl does not begin with run_started")

    def test_a_link_in_the_run(self, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (run / "episode.gif").symlink_to("/etc/hostname")
        assert refused(capsys, "push", "run", REPO) == "run/episode.gif: is a link"

    def test_a_file_that_nobody_could_pull(self, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with (run / "episode.gif").open("wb") as file:
            file.truncate(2**28 + 1)
        says = "run: episode.gif has 268,435,457 bytes; at most 268,435,456 are shared"
        assert refused(capsys, "push", "run", REPO) == says

    @pytest.mark.parametrize("repo", ["cart", "me/cart/x", "../cart", "me/..", "me/", "https://huggingface.co/me/cart"])
    def test_names_that_are_no_repository(self, run: Path, repo: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert refused(capsys, "push", "run", repo).startswith(f"{repo}: must be OWNER/NAME")
        assert refused(capsys, "pull", repo).startswith(f"{repo}: must be OWNER/NAME")

    def test_names_that_the_library_refuses(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert refused(capsys, "pull", "me/a--b").startswith("me/a--b: ")

    def test_without_a_token(
        self, run: Path, hub: LocalHub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.delenv("HF_TOKEN")
        assert refused(capsys, "push", "run", REPO).startswith("me/cart: there is no token to write with; log in with")
        assert hub.asked == []

    def test_a_hub_that_refuses(self, run: Path, hub: LocalHub, capsys: pytest.CaptureFixture[str]) -> None:
        hub.refuses = 403
        assert refused(capsys, "push", "run", REPO) == "me/cart: the Hub answers 403: not today at all"


class TestStrangers:
    @pytest.fixture(autouse=True)
    def pushed(self, run: Path, hub: LocalHub) -> None:
        assert main(["push", "run", REPO]) == 0

    def test_other_names_are_left_out(self, hub: LocalHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        strange = ["../evil.py", "/etc/evil", "best/../../evil", "report/../x.png", "report/x.html", "conftest.py"]
        hub.files |= dict.fromkeys(strange, b"evil") | {"\x1b[2Jname": b"", ".gitattributes": b""}
        before = names_in(tmp_path)
        assert main(["pull", REPO, "mine"]) == 0
        assert names_in(tmp_path) - before == {f"mine/{name}" for name in ("README.md", *SHARED)}
        out = capsys.readouterr().out
        assert out.startswith("left out \\x1b[2Jname, ../evil.py, /etc/evil, best/../../evil, conftest.py and 2 more: ")
        assert not any("evil" in path for path in hub.asked)

    def test_files_over_their_limit_are_not_downloaded(self, hub: LocalHub, capsys: pytest.CaptureFixture[str]) -> None:
        hub.announced["policy.safetensors"] = 10**12
        says = "me/cart: policy.safetensors has 1,000,000,000,000 bytes; at most 8,589,934,592 are shared"
        assert refused(capsys, "pull", REPO) == says
        assert not any("resolve" in path for path in hub.asked)
        assert not Path("cart").exists()

    def test_files_that_are_larger_than_announced(self, hub: LocalHub, capsys: pytest.CaptureFixture[str]) -> None:
        hub.files["config.json"], hub.announced["config.json"] = b"1" * (2**20 + 1), 5
        capsys.readouterr()
        with pytest.raises(SystemExit):
            main(["pull", REPO])
        assert "config.json has 1,048,577 bytes; at most 1,048,576 are shared" in capsys.readouterr().err
        assert {path.name for path in Path().iterdir()} == {"run"}

    def test_a_link_that_the_library_would_leave(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The library writes files; a link there, by whomever, is not taken for one."""

        def link(api: object, repo: str, name: str, *, revision: str, local_dir: Path) -> None:
            (local_dir / name).parent.mkdir(exist_ok=True)
            (local_dir / name).symlink_to("/etc/hostname")

        monkeypatch.setattr(HfApi, "hf_hub_download", link)
        assert refused(capsys, "pull", REPO).endswith("is a link")
        assert {path.name for path in Path().iterdir()} == {"run"}

    def test_a_git_link_is_a_file_of_text(self, hub: LocalHub) -> None:
        """The Hub serves a link of git as a file with its target."""
        hub.files["README.md"] = b"/etc/passwd"
        assert main(["pull", REPO]) == 0
        assert not (Path("cart") / "README.md").is_symlink()
        assert (Path("cart") / "README.md").read_bytes() == b"/etc/passwd"

    def test_many_pictures(self) -> None:
        assert len(shared([f"report/own-{number}.png" for number in range(1000)])) == 20

    def test_a_repository_without_a_run(self, hub: LocalHub, capsys: pytest.CaptureFixture[str]) -> None:
        del hub.files["events.jsonl"]
        assert refused(capsys, "pull", REPO) == "me/cart: is no run of esper push: it has no events.jsonl"

    def test_a_repository_that_is_not_there(self, hub: LocalHub, capsys: pytest.CaptureFixture[str]) -> None:
        hub.exists = False
        assert refused(capsys, "pull", REPO).startswith("me/cart: there is no such repository, or it is private")

    @pytest.mark.parametrize("folder", ["run", ".", ".."])
    def test_folders_that_exist(self, hub: LocalHub, folder: str, capsys: pytest.CaptureFixture[str]) -> None:
        hub.asked.clear()
        assert refused(capsys, "pull", REPO, folder) == f"{folder}: exists; name a new folder"
        assert hub.asked == []

    def test_a_folder_in_a_folder_that_is_missing(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["pull", REPO, "a/b"]) == 0
        assert Path("a/b/policy.safetensors").is_file()
        Path("file").touch()
        assert refused(capsys, "pull", REPO, "file/b") == "file: is no folder"


class TestNoNetwork:
    def test_nobody_answers(
        self, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
        for command in (["push", "run", REPO], ["pull", REPO]):
            assert refused(capsys, *command).startswith("me/cart: http://127.0.0.1:9 cannot be reached: ")

    def test_an_answer_that_is_not_of_a_hub(
        self, hub: LocalHub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(hub, "answer", lambda method, path, body: (200, {}, b"<html>log in</html>"))
        assert refused(capsys, "pull", REPO).startswith("me/cart: ")

    @pytest.mark.parametrize("command", [["push", "run", REPO], ["pull", REPO]])
    def test_the_librarys_offline_mode(self, run: Path, command: list[str]) -> None:
        env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_TOKEN": "hf_of_a_test"}
        ended = subprocess.run([sys.executable, "-m", "esper", *command], env=env, capture_output=True, text=True)
        assert ended.returncode == 2
        says = "me/cart: HF_HUB_OFFLINE is set, so the Hub is not asked"
        assert ended.stderr == f"esper {command[0]}: error: {says}\n"

    def test_without_the_extra(
        self, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.delitem(sys.modules, "esper.hub.remote")
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)
        for command in (["push", "run", REPO], ["pull", REPO]):
            assert refused(capsys, *command) == "needs huggingface_hub; pip install 'esper-simic[hub]'"


def test_the_commands_of_the_page_exist() -> None:
    page = (Path(__file__).parents[2] / "docs" / "share.md").read_text()
    commands = re.findall(r"^(esper [^#\n]*)", page, re.MULTILINE)
    assert len(commands) >= 5
    for command in commands:
        make_parsers()[0].parse_args(shlex.split(command)[1:])


def events(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]


def settings_of_command(command: str) -> dict[str, object]:
    """What the run of `command` would record."""
    program, *arguments = shlex.split(command)
    assert program == "esper"
    args = make_parsers(help_all=True)[0].parse_args(arguments)
    return as_recorded(resolve(with_preset(args.preset, [flag_layer(args)])).config)
