"""What CONTRIBUTING.md says of additions: one name in one place, and flags, networks and resume know it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
    addition = "from esper.simic.nets import activations; activations.ACTIVATIONS['silu'] = 'torch.nn:SiLU'"
    assert "SiLU()" in trained(tmp_path, addition, "--activation silu --compile auto")


def test_an_encoder_is_an_entry(tmp_path: Path) -> None:
    addition = "from esper.simic.nets import encoders; from torch import nn\n"
    addition += "encoders._LAYERS['pooled'] = lambda channels: nn.Sequential(nn.MaxPool2d(3), nn.Flatten())"
    flags = "--env MinAtar/Breakout-v1 --encoder pooled"
    assert "MaxPool2d" in trained(tmp_path, addition, flags)
