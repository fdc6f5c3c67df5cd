"""What the README and docs/policies.md show in Python is what happens, and links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from esper.envs.base import DiscreteActions, Vectors
from esper.envs.config import EnvConfig
from esper.policies.export import export_policy
from esper.policies.policy import Policy
from esper.simic.config import NetworkConfig
from esper.simic.nets.actor_critic import ActorCritic

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")


def python_example(page: str, *, having: str = "") -> str:
    code: str
    (code,) = [
        found for found in re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL) if having in found
    ]
    return code


def test_the_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code = python_example("README.md")
    for steps, fewer in (("100_000", "2_048"), ("200_000", "4_096")):
        assert f"total_timesteps={steps}" in code
        code = code.replace(f"total_timesteps={steps}", f"total_timesteps={fewer}")
    names: dict[str, Any] = {}
    exec(code, names)
    # Two updates of 1,024 steps, and two more.
    assert names["run"].updates["env_steps"].tolist() == [1024, 2048, 3072, 4096]
    assert re.search(r"^\[\d+\.0(, \d+\.0){19}\]$", capsys.readouterr().out, re.MULTILINE)


def test_an_exported_policy_runs_without_esper(tmp_path: Path) -> None:
    network = ActorCritic(
        Vectors(size=4), DiscreteActions(n=2), NetworkConfig(hidden_sizes=(8,)), torch.Generator().manual_seed(0)
    )
    export_policy(Policy(network=network, environment=EnvConfig()), tmp_path / "policy.pt2")
    code = python_example("docs/policies.md", having="torch.export")
    assert len(list(filter(None, code.splitlines()))) == 3
    before = "import sys, torch; sys.modules['esper'] = None; observations = torch.linspace(-1, 1, 12).reshape(3, 4)\n"
    command = [sys.executable, "-c", f"{before}{code}print(actions.tolist())"]
    result = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path)
    assert result.stdout.strip() == str(network.act(torch.linspace(-1, 1, 12).reshape(3, 4)).tolist())


@pytest.mark.parametrize("page", [*PAGES, *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))])
def test_links_and_pictures_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if not target.startswith("http"):
            assert ((ROOT / page).parent / target.partition("#")[0]).exists(), target
