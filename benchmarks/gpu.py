"""Whether training on a GPU is right, and how fast it is: one command, offline, at most 8 minutes.

    python benchmarks/gpu.py --output docs/performance-gpu.json
    python benchmarks/gpu.py --device cpu --quick       # to see it run to its end, without a card

Parts run one after the other, each in a process and with a time limit of its own: what fails or takes too long loses
nothing else. Results are written after each of them, and what a part had found when its time was over is kept. Needs
Esper and torch; the tests need pytest, the comparison a JAX with a GPU (`--python-jax`), and are missing otherwise.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from throughput import end_group, machine

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
CHECKS = ("equality", "synchronisations", "rates")
# Names of workloads in gpu_throughput.py, which imports torch.
CARTPOLE = tuple(f"CartPole, {number} environments" for number in ("4,096", "512", "65,536"))
MINATAR = ("MinAtar Breakout, 1,024 environments",)
FRAMES = ("frames of 84x84x4, Nature, 256 environments",)
WIDE = ("CartPole, 1024x1024, 4,096 environments",)
END = "(?P<end>PASSED|FAILED|ERROR|SKIPPED)"
# A test and its end, without xdist and with it.
TESTS = (
    re.compile(rf"^tests/\S+?::(?P<name>.+?) {END}"),
    re.compile(rf"^\[gw\d+\].+?{END} tests/\S+?::(?P<name>.+?) *$"),
)


@dataclass(frozen=True, kw_only=True)
class Part:
    """What runs, for how many seconds at most, and what makes results of its lines."""

    command: list[str]
    limit: float
    read: Callable[[list[str]], list[dict[str, Any]]]
    needs: str | None = None


def environment(device: str) -> dict[str, Any]:
    """Versions, the machine, and the card as torch and the driver name it."""
    import torch

    found: dict[str, Any] = {
        "machine": machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "compilers": {name: shutil.which(name) for name in ("gcc", "clang", "g++")},
        "packages": {name: importlib.util.find_spec(name) is not None for name in ("triton", "pytest", "jax")},
        "driver": driver(),
    }
    if device != "cpu":
        cards = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        found["cards"] = [
            {
                "name": card.name,
                "memory_gib": round(card.total_memory / 2**30, 1),
                "capability": f"{card.major}.{card.minor}",
            }
            for card in cards
        ]
    return found


def driver() -> str | None:
    """What `nvidia-smi` says of the cards and the driver."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,clocks.max.sm,power.limit", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def from_json(lines: list[str]) -> list[dict[str, Any]]:
    """The lines that are JSON objects."""
    found = []
    for line in lines:
        try:
            value = json.loads(line)
        except json.JSONDecodeError:
            continue
        found += [value] if isinstance(value, dict) else []
    return found


def from_tests(lines: list[str]) -> list[dict[str, Any]]:
    """The tests that pytest named, and how they ended."""
    found = []
    for match in (pattern.match(line) for line in lines for pattern in TESTS):
        if match is not None:
            name, end = match["name"], match["end"]
            found.append({"name": name, "passed": end in ("PASSED", "SKIPPED"), "end": end.lower()})
    return found


def parts(args: argparse.Namespace) -> dict[str, Part]:
    """All of them, the most important first."""
    on_cpu = args.device == "cpu"
    seconds = ["--seconds", "0.1" if args.quick else "2.5"]
    common = ["--device", args.device, *(["--quick"] if args.quick else [])]

    def check(name: str) -> Part:
        engines = ["off"] if on_cpu else ["off", "torch", "graphs"] if name == "equality" else ["off", "graphs"]
        command = [sys.executable, str(HERE / "gpu_checks.py"), name, *common, "--engines", *engines]
        return Part(command=command, limit=45, read=from_json)

    def speed(limit: float, workloads: Sequence[str], engines: str, precisions: str = "float32") -> Part:
        command = [sys.executable, str(HERE / "gpu_throughput.py"), *common, *seconds, "--workloads", *workloads]
        command += ["--engines", *("off" if on_cpu else engines).split()]
        command += ["--precisions", *(name for name in precisions.split() if name != "tf32" or not on_cpu)]
        return Part(command=command, limit=limit, read=from_json)

    def jax(num_envs: int, num_steps: int, precision: str = "default") -> Part:
        sizes = {"num-envs": num_envs, "num-steps": num_steps, "timesteps": 10_000 * num_envs * num_steps}
        if args.quick:
            sizes = {"num-envs": 4, "num-steps": 4, "timesteps": 4 * 4 * 4, "hidden": 8}
        # By default JAX multiplies with TF32 on a GPU.
        command = [
            "env",
            f"JAX_DEFAULT_MATMUL_PRECISION={precision}",
            args.python_jax,
            str(HERE / "systems" / "purejax.py"),
            "--device",
            args.device,
            *seconds,
        ]
        command += [text for name, size in sizes.items() for text in (f"--{name}", str(size))]
        return Part(command=command, limit=30, read=from_json)

    tests = [sys.executable, "-m", "pytest", "-m", "gpu", "-vv", "--tb=line", "tests/simic/engines/test_gpu.py"]
    for plugin in ("cacheprovider", "benchmark"):
        tests += ["-p", f"no:{plugin}"]
    if importlib.util.find_spec("xdist") is not None:
        tests += ["-n", "6"]
    every = "float32 tf32 bf16"
    return {
        **{name: check(name) for name in CHECKS},
        "cartpole": speed(110, CARTPOLE, "auto off"),
        "jax, 4,096 environments": jax(4096, 32),
        "tests": Part(command=tests, limit=120, read=from_tests, needs="pytest"),
        "jax, 512 environments": jax(512, 128),
        "jax, 65,536 environments": jax(65536, 16),
        "minatar": speed(40, MINATAR, "auto off"),
        "frames": speed(70, FRAMES, "auto", every),
        "cartpole, tf32": speed(40, CARTPOLE[:1], "auto", "tf32"),
        "jax, 4,096 environments, float32": jax(4096, 32, "float32"),
        "wide": speed(50, WIDE, "auto", every),
    }


def run(part: Part, limit: float) -> dict[str, Any]:
    """What `part` found within `limit` seconds, and how it ended."""
    if part.needs is not None and importlib.util.find_spec(part.needs) is None:
        return {"end": f"missing: {part.needs}", "found": []}
    started, python_path = time.perf_counter(), os.pathsep.join(filter(None, [str(REPOSITORY / "src"), *_paths()]))
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        try:
            process = subprocess.Popen(
                part.command,
                stdout=out,
                stderr=err,
                cwd=REPOSITORY,
                env={**os.environ, "PYTHONPATH": python_path},
                start_new_session=True,
            )
        except OSError as error:
            return {"end": f"failed: {error}", "found": []}
        try:
            status = process.wait(limit)
            end = "completed" if status == 0 else f"failed: exit status {status}"
        except subprocess.TimeoutExpired:
            end = f"failed: not done after {limit:.0f} s"
        finally:
            end_group(process)
        out.seek(0)
        err.seek(0)
        lines, said = out.read().splitlines(), err.read().splitlines()
    result = {"end": end, "seconds": round(time.perf_counter() - started, 1), "found": part.read(lines)}
    return result if end == "completed" else {**result, "said": (lines[-15:] + said[-15:])}


def _paths() -> list[str]:
    return os.environ.get("PYTHONPATH", "").split(os.pathsep)


def write(record: dict[str, Any], path: Path | None) -> None:
    if path is not None:
        whole = path.with_suffix(".part")
        whole.write_text(json.dumps(record, indent=2) + "\n")
        whole.replace(path)


def summary(name: str, result: dict[str, Any]) -> str:
    """A line for each thing that was found."""
    lines = [f"{name}: {result['end']}"]
    for entry in result["found"]:
        said = entry.get("end") or entry.get("why") or entry.get("failed") or entry.get("missing") or ""
        if "passed" in entry:
            said = f"{'passed' if entry['passed'] else 'FAILED'} {said}"
        speed = entry.get("steps_per_second") or entry.get("steady_steps_per_second")
        said = f"{speed:,.0f} steps/s" if speed else said
        what = [str(entry[key]) for key in ("name", "system", "compile", "precision") if key in entry]
        lines.append(f"  {', '.join(what)}: {said}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 or cpu")
    parser.add_argument("--quick", action="store_true", help="tiny workloads: whether it runs, not how fast")
    parser.add_argument("--minutes", type=float, default=8, help="for all parts together")
    parser.add_argument("--parts", nargs="+", metavar="NAME", help="these alone")
    parser.add_argument("--python-jax", default=sys.executable, help="interpreter with jax")
    parser.add_argument("--output", type=Path, help="JSON file, written after each part")
    args = parser.parse_args()
    deadline = time.monotonic() + 60 * args.minutes
    every = parts(args)
    unknown = set(args.parts or ()) - set(every)
    if unknown:
        parser.error(f"--parts {', '.join(sorted(unknown))}: there are {', '.join(every)}")
    record: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": args.device,
        "quick": args.quick,
        "parts": {},
    }
    try:
        record["environment"] = environment(args.device)
    except Exception as error:
        record["environment"] = {"failed": f"{type(error).__name__}: {error}"}
    write(record, args.output)
    for name in args.parts or every:
        left = deadline - time.monotonic()
        result: dict[str, Any] = {"end": "skipped: no time", "found": []}
        if left > 5:
            result = run(every[name], min(left, every[name].limit))
        record["parts"][name] = result
        print(summary(name, result), flush=True)
        write(record, args.output)


if __name__ == "__main__":
    main()
