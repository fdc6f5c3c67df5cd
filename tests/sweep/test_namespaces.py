"""Machines without a shared file system: Ray nodes that each have their own in place of the sweep's folder."""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest

pytest.importorskip("ray")

from safetensors.torch import load_file
from test_sweep import updates

from esper.analysis.runs import read_events

PATIENCE = 900.0  # seconds; on a busy machine Ray's own processes take minutes to begin
# A mount namespace and a process namespace, with which all its processes end.
NAMESPACES = ["unshare", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
RAY = [sys.executable, "-m", "ray.scripts.scripts", "start", "--num-cpus=1", "--object-store-memory=80000000"]
RAY += ["--disable-usage-stats", "--include-log-monitor=false"]
# Twelve runs; those of `long` last long enough to come back in parts.
SWEEP = [sys.executable, "-m", "esper.scripts.train", "sweep", "--env", "torch/CartPole-v1", "--seeds", "4"]
SWEEP += ["--checkpoint-every", "10", "--threads", "1", "--arm", "short: --total-timesteps 100000"]
SWEEP += ["--arm", "cosine: --lr-decay cosine", "--arm", "long: --total-timesteps 3000000"]


def can_be_made() -> bool:
    command = [*NAMESPACES, "mount", "-t", "tmpfs", "none", "/mnt"]
    return shutil.which("unshare") is not None and subprocess.run(command, capture_output=True).returncode == 0


class Node:
    """A command in namespaces of its own, with what it prints in the file `log`."""

    def __init__(self, script: str, log: Path, **variables: str) -> None:
        with log.open("wb") as output:
            self.outer = subprocess.Popen(
                [*NAMESPACES, "sh", "-c", script],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=os.environ | variables,
            )

    def runs(self, folder: Path) -> set[str]:
        """The runs below the temporary folder `folder` of this machine, as arm/seed."""
        inner = psutil.Process(self.outer.pid).children()
        root = Path(f"/proc/{inner[0].pid}/root") if inner else Path("/nowhere")
        return {"/".join(path.parts[-2:]) for path in Path(f"{root}{folder}").glob("esper-*/*/*/seed-*")}

    def kill(self) -> None:
        self.outer.kill()
        self.outer.wait()


@pytest.fixture
def base() -> Iterator[Path]:
    # Short, as Ray's sockets are in it.
    with tempfile.TemporaryDirectory(prefix="esper-") as folder:
        yield Path(folder)


class Cluster:
    """Nodes of Ray: the first sees the folder `base` and runs the sweep, the others have a disk of their own there."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.nodes: list[Node] = []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.variables = {
            "TMPDIR": f"{base}/tmp",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            # On a busy machine a head takes longer to answer than nodes have patience.
            "RAY_gcs_server_request_timeout_seconds": f"{PATIENCE:.0f}",
        }

    def start(self, script: str) -> Node:
        node = Node(script, self.base / f"node-{len(self.nodes)}.log", **self.variables)
        self.nodes.append(node)
        return node

    def head(self, sweep: Sequence[str]) -> Node:
        start = [*RAY, "--head", f"--port={self.port}", f"--temp-dir={self.base}/ray", "--include-dashboard=false"]
        then = [*sweep, "--ray-address", f"127.0.0.1:{self.port}"]
        return self.start(f"mkdir {self.base}/tmp && {shlex.join(start)} && {shlex.join(then)}")

    def join(self) -> Node:
        # The path of the sweep is there, but on another disk.
        disk = f"mount -t tmpfs none {self.base} && mkdir {self.base}/tmp {self.base}/runs"
        start = [*RAY, f"--address=127.0.0.1:{self.port}", f"--temp-dir={self.base}/ray", "--block"]
        # A node that has not begun within 30 s gives up.
        return self.start(f"{disk} && until {shlex.join(start)}; do sleep 1; done")

    def begun(self) -> bool:
        return "Ray runtime started" in self.logs()

    def logs(self) -> str:
        return "\n".join(f"{path.name}: {path.read_text()[-3000:]}" for path in sorted(self.base.glob("node-*.log")))

    def wait_until(self, holds: Callable[[], object], sweep: Node) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert sweep.outer.poll() is None, self.logs()
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.1)

    def close(self) -> None:
        for node in self.nodes:
            node.kill()


@pytest.mark.slow
def test_one_machine_is_lost_and_one_joins_late(base: Path, pytestconfig: pytest.Config) -> None:
    if not pytestconfig.getoption("--all"):
        pytest.skip("takes minutes: pytest --all")
    if not can_be_made():
        pytest.skip("needs unshare, and to be allowed namespaces of its own")
    runs, cluster = base / "runs", Cluster(base)
    try:
        sweep = cluster.head([*SWEEP, "--output", str(runs)])
        cluster.wait_until(cluster.begun, sweep)
        lost, kept = cluster.join(), cluster.join()

        def came_back_from(node: Node) -> set[str]:
            return {run for run in node.runs(base / "tmp") if any(runs.glob(f"*/{run}/checkpoints/*/manifest.json"))}

        cluster.wait_until(lambda: came_back_from(lost), sweep)
        interrupted = came_back_from(lost)
        lost.kill()
        joined = cluster.join()
        on_kept, on_joined = set[str](), set[str]()
        while sweep.outer.poll() is None:
            on_kept |= kept.runs(base / "tmp")
            on_joined |= joined.runs(base / "tmp")
            time.sleep(0.1)
        assert sweep.outer.returncode == 0, cluster.logs()
    finally:
        cluster.close()
    assert interrupted
    assert on_kept
    assert on_joined
    records = {"/".join(path.parts[-2:]): path for path in runs.glob("*/*/seed-*") if path.is_dir()}
    assert len(records) == 12
    for run in interrupted:
        assert "run_resumed" in [event["event"] for event in read_events(records[run])]

    local = base / "local"
    done = subprocess.run([*SWEEP, "--workers", "2", "--output", str(local)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for run_dir in records.values():
        alone = local / run_dir.relative_to(runs)
        assert updates(run_dir) == updates(alone)
        ours, theirs = (load_file(folder / "policy.safetensors") for folder in (run_dir, alone))
        assert ours.keys() == theirs.keys()
        assert all(ours[name].equal(theirs[name]) for name in ours)
