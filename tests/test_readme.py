"""What the README shows is what happens."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from esper.envs.base import DiscreteActions, Vectors
from esper.envs.config import EnvConfig
from esper.policies.export import export_policy
from esper.policies.policy import Policy
from esper.simic.config import NetworkConfig
from esper.simic.nets.actor_critic import ActorCritic

ROOT = Path(__file__).parent.parent


def python_examples() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_the_python_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = python_examples()
    assert "total_timesteps=100_000" in code
    names = {"observations": torch.zeros(3, 4)}
    exec(code.replace("total_timesteps=100_000", "total_timesteps=2_048"), names)
    assert names["actions"].shape == (3,)
    assert capsys.readouterr().out.count("UpdateCompleted(") == 2


def test_an_exported_policy_runs_without_esper(tmp_path: Path) -> None:
    network = ActorCritic(
        Vectors(size=4), DiscreteActions(n=2), NetworkConfig(hidden_sizes=(8,)), torch.Generator().manual_seed(0)
    )
    export_policy(Policy(network=network, environment=EnvConfig()), tmp_path / "policy.pt2")
    _, code = python_examples()
    assert len(list(filter(None, code.splitlines()))) == 3
    before = "import sys, torch; sys.modules['esper'] = None; observations = torch.linspace(-1, 1, 12).reshape(3, 4)\n"
    command = [sys.executable, "-c", f"{before}{code}print(actions.tolist())"]
    result = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path)
    assert result.stdout.strip() == str(network.act(torch.linspace(-1, 1, 12).reshape(3, 4)).tolist())


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))])
def test_links_and_pictures_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if not target.startswith("http"):
            assert ((ROOT / page).parent / target.partition("#")[0]).exists(), target
