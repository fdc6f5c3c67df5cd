"""`benchmarks/gpu.py` runs to its end, and keeps what it found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import gpu
import performance_page


def printing(code: str) -> gpu.Part:
    return gpu.Part(command=[sys.executable, "-u", "-c", code], limit=60, read=gpu.from_json)


class TestPart:
    def test_finds_what_is_printed(self) -> None:
        result = gpu.run(printing('print("a line"); print(\'{"name": "a"}\'); print("[1]")'), 60)
        assert (result["end"], result["found"]) == ("completed", [{"name": "a"}])

    def test_that_fails_keeps_what_it_found_and_says_why(self) -> None:
        result = gpu.run(printing('print(\'{"name": "a"}\'); raise ValueError("out of luck")'), 60)
        assert (result["end"], result["found"]) == ("failed: exit status 1", [{"name": "a"}])
        assert result["said"][-1] == "ValueError: out of luck"

    def test_that_takes_too_long_keeps_what_it_found(self) -> None:
        result = gpu.run(printing('import time; print(\'{"name": "a"}\'); time.sleep(60)'), 3)
        assert (result["end"], result["found"]) == ("failed: not done after 3 s", [{"name": "a"}])

    def test_of_a_program_that_is_not_there(self) -> None:
        result = gpu.run(gpu.Part(command=["/no/such/python"], limit=9, read=gpu.from_json), 9)
        assert result["end"].startswith("failed: ")
        assert gpu.run(gpu.Part(command=[], limit=9, read=gpu.from_json, needs="nosuch"), 9)["end"] == "missing: nosuch"


def test_tests_are_named_with_their_ends() -> None:
    lines = ["tests/a/test_b.py::test_c[x-1] PASSED  [ 50%]", "tests/a/test_b.py::test_d FAILED [100%]", "1 failed"]
    lines += ["tests/a/test_b.py::test_e ", "[gw3] [  7%] PASSED tests/a/test_b.py::test_e "]
    assert gpu.from_tests(lines) == [
        {"name": "test_c[x-1]", "passed": True, "end": "passed"},
        {"name": "test_d", "passed": False, "end": "failed"},
        {"name": "test_e", "passed": True, "end": "passed"},
    ]


@pytest.mark.slow
def test_runs_to_its_end_on_a_cpu(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    command = [sys.executable, gpu.__file__, "--device", "cpu", "--quick", "--output", str(path)]
    subprocess.run([*command, "--parts", "equality", "rates", "minatar"], check=True, timeout=300)
    record = json.loads(path.read_text())
    assert [part["end"] for part in record["parts"].values()] == 3 * ["completed"]
    (equality,), (rates,), (minatar,) = (part["found"] for part in record["parts"].values())
    assert equality["passed"]
    assert rates["passed"]
    assert rates["asked"][0] != rates["asked"][4]
    assert minatar["steps_per_second"] > 0
    table = performance_page.gpu(record)
    assert "2 of 2 checks and tests passed." in table
    assert "| MinAtar Breakout, 1,024 environments | off | float32 |" in table


def test_a_page_without_a_run_says_so() -> None:
    assert performance_page.gpu(None) == "Not run yet."
