"""Every command of a page is run here or by another test, or it is named with the reason why not."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from esper.scripts.train import main

ROOT = Path(__file__).parent.parent
# tests/test_docs.py does what these have as `sh`, from the first line to the last.
FOLLOWED = {"tutorial.md", "custom-environments.md"}
PROGRAMS = ("esper", "python", "python3", "make", "pip", "pytest", "docker", ".")

# By how a command begins.
NOT_RUN = {
    "pip install": "changes the environment of the tests",
    "python3 -m venv": "makes an environment",
    "ESPER_CARRY_KERNELS=1 pip wheel": "minutes of a compiler; tests/test_wheels.py builds with one that takes no time",
    "CXX=aarch64-linux-gnu-g++": "needs a cross compiler; tests/test_wheels.py builds such a wheel",
    "docker": "needs a container engine; tests/test_dockerfile.py reads the file",
    ". .venv/bin/activate": "changes the shell",
    "make": "installs, or is what runs these tests; .ci/run calls it",
    "pytest": "is what runs these tests",
    "python benchmarks/": "hours of measuring, or what draws its results; tests/ has tests of its parts",
    "esper ppo --resume": "tests/runs/resume resumes runs in each of these ways",
    "PYTHONPATH=. esper": "tests/test_docs.py runs those of schedules.md",
    "esper sweep": "hours; tests/sweep runs sweeps, stops and resumes them, also on a Ray cluster",
    "esper tune": "minutes; tests/tune runs searches",
    "esper push": "needs an account of the hub; tests/hub pushes to a folder",
    "esper pull": "needs the hub; tests/hub pulls from a folder",
    "esper evaluate NAME": "is of a run that was pulled",
    "esper report runs/theirs": "is of a run that was pulled",
    "esper heuristic": "tests/envs/growth/test_heuristic.py runs it",
    "python -m esper.scripts.train heuristic": "tests/envs/growth/test_heuristic.py runs it",
    "esper report runs/growth": "tests/envs/growth/test_heuristic.py reports such runs",
    "esper compare runs/growth": "tests/envs/growth/test_heuristic.py compares such runs",
    "esper watch runs --once": "needs the extra pages; tests/watch writes this page",
    "esper watch": "serves until Ctrl-C; tests/watch runs it",
    "esper export RUN --output policy.onnx": "needs the extra onnx; tests/policies exports it",
    "esper ppo --config runs/tune-pendulum/best.toml": "is of a search; tests/tune trains with such a file",
}
# What the commands below are about: runs of CartPole by these names.
RUNS = ("RUN", "A", "B", "C", "runs/first", "runs/constant/1", "runs/constant/2", "runs/cosine/1", "runs/cosine/2")
SHORT = "--num-envs 2 --num-steps 16 --num-minibatches 2 --total-timesteps 64 --no-picture --no-tensorboard --quiet"


def commands(page: Path) -> Iterator[str]:
    for language, text in re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
        if language not in ("", "sh"):
            continue
        for line in text.replace("\\\n", " ").splitlines():
            command = line.partition("  #")[0].partition(" # ")[0].strip()
            program = re.sub(r"^(\w+=\S+ )*", "", command).partition(" ")[0]
            if program in PROGRAMS and not (language and page.name in FOLLOWED):
                yield command


PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
ALL = {command: None for page in PAGES for command in commands(page)}
BY_OTHERS = [command for command in ALL if command.startswith(tuple(NOT_RUN))]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("commands")
    for seed, run in enumerate(RUNS, 1):
        # Those of an arm differ in their seeds alone.
        number = run.rpartition("/")[2] if run.count("/") == 2 else seed
        given = ["--env", "CartPole-v1", *shlex.split(SHORT), "--seed", str(number), "--run-dir", str(folder / run)]
        assert main(["ppo", *given]) == 0
    shutil.copytree(ROOT / "docs", folder / "docs", ignore=lambda *_: ["images", "results"])
    (folder / "my_networks.py").write_text("import torch\n\n\ndef wide(shape):\n    return torch.nn.Flatten()\n")
    return folder


# SWIG's types of Box2D; an error while it is imported ends the process.
@pytest.mark.filterwarnings("ignore:builtin type .* has no __module__:DeprecationWarning")
@pytest.mark.parametrize("command", [command for command in ALL if command not in BY_OTHERS])
def test_a_command_of_a_page_works(
    command: str, trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What trains is read up to its settings; everything else is run, on short runs of CartPole."""
    monkeypatch.chdir(trained)
    monkeypatch.syspath_prepend(trained)
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    program, name, *arguments = shlex.split(re.sub(r"^MLFLOW_\w+=\S+ ", "", command.partition(" > ")[0]))
    assert program == "esper"
    if name == "ppo":
        arguments.append("--print-config")
    if name in ("evaluate", "enjoy"):
        arguments += ["--episodes", "1"]
    if name == "evaluate" and "--env" in arguments:
        # The run of the page has its environment from a module.
        arguments[arguments.index("--env") + 1] = "CartPole-v1"
    assert main([name, *arguments]) == 0
    assert capsys.readouterr().out or name == "enjoy"


def test_what_is_not_run_is_on_a_page() -> None:
    for beginning, reason in NOT_RUN.items():
        assert any(command.startswith(beginning) for command in BY_OTHERS), beginning
        for named in re.findall(r"tests/[\w/.]+", reason):
            assert (ROOT / named).exists(), named
