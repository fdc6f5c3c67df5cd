"""What the README shows is what happens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent


def test_the_python_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert "total_timesteps=100_000" in code
    names = {"observations": torch.zeros(3, 4)}
    exec(code.replace("total_timesteps=100_000", "total_timesteps=2_048"), names)
    assert names["actions"].shape == (3,)
    assert capsys.readouterr().out.count("UpdateCompleted(") == 2


@pytest.mark.parametrize(
    "page", ["README.md", "docs/schedules.md", "docs/results.md", "docs/resume.md", "docs/environments.md"]
)
def test_links_and_pictures_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if not target.startswith("http"):
            assert ((ROOT / page).parent / target).exists(), target
