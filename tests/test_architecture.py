"""Imports point down, from room to room, and each third-party package has one home."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import esper

SOURCE = Path(esper.__file__).parent

# What the modules of a room may import of esper, beside the room itself: rooms, or single modules.
MAY_IMPORT = {
    "esper.system": set(),
    "esper.storage": {"esper.system"},
    "esper.settings": {"esper.storage"},
    "esper.schedules": {"esper.settings"},
    "esper.telemetry": {"esper.settings", "esper.storage", "esper.system"},
    "esper.envs": {"esper.settings", "esper.system"},
    "esper.simic": {
        *("esper.envs.base", "esper.schedules", "esper.settings", "esper.system"),
        *("esper.telemetry.episodes", "esper.telemetry.events", "esper.telemetry.metrics"),
    },
    "esper.policies": {"esper.envs", "esper.settings", "esper.simic", "esper.storage", "esper.system"},
    # Records alone, and what settings are called.
    "esper.analysis": {"esper.settings", "esper.storage", "esper.telemetry"},
    "esper.runs": {
        *(
            "esper.analysis.plots",
            "esper.analysis.plots_growth",
            "esper.analysis.runs",
            "esper.envs",
            "esper.policies",
            "esper.schedules",
            "esper.settings",
            "esper.simic",
        ),
        *("esper.storage", "esper.system", "esper.telemetry"),
    },
    "esper.sweep": {"esper.runs", "esper.schedules", "esper.settings", "esper.storage", "esper.system"},
    "esper.tune": {"esper.analysis", "esper.runs", "esper.settings", "esper.storage", "esper.sweep"},
    "esper.hub": {"esper.analysis", "esper.policies", "esper.runs", "esper.settings", "esper.storage"},
    "esper.watch": {"esper.analysis", "esper.runs", "esper.storage", "esper.telemetry"},
    "esper.scripts": {"esper"},
    "esper.__main__": {"esper.scripts"},
}

# A package's home: a module, or a room.
HOMES = {
    "gymnasium": {"esper.envs"},
    "minatar": {"esper.envs.families.minatar"},
    "minigrid": {"esper.envs.families.minigrid"},
    "sklearn": {"esper.envs.growth.data"},
    "pygame": {"esper.envs.window"},
    "envpool": {"esper.envs.families.envpool"},
    "safetensors": {"esper.storage.store"},
    "orjson": {"esper.telemetry.jsonl"},
    "tensorboardX": {"esper.telemetry.tensorboard"},
    "wandb": {"esper.telemetry.wandb"},
    "mlflow": {"esper.telemetry.mlflow"},
    "matplotlib": {"esper.analysis.drawing"},
    "pyarrow": {"esper.analysis.tables"},
    "plotly": {"esper.analysis.charts"},
    "plotext": {"esper.analysis.terminal"},
    "scipy": {"esper.analysis.statistics"},
    "ray": {"esper.sweep.cluster"},
    "optuna": {"esper.tune.search", "esper.tune.page"},
    "shtab": {"esper.scripts.completion"},
    "huggingface_hub": {"esper.hub.remote"},
    "rich": {"esper.telemetry.console", "esper.scripts.ppo", "esper.scripts.overview"},
    "imageio_ffmpeg": {"esper.policies.movies"},
    "PIL": {"esper.policies.movies", "esper.envs.growth.picture"},
}

# What answers without torch: the command line's help, settings, schedules, records, and how far runs are.
WITHOUT_TORCH = (
    *("esper.scripts.train", "esper.settings.options", "esper.schedules", "esper.telemetry.events"),
    *("esper.runs.config", "esper.runs.layers", "esper.runs.presets", "esper.runs.resume.rules"),
    *("esper.sweep.plan", "esper.sweep.progress"),
    *("esper.analysis.runs", "esper.analysis.comparison", "esper.watch.server"),
)


def modules() -> dict[str, Path]:
    return {
        ".".join(("esper", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in SOURCE.rglob("*.py")
    }


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "esper":
            found |= {f"esper.{alias.name}" for alias in node.names if alias.name != "__version__"}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def below(name: str, roots: set[str]) -> bool:
    return any(name == root or name.startswith(f"{root}.") for root in roots)


def room_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


def test_no_module_lies_loose_at_the_root() -> None:
    assert {path.name for path in SOURCE.glob("*.py")} == {"__init__.py", "__main__.py"}
    assert {room_of(module) for module in modules()} == {"esper", *MAY_IMPORT}


def test_imports_follow_the_arrows() -> None:
    wrong = [
        f"{module} -> {name}"
        for module, path in modules().items()
        for name in imported(path)
        # The door leads into every room.
        if module != "esper" and below(name, {"esper"})
        if not below(name, {room_of(module), *MAY_IMPORT[room_of(module)]})
    ]
    assert not wrong


def test_each_package_has_one_home() -> None:
    for module, path in modules().items():
        for name in imported(path):
            homes = HOMES.get(name.split(".")[0])
            assert homes is None or below(module, homes), f"{module} imports {name}"


def test_what_must_answer_at_once_imports_no_torch() -> None:
    code = f"import sys, {', '.join(WITHOUT_TORCH)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_names_that_programs_use_are_there() -> None:
    code = """
import sys
before = set(sys.modules)
import esper
loaded = {name.split(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names
assert loaded == {"esper"}, loaded
from esper import PPOAgent, PPOConfig, ScheduleConfig, load_policy, make_env, make_schedule, train_ppo_vectorized
from esper.simic import NetworkConfig, PPOAgent, PPOConfig, RuntimeConfig, ScheduleConfig, train_ppo_vectorized
from esper.simic.vectorized import train_ppo_vectorized
from esper.simic.schedules import CoefficientConfig, Schedule, ScheduleConfig, as_progress_callable, make_schedule
from esper.scripts.train import main
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_files_and_functions_stay_short() -> None:
    for module, path in modules().items():
        text = path.read_text()
        assert text.count("\n") <= 350, module
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 60, f"{module}.{node.name}"
                assert len(node.args.args) + len(node.args.kwonlyargs) <= 8, f"{module}.{node.name}"
