"""What CONTRIBUTING.md says of additions: one name in one place, and flags, networks and resume know it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import esper

SOURCE = Path(esper.__file__).parent
SHORT = "--env CartPole-v1 --preset none --num-envs 2 --num-steps 8 --num-minibatches 1 --total-timesteps 32 --quiet "
SHORT += "--no-picture --no-tensorboard"


def trained(tmp_path: Path, addition: str, flags: str) -> str:
    """What a program prints that makes an `addition`, and then trains two updates with `flags` and goes on with two."""
    code = f"""
{addition}
from esper.scripts.train import main
from esper.policies.policy import load_policy
assert main("ppo --run-dir run {SHORT} {flags}".split()) == 0
assert main("ppo --resume run --total-timesteps 64 --quiet".split()) == 0
print(load_policy("run").network)
"""
    program = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert program.returncode == 0, program.stderr
    return program.stdout


def test_an_activation_is_an_entry(tmp_path: Path) -> None:
    """The kernels do not declare it: it is torch's."""
    addition = "from esper.simic.nets import activations; activations.ACTIVATIONS['mish'] = 'torch.nn:Mish'"
    assert "Mish()" in trained(tmp_path, addition, "--activation mish --compile auto")


def test_an_encoder_is_an_entry(tmp_path: Path) -> None:
    addition = "from esper.simic.nets import encoders; from torch import nn\n"
    addition += "encoders._LAYERS['pooled'] = lambda channels: nn.Sequential(nn.MaxPool2d(3), nn.Flatten())"
    flags = "--env MinAtar/Breakout-v1 --encoder pooled"
    assert "MaxPool2d" in trained(tmp_path, addition, flags)


TERM = 'LossTerm("log_ratio_penalty", lambda inputs: inputs.ratio.log().square().mean(), lambda inputs: {coefficient})'


def updates(run: Path) -> list[dict[str, Any]]:
    events = map(json.loads, (run / "events.jsonl").read_text().splitlines())
    return [event for event in events if event["event"] == "update_completed"]


def penalty(update: dict[str, Any]) -> float:
    """What of the loss is no known term, to about 1e-6; the entropy has no weight here."""
    return float(update["loss"] - update["policy_loss"] - 0.5 * update["value_loss"])


def test_a_loss_term_is_an_entry(tmp_path: Path) -> None:
    """The kernels do not declare it: it is torch's."""
    addition = "from esper.simic import losses; from esper.simic.losses import LossTerm\n"
    addition += f"losses.LOSS_TERMS += ({TERM.format(coefficient=1e4)},)"
    trained(tmp_path, addition, "--compile auto")
    assert [penalty(update) > 1e-4 for update in updates(tmp_path / "run")] == [True] * 4


def test_a_loss_term_with_a_setting_is_an_entry_and_a_field(tmp_path: Path) -> None:
    shutil.copytree(SOURCE, tmp_path / "esper", ignore=shutil.ignore_patterns("__pycache__"))

    def add(line: str, file: str, after: str) -> None:
        path = tmp_path / "esper" / "simic" / file
        before, found, rest = path.read_text().partition(after)
        path.write_text(f"{before}{found}    {line}\n{rest}")
        assert found

    add(
        'log_ratio_coef: float = option(0.0, "weight of the squared log ratio")',
        "config.py",
        '    group: ClassVar[str] = "ppo"\n',
    )
    add(TERM.format(coefficient="inputs.config.log_ratio_coef") + ",", "losses.py", "LOSS_TERMS = (\n")

    def trainer(arguments: str) -> str:
        command = [sys.executable, "-m", "esper.scripts.train", "ppo", *arguments.split()]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        return ended.stdout + ended.stderr

    assert "weight of the squared log ratio (default: 0)" in " ".join(trainer("--help").split())
    assert not trainer(f"--run-dir run {SHORT} --log-ratio-coef 1e4")
    assert not trainer("--resume run --total-timesteps 64 --quiet")
    assert [penalty(update) > 1e-4 for update in updates(tmp_path / "run")] == [True] * 4
    assert json.loads((tmp_path / "run" / "config.json").read_text())["log_ratio_coef"] == 1e4
    assert "log_ratio_coef: 10000, now 1" in trainer("--resume run --total-timesteps 96 --quiet --log-ratio-coef 1")
