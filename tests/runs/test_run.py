"""Folders of runs are text or paths, for whoever calls from Python."""

from __future__ import annotations

from pathlib import Path

import pytest

from esper.policies.policy import load_policy
from esper.runs.config import RunConfig
from esper.runs.layers import Layer
from esper.runs.run import resume_run, run
from esper.settings.options import ConfigError
from esper.simic import PPOConfig, RuntimeConfig
from esper.telemetry.config import TelemetryConfig


@pytest.mark.parametrize("kind", [str, Path])
def test_folders_are_text_or_paths(tmp_path: Path, kind: type[str] | type[Path]) -> None:
    ppo = PPOConfig(num_envs=2, num_steps=8, total_timesteps=32, runtime=RuntimeConfig(compile="off"))
    config = RunConfig(run_dir=kind(tmp_path / "run"), ppo=ppo, telemetry=TelemetryConfig(), picture=False, quiet=True)
    assert run(config).run_dir == tmp_path / "run"
    more = Layer(source="here", values={"total_timesteps": 64})
    _, result = resume_run(kind(tmp_path / "run"), [more])
    assert result.train.env_steps == 64
    assert load_policy(kind(tmp_path / "run")).updates == 4


def test_a_folder_of_another_kind() -> None:
    with pytest.raises(ConfigError, match="run_dir = 3: must be text or a path"):
        RunConfig(run_dir=3)  # type: ignore[arg-type]
