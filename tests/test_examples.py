"""The programs in examples/ run by themselves and print what they promise."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))

# Packages that are no dependencies.
NEEDS = {"sb3_schedule": "stable_baselines3", "search": "optuna"}

# In what is printed, line breaks included.
PROMISES = {
    "callback": r"completed \(a return of 150\).*parameter norm, first and last: \[[\d.]+ [\d.]+\]\n\d+,[\d.]+\n",
    "dict_observations": r"Reach.* completed after 30 updates.*steps to the goal: \[(\d+, ){7}\d+\]",
    # It begins at 1 and moves.
    "feedback": r"update  0: .* x factor 1\.00.*x factor (?!1\.00)\d",
    "own_environment": r"Corridor.* completed after 20 updates.*return of one episode: -7\.0;",
    "own_loop": r"1,024 steps, rate [\d.e-]+, return \d+.*the agent is that of \d+ updates again",
    "own_loss_term": r"CartPole-v1.* completed after \d+ updates.*first and last: \[[\d.e+-]+ +[\d.e+-]+\]",
    # 4 * 128 + 128 of the trunk, 128 * 2 + 2 of the actor, 128 + 1 of the critic.
    "own_network": r"CartPole-v1.* completed after \d+ updates.*parameters: 1027\n.*completed after \d+ updates",
    "own_schedule": r"update  3: policy 7\.0e-04, value 2\.0e-03.*update  9: policy 2\.0e-04.*value 2\.0e-04",
    "policy_loop": r"return: \d+\.0\n",
    "resume": r"\(half of it\) after 10 updates.* after 20 updates.*rate 5\.0e-05\n.* after 40 updates.*rate 2\.5e-05",
    "sb3_schedule": r"after     0 steps: rate 3\.3e-04.*after   768 steps: rate 1\.0e-03",
    "search": r"best of 3: \d+ with {'policy_lr': ",
    "torch_schedule": r"update  0, warmup: rate 9\.09e-03.*update 80, decay: .*loss 0\.0\d+",
    "vector_environment": r"CartPole-v1.* completed.*8 environments; mean length of 8 episodes: \d+",
}


@pytest.mark.parametrize("path", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_an_example_runs_and_prints_what_it_promises(path: Path, tmp_path: Path) -> None:
    needed = NEEDS.get(path.stem)
    if needed is not None and importlib.util.find_spec(needed) is None:
        pytest.skip(f"needs {needed}")
    result = subprocess.run(
        [sys.executable, str(path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr
    assert re.search(PROMISES.get(path.stem, "."), result.stdout, re.DOTALL), result.stdout


def test_there_are_examples_of_what_is_promised() -> None:
    assert PROMISES.keys() | NEEDS.keys() <= {path.stem for path in EXAMPLES}
