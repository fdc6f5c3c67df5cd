"""All of the performance benchmarks, one after the other: minutes, or with --full about an hour.

Speed beside other systems (throughput.py), how it scales and how far it is from the machine's limits (scaling.py), what
schedules cost (schedule_overhead.py), start-up and memory (startup.py), the steps of Gymnasium's environments
(host_environments.py). Other systems are run where their packages are
found, in the environments that --python-peers and --python-rejax name, and reported as missing elsewhere.

    python benchmarks/bench.py --output results.json
    python benchmarks/bench.py --full --python-peers PEERS/bin/python --python-rejax REJAX/bin/python
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
QUICK = {
    "throughput": ["--workloads", "cartpole", "--rounds", "1", "--timesteps", "50000"],
    "scaling": ["--quick", "--rounds", "3"],
    "schedule_overhead": ["--engines", "native", "--pairs", "5", "--updates", "50", "--count-updates", "500"],
    "startup": ["--runs", "1"],
    "host_environments": ["--envs", "CartPole-v1", "Acrobot-v1", "--num-envs", "8", "--rounds", "20"],
}
FULL: dict[str, list[str]] = {name: [] for name in QUICK}


def run(name: str, arguments: list[str]) -> dict[str, Any]:
    """The results of one script; what it prints goes to the terminal."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "results.json"
        subprocess.run([sys.executable, str(HERE / f"{name}.py"), *arguments, "--output", str(output)], check=True)
        results: dict[str, Any] = json.loads(output.read_text())
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="everything, as docs/performance.md has it")
    parser.add_argument("--only", nargs="+", choices=QUICK, default=list(QUICK), metavar="NAME")
    parser.add_argument("--python-peers", default=sys.executable)
    parser.add_argument("--python-rejax", default=sys.executable)
    parser.add_argument("--output", type=Path, help="JSON file; what it has of other scripts stays")
    args = parser.parse_args()
    results: dict[str, Any] = {}
    if args.output and args.output.exists():
        results = json.loads(args.output.read_text())
    for name in args.only:
        arguments = (FULL if args.full else QUICK)[name]
        if name == "throughput":
            arguments = [*arguments, "--python-peers", args.python_peers, "--python-rejax", args.python_rejax]
        results[name] = run(name, arguments)
        if args.output:
            args.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
