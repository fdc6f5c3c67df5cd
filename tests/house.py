"""The sizes of a checkout's sources, as a table: `python tests/house.py [FOLDER]`.

With `--run`, also how many modules a small training passes, and how often the call stack enters another one, from the
command's beginning to its first update.
"""

from __future__ import annotations

import argparse
import ast
import subprocess
import sys
import tempfile
from pathlib import Path

# Counts frames of functions of esper, called after everything is imported; a switch is a call into another module.
_TRACE = """
import sys, esper.scripts.train as train
import esper
seen, switches, root = set(), 0, esper.__file__.removesuffix("__init__.py")
def look(frame, event, argument):
    global switches
    if event != "call" or "<" in frame.f_code.co_name[:1]:
        return
    here, caller = frame.f_code.co_filename, frame.f_back
    if here.startswith(root):
        seen.add(here)
        while caller is not None and not caller.f_code.co_filename.startswith(root):
            caller = caller.f_back
        switches += caller is not None and caller.f_code.co_filename != here
command = "ppo --quiet --env torch/CartPole-v1 --compile off --total-timesteps 1024 --no-tensorboard --no-picture"
def trace(run_dir):
    train.main([*command.split(), "--run-dir", run_dir + "/first"])  # what it imports is imported by now
    sys.setprofile(look)
    train.main([*command.split(), "--run-dir", run_dir + "/second"])
    sys.setprofile(None)
    print(len(seen), switches)
trace(sys.argv[1])
"""


def measure(folder: Path) -> dict[str, object]:
    """What is counted in the package below `folder`/src/esper."""
    package = folder / "src" / "esper"
    paths = sorted(package.rglob("*.py"))
    lines = {path: path.read_text().count("\n") for path in paths}
    functions = {}
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                functions[f"{path.relative_to(package)}: {node.name}"] = node
    length = {name: (node.end_lineno or 0) - node.lineno + 1 for name, node in functions.items()}
    width = {name: len(node.args.args) + len(node.args.kwonlyargs) for name, node in functions.items()}
    packages = {path.parent for path in paths}
    longest = {str(path.relative_to(package)): count for path, count in lines.items()}
    return {
        "packages (rooms)": len(packages),
        "modules": len(paths),
        "modules at the root": sum(path.parent == package and path.name != "__init__.py" for path in paths),
        "most modules in one package": _most({room.name: sum(p.parent == room for p in paths) for room in packages}),
        "lines": sum(lines.values()),
        "lines of the kernels": sum(p.read_text().count("\n") for p in package.rglob("kernels/*")),
        "imports between modules": sum(len(_imports(path, package)) for path in paths),
        "imports between packages": len({pair for path in paths for pair in _crossings(path, package)}),
        "longest file": _most(longest),
        "longest function": _most(length),
        "widest signature": _most(width),
    }


def _most(counts: dict[str, int]) -> str:
    name = max(counts, key=lambda each: counts[each])
    return f"{counts[name]} ({name})"


def _imports(path: Path, package: Path) -> set[Path]:
    """The modules of the package that `path` imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{name}" for name in names] + [node.module or ""]
        for name in names:
            place = package.parent.joinpath(*name.split("."))
            found |= {file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()}
    return found - {path}


def _crossings(path: Path, package: Path) -> set[tuple[Path, Path]]:
    return {(path.parent, other.parent) for other in _imports(path, package) if other.parent != path.parent}


def trace(folder: Path) -> dict[str, object]:
    """What a training run enters."""
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-c", _TRACE, place]
        path = {"PYTHONPATH": str(folder / "src"), "PATH": "/usr/bin:/bin", "HOME": place}
        modules, switches = subprocess.run(command, env=path, check=True, capture_output=True, text=True).stdout.split()
    return {"modules that a run of one update enters": modules, "calls from one into another": switches}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path(__file__).parent.parent, help="a checkout")
    parser.add_argument("--run", action="store_true", help="also train")
    args = parser.parse_args()
    folder = args.folder.resolve()
    for name, value in {**measure(folder), **(trace(folder) if args.run else {})}.items():
        print(f"{name:40} {value}")


if __name__ == "__main__":
    main()
