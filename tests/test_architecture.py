"""Imports point down, and each third-party package has one home."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import esper

SOURCE = Path(esper.__file__).parent

# What any module may import: the version, and what opens files, which is below everything.
EVERYWHERE = {"esper", "esper.__version__", "esper.files"}
# What a module may import of esper, by the longest prefix that matches it.
MAY_IMPORT = {
    "esper": set(),
    "esper.options": set(),
    "esper.files": set(),
    "esper.policy_schema": {"esper.options", "esper.envs.base", "esper.envs.config", "esper.simic.config"},
    "esper.config": {
        *("esper.options", "esper.checkpoint.config", "esper.envs.config", "esper.simic.config"),
        "esper.telemetry.config",
    },
    "esper.settings": {"esper.options", "esper.config", "esper.simic.config", "esper.simic.schedule_config"},
    "esper.machine": set(),
    "esper.seeding": set(),
    "esper.progress": set(),
    "esper.stopping": set(),
    "esper.errors": set(),
    "esper.watched": {"esper.envs.base", "esper.errors", "esper.stopping"},
    "esper.run_folder": {"esper.options", "esper.config"},
    "esper.resume_rules": {"esper.config", "esper.settings", "esper.simic.config"},
    "esper.resume_upgrade": {"esper.simic.config"},
    "esper.resume": {
        *("esper.options", "esper.config", "esper.settings", "esper.resume_rules", "esper.resume_upgrade"),
        *("esper.run_folder", "esper.checkpoint"),
    },
    "esper.run_state": {
        *("esper", "esper.config", "esper.settings", "esper.resume", "esper.resume_upgrade", "esper.checkpoint"),
        *("esper.run_folder", "esper.envs.base", "esper.seeding", "esper.simic"),
    },
    "esper.run_events": {
        *("esper.config", "esper.envs.base", "esper.settings", "esper.resume", "esper.run_state"),
        *("esper.simic", "esper.telemetry.events"),
    },
    "esper.simic": {"esper.machine", "esper.options", "esper.seeding", "esper.simic", "esper.envs.base"},
    "esper.simic.vectorized": {"esper.seeding", "esper.simic", "esper.envs.base", "esper.telemetry.events"},
    "esper.envs": {
        *("esper.errors", "esper.machine", "esper.options", "esper.seeding", "esper.stopping", "esper.envs"),
    },
    "esper.checkpoint": {"esper.options", "esper.checkpoint"},
    "esper.telemetry": {"esper.errors", "esper.options", "esper.telemetry"},
    "esper.analysis": {
        *("esper.analysis", "esper.resume_rules", "esper.settings"),
        *("esper.telemetry.anomalies", "esper.telemetry.declared", "esper.telemetry.events", "esper.telemetry.jsonl"),
    },
    "esper.policy": {"esper.options", "esper.checkpoint", "esper.envs", "esper.policy_schema", "esper.simic"},
    "esper.evaluate": {
        *("esper.envs", "esper.options", "esper.policy", "esper.seeding", "esper.simic", "esper.stopping"),
        "esper.watched",
    },
    "esper.export": {"esper.envs.base", "esper.policy", "esper.simic.networks"},
    "esper.run_evaluation": {
        *("esper.config", "esper.envs.base", "esper.evaluate", "esper.progress"),
        *("esper.simic.vectorized", "esper.stopping", "esper.telemetry.events", "esper.watched"),
    },
    "esper.run": {
        "esper",
        "esper.options",
        "esper.config",
        "esper.settings",
        "esper.policy",
        *("esper.resume", "esper.resume_rules", "esper.run_folder", "esper.run_state"),
        *("esper.run_evaluation", "esper.run_events"),
        *("esper.errors", "esper.stopping", "esper.watched"),
        "esper.analysis",
        "esper.checkpoint",
        "esper.envs",
        "esper.simic",
        "esper.telemetry",
    },
    # What says which runs there are, and how far they are, is free of torch; what runs them is not.
    "esper.sweep": {"esper.sweep"},
    "esper.sweep.plan": {"esper.config", "esper.options", "esper.settings"},
    "esper.sweep.progress": {"esper.resume_rules", "esper.settings", "esper.sweep.plan"},
    "esper.sweep.job": {
        *("esper.checkpoint.store", "esper.options", "esper.resume", "esper.run", "esper.settings"),
        "esper.sweep",
    },
    "esper.sweep.cluster": {"esper.simic.schedules", "esper.sweep"},
    "esper.scripts": {"esper"},
}

HOMES = {
    "gymnasium": {
        *(
            "esper.envs.actions",
            "esper.envs.adopted",
            "esper.envs.given",
            "esper.envs.gym",
            "esper.envs.copies",
            "esper.envs.pool",
            "esper.envs.snapshot",
        ),
        *("esper.envs.atari", "esper.envs.families", "esper.envs.minatar", "esper.envs.minigrid"),
        *(
            "esper.envs.generators",
            "esper.envs.limits",
            *("esper.envs.adopted", "esper.envs.given", "esper.envs.making"),
            "esper.envs.masks",
            "esper.envs.modes",
            "esper.envs.native",
            "esper.envs.observations",
            "esper.envs.rules",
            "esper.envs.velocity",
            "esper.envs.window",
        ),
    },
    "minatar": {"esper.envs.minatar"},
    "minigrid": {"esper.envs.minigrid"},
    "pygame": {"esper.envs.window"},
    "envpool": {"esper.envs.pool"},
    "safetensors": {"esper.checkpoint.store"},
    "orjson": {"esper.telemetry.jsonl"},
    "tensorboardX": {"esper.telemetry.tensorboard"},
    "wandb": {"esper.telemetry.wandb"},
    "matplotlib": {"esper.analysis.plots", "esper.analysis.plots_comparison"},
    "plotext": {"esper.analysis.terminal"},
    "scipy": {"esper.analysis.statistics"},
    "ray": {"esper.sweep.cluster"},
    "rich": {"esper.telemetry.console", "esper.scripts.ppo", "esper.scripts.overview"},
    "PIL": {"esper.evaluate"},
}


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
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def below(name: str, roots: set[str]) -> bool:
    # A bare "esper" allows its own names (the version), not all below it, except to the command line.
    return any(name == root or (root != "esper" and name.startswith(f"{root}.")) for root in roots)


def test_imports_follow_the_arrows() -> None:
    wrong = []
    for module, path in modules().items():
        rule = max((prefix for prefix in MAY_IMPORT if below(module, {prefix})), key=len, default="esper")
        if rule == "esper.scripts":
            continue
        for name in imported(path):
            if name.split(".")[0] == "esper" and name not in EVERYWHERE and not below(name, MAY_IMPORT[rule]):
                wrong += [f"{module} -> {name}"]
    assert not wrong


def test_nothing_below_imports_the_command_line() -> None:
    for module, path in modules().items():
        if not below(module, {"esper.scripts"}):
            assert not any(below(name, {"esper.scripts"}) for name in imported(path)), module


def test_each_package_has_one_home() -> None:
    for module, path in modules().items():
        for name in imported(path):
            package = name.split(".")[0]
            assert module in HOMES.get(package, {module}), f"{module} imports {package}"


def test_help_settings_and_analysis_import_no_torch() -> None:
    code = (
        "import sys, esper.scripts.train, esper.settings, esper.resume_rules, esper.simic.schedules, "
        "esper.analysis.runs, esper.analysis.comparison, esper.telemetry.events; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_files_and_functions_stay_short() -> None:
    for module, path in modules().items():
        text = path.read_text()
        assert text.count("\n") <= 350, module
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 60, f"{module}.{node.name}"
                assert len(node.args.args) + len(node.args.kwonlyargs) <= 8, f"{module}.{node.name}"
