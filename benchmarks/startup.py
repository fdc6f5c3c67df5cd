"""How long the command line and a first update take, cold and with warm caches, and how much memory training needs.

Whole processes, one after the other. Cold means that no compiled kernels and no graphs of torch.compile are kept from
before; the files of Python packages are warm in either case.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SYSTEM = Path(__file__).resolve().parent / "systems" / "esper.py"
ENGINES = ("native", "torch", "off")


def help_seconds(runs: int) -> float:
    """Of `esper ppo --help`, as a whole process."""
    command = [sys.executable, "-m", "esper.scripts.train", "ppo", "--help"]
    return statistics.median(_timed(command) for _ in range(runs))


def _timed(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def training(engine: str, caches: str) -> dict[str, Any]:
    """A short run of 8 x 128 steps per update on Gymnasium's CartPole, with its caches in the folder `caches`."""
    command = [sys.executable, str(SYSTEM), "--compile", engine, "--threads", "1", "--timesteps", "20000"]
    environment = {**os.environ, "XDG_CACHE_HOME": caches, "TORCHINDUCTOR_CACHE_DIR": f"{caches}/inductor"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure(runs: int) -> dict[str, Any]:
    results: dict[str, Any] = {"help_seconds": help_seconds(runs)}
    for engine in ENGINES:
        cold, warm = [], []
        for _ in range(runs):
            with tempfile.TemporaryDirectory() as caches:
                cold.append(training(engine, caches))
                warm.append(training(engine, caches))
        results[engine] = {
            "first_update_seconds_cold": statistics.median(r["start_to_first_update_seconds"] for r in cold),
            "first_update_seconds_warm": statistics.median(r["start_to_first_update_seconds"] for r in warm),
            "peak_memory_mib_cold": statistics.median(r["peak_memory_mib"] for r in cold),
            "peak_memory_mib_warm": statistics.median(r["peak_memory_mib"] for r in warm),
        }
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    text = json.dumps(measure(args.runs), indent=2)
    print(text)
    if args.output:
        args.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
