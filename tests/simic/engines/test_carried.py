"""Kernels that a wheel carries: which are loaded, and that they compute."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import probes
from esper.runs.versions import other_arithmetic, versions_of
from esper.settings.options import ConfigError
from esper.simic.config import NetworkConfig, PPOConfig, RuntimeConfig
from esper.simic.engines.native import carried, library
from esper.simic.engines.native.levels import FLAGS, STATIC, file_name, levels_of
from esper.simic.ppo import PPOAgent
from kernels import Place

# /proc/cpuinfo of a Sandy Bridge and of a Haswell, shortened.
OLD = "fpu sse sse2 pni ssse3 cx16 sse4_1 sse4_2 popcnt lahf_lm avx xsave"
NEWER = f"{OLD} abm avx2 bmi1 bmi2 f16c fma movbe"


def test_levels_of_processors() -> None:
    assert levels_of("x86_64", OLD.split()) == ["x86-64-v2"]
    assert levels_of("x86_64", NEWER.split()) == ["x86-64-v3", "x86-64-v2"]
    # Some with AVX-512 lack parts of it.
    assert levels_of("x86_64", [*NEWER.split(), "avx512f"]) == ["x86-64-v3", "x86-64-v2"]
    assert levels_of("x86_64", ["fpu"]) == []
    assert levels_of("aarch64", ["fp", "asimd"]) == ["armv8-a"]
    assert levels_of("riscv64", NEWER.split()) == []


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Where the wheel carries kernels: none so far."""
    if not carried._levels():
        pytest.skip("wheels carry none for this processor")
    folder = tmp_path / "carried"
    folder.mkdir()
    monkeypatch.setattr(carried, "_FOLDER", folder)
    library._carried.cache_clear()
    yield folder
    library._carried.cache_clear()


def test_those_of_the_wheel_are_taken_beside_a_compiler(here: Place, made: Path, folder: Path) -> None:
    shutil.copy(made, folder / file_name(carried._levels()[0]))
    assert library.load_library().variant.startswith(f"{carried._levels()[0]}-")
    assert here.compilations() == 0


def test_the_variant_tells_builds_of_a_level_apart(made: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variants = set()
    for name in ("one", "other"):
        monkeypatch.setattr(carried, "_FOLDER", folder / name)
        (folder / name).mkdir()
        (folder / name / file_name(carried._levels()[0])).write_bytes(made.read_bytes() + name.encode())
        found = carried.load_carried()
        assert found is not None
        variants.add(found[1])
    assert len(variants) == 2


def test_without_any_that_can_be_loaded_they_are_compiled(
    here: Place, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / file_name(carried._levels()[0])).write_text("no library")
    assert library.load_library().variant.startswith("native-")
    assert here.compilations() == 1
    assert "the kernels of this wheel cannot be loaded" in caplog.text


def make_agent(compile: str) -> PPOAgent:
    config = PPOConfig(
        num_envs=probes.NUM_ENVS,
        num_steps=8,
        network=NetworkConfig(hidden_sizes=(8,)),
        runtime=RuntimeConfig(compile=compile),  # type: ignore[arg-type]
    )
    return PPOAgent(config, probes.RewardByObservation().spec)


def test_without_a_compiler_those_of_the_wheel_compute(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lowest = carried._levels()[-1]
    source = Path(library.__file__).parent / "kernels" / "esper.cpp"
    command = [*library.find_compiler(), *FLAGS, f"-march={lowest}", *STATIC, str(source), "-o"]
    command = [part if part != "-O3" else "-O1" for part in command]
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match="is not available: a C"):
        make_agent("native")
    library._carried.cache_clear()
    subprocess.run([*command, str(folder / file_name(lowest))], check=True)
    ours, theirs = make_agent("native"), make_agent("off")
    assert versions_of(ours)["kernels"].startswith(f"{lowest}-")
    assert "kernels" not in versions_of(theirs)
    obs, actions = torch.randn(16, 1), torch.zeros(16, dtype=torch.int64)
    for found, expected in zip(*(agent.updater.engine.evaluate(obs, actions) for agent in (ours, theirs)), strict=True):
        torch.testing.assert_close(found, expected)


def test_what_rounds_differently_is_named() -> None:
    stored = {"esper": "1", "torch": "2.12", "kernels": "x86-64-v3"}
    assert other_arithmetic(stored, {"esper": "2", "torch": "2.12", "kernels": "x86-64-v3"}) == []
    assert other_arithmetic(stored, {"torch": "2.13", "kernels": "native-0123"}) == [
        "torch 2.12, now 2.13",
        "kernels x86-64-v3, now native-0123",
    ]
    # Checkpoints of earlier versions do not say.
    assert other_arithmetic({"torch": "2.12"}, {"torch": "2.12", "kernels": "native-0123"}) == []
