"""All of the performance benchmarks, one after the other: minutes, or with --full about an hour.

Speed beside other systems, with other kinds of policies, and beside JAX (throughput.py), how it scales and how far it
is from the machine's limits (scaling.py), what schedules cost (schedule_overhead.py), start-up and memory (startup.py),
the steps of Gymnasium's environments (host_environments.py). Other systems are run where their packages are found, in
the environments that --python-peers and --python-rejax name, and reported as missing elsewhere.

    python benchmarks/bench.py --output results.json
    python benchmarks/bench.py --full --python-peers PEERS/bin/python --python-rejax REJAX/bin/python
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import throughput

HERE = Path(__file__).resolve().parent
PEERS = ("esper", "esper-torch", "sb3", "sbx", "tianshou", "rejax")


@dataclass(frozen=True, kw_only=True)
class Part:
    """A script, and the arguments of a short run and of one for docs/performance.md."""

    script: str
    quick: Sequence[str]
    full: Sequence[str] = ()


PARTS = {
    "throughput": Part(
        script="throughput",
        quick=["--systems", *PEERS, "--workloads", "cartpole", "--rounds", "1", "--timesteps", "50000"],
        full=["--systems", *PEERS, "--workloads", *throughput.CARTPOLES, "halfcheetah"],
    ),
    "policies": Part(
        script="throughput",
        quick=["--systems", "esper", "sb3-contrib", "--workloads", "masks", "--rounds", "1", "--timesteps", "20000"],
        full=[
            *("--systems", "esper", "esper-torch", "esper-shared", "sb3", "sb3-contrib"),
            *("--workloads", "lstm", "masks", "discrete-20", "multidiscrete", "cartpole"),
            *("--rounds", "3", "--threads", "1"),
        ],
    ),
    "jax": Part(
        script="throughput",
        quick=[
            *("--systems", "esper-torch", "rejax", "purejax", "--baseline", "purejax"),
            *("--workloads", "minatar-breakout", "--rounds", "1", "--timesteps", "50000"),
        ],
        full=[
            *("--systems", "esper-torch", "rejax", "purejax", "--baseline", "purejax"),
            *("--workloads", "cartpole", *throughput.MINATARS),
        ],
    ),
    "scaling": Part(script="scaling", quick=["--quick", "--rounds", "3"]),
    "schedule_overhead": Part(
        script="schedule_overhead",
        quick=["--engines", "native", "--pairs", "5", "--updates", "50", "--count-updates", "500"],
    ),
    "startup": Part(script="startup", quick=["--runs", "1"]),
    "host_environments": Part(
        script="host_environments",
        quick=["--envs", "CartPole-v1", "Acrobot-v1", "--num-envs", "8", "--rounds", "20"],
    ),
}


def run(script: str, arguments: Sequence[str]) -> Any:
    """The results of one script; what it prints goes to the terminal."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "results.json"
        subprocess.run([sys.executable, str(HERE / f"{script}.py"), *arguments, "--output", str(output)], check=True)
        return json.loads(output.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="everything, as docs/performance.md has it")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="NAME")
    parser.add_argument("--python-peers", default=sys.executable)
    parser.add_argument("--python-rejax", default=sys.executable)
    parser.add_argument("--output", type=Path, help="JSON file; what it has of other parts stays")
    args = parser.parse_args()
    results: dict[str, Any] = {}
    if args.output and args.output.exists():
        results = json.loads(args.output.read_text())
    for name in args.only:
        part = PARTS[name]
        arguments = part.full if args.full else part.quick
        if part.script == "throughput":
            arguments = [*arguments, "--python-peers", args.python_peers, "--python-rejax", args.python_rejax]
        results[name] = run(part.script, arguments)
        if args.output:
            args.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
