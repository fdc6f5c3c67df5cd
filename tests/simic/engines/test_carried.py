"""Kernels that a wheel carries, for machines without a compiler."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch

import probes
from esper.runs.versions import other_arithmetic, versions_of
from esper.settings.options import ConfigError
from esper.simic.config import NetworkConfig, PPOConfig, RuntimeConfig
from esper.simic.engines.native import carried, library
from esper.simic.engines.native.levels import FLAGS, LEVELS, STATIC, file_name, levels_of
from esper.simic.ppo import PPOAgent

# /proc/cpuinfo of a Sandy Bridge and of a Haswell, shortened.
OLD = "fpu sse sse2 pni ssse3 cx16 sse4_1 sse4_2 popcnt lahf_lm avx xsave"
NEWER = f"{OLD} abm avx2 bmi1 bmi2 f16c fma movbe"


def test_levels_of_processors() -> None:
    assert levels_of(OLD.split()) == ["x86-64-v2"]
    assert levels_of(NEWER.split()) == ["x86-64-v3", "x86-64-v2"]
    # Some with AVX-512 lack parts of it.
    assert levels_of([*NEWER.split(), "avx512f"]) == ["x86-64-v3", "x86-64-v2"]
    assert levels_of(["fpu"]) == []


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """None, and a folder of a wheel without kernels for this processor."""
    compiler = library.find_compiler()
    if not carried._levels():
        pytest.skip("needs an x86-64 processor")
    monkeypatch.setattr(carried, "_FOLDER", tmp_path)
    library._carried.cache_clear()
    lowest = list(LEVELS)[-1]
    source = Path(library.__file__).parent / "kernels" / "esper.cpp"
    target = tmp_path / "made" / file_name(lowest)
    target.parent.mkdir()
    command = [*compiler, *FLAGS, f"-march={lowest}", *STATIC, str(source), "-o", str(target)]
    subprocess.run([part if part != "-O3" else "-O1" for part in command], check=True)
    monkeypatch.setenv("CXX", "no-such-compiler")
    return target


def make_agent(compile: str) -> PPOAgent:
    config = PPOConfig(
        num_envs=probes.NUM_ENVS,
        num_steps=8,
        network=NetworkConfig(hidden_sizes=(8,)),
        runtime=RuntimeConfig(compile=compile),  # type: ignore[arg-type]
    )
    return PPOAgent(config, probes.RewardByObservation().spec)


def test_without_a_compiler_those_of_the_wheel_compute(no_compiler: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="is not available: a C"):
        make_agent("native")
    library._carried.cache_clear()
    monkeypatch.setattr(carried, "_FOLDER", no_compiler.parent)
    ours, theirs = make_agent("native"), make_agent("off")
    assert versions_of(ours)["kernels"] == "x86-64-v2"
    assert "kernels" not in versions_of(theirs)
    obs, actions = torch.randn(16, 1), torch.zeros(16, dtype=torch.int64)
    for found, expected in zip(*(agent.updater.engine.evaluate(obs, actions) for agent in (ours, theirs)), strict=True):
        torch.testing.assert_close(found, expected)
    library._carried.cache_clear()


def test_what_rounds_differently_is_named() -> None:
    stored = {"esper": "1", "torch": "2.12", "kernels": "x86-64-v3"}
    assert other_arithmetic(stored, {"esper": "2", "torch": "2.12", "kernels": "x86-64-v3"}) == []
    assert other_arithmetic(stored, {"torch": "2.13", "kernels": "native-0123"}) == [
        "torch 2.12, now 2.13",
        "kernels x86-64-v3, now native-0123",
    ]
    # Checkpoints of earlier versions do not say.
    assert other_arithmetic({"torch": "2.12"}, {"torch": "2.12", "kernels": "native-0123"}) == []
