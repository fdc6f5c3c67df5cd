"""Some of the kinds that the harness does at random moments by the hundred, and what it leaves out."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from disturb import disturb

from esper.analysis.runs import read_events
from esper.scripts.train import main

ESPER = (sys.executable, "-m", "esper.scripts.train")
TINY = (
    *("ppo", "--preset", "none", "--compile", "off", "--num-envs", "2", "--num-steps", "16", "--hidden-sizes", "8"),
    *("--num-minibatches", "1", "--update-epochs", "1", "--no-picture", "--no-tensorboard", "--threads", "1"),
    *("--total-timesteps", "3200"),
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("terminal closed", "TensorBoard's disk full", "sink hangs on close", "worker killed"),
        *("worker stopped, SIGTERM", "SIGHUP twice", "signal in an evaluation", "close goes wrong"),
    ],
)
def test_a_run_goes_on_or_ends_with_one_message_and_a_whole_checkpoint(name: str, tmp_path: Path) -> None:
    assert disturb(name, 1, tmp_path / "disturbed") == []


class TestOutput:
    """In processes of their own: what Python does with its streams when it ends belongs to it."""

    def test_nobody_reads_a_run(self, tmp_path: Path) -> None:
        run = tmp_path / "run"
        read, write = os.pipe()
        os.close(read)
        process = subprocess.run(
            [*ESPER, *TINY, "--run-dir", str(run)], stdout=write, stderr=subprocess.PIPE, text=True, check=False
        )
        os.close(write)
        assert process.returncode == 0
        assert process.stderr == (
            "ConsoleSink failed and is switched off; training and the record continue: "
            "BrokenPipeError: [Errno 32] Broken pipe\n"
        )
        events = list(read_events(run))
        assert [event["sink"] for event in events if event["event"] == "sink_failed"] == ["ConsoleSink"]
        assert events[-1]["status"] == "completed"
        assert (run / "policy.safetensors").exists()

    def test_all_descriptors_are_closed(self, tmp_path: Path) -> None:
        """The record must not get the number of one of them, and with it what is printed."""
        run = tmp_path / "run"
        script = f"exec 0<&- 1>&- 2>&-; {' '.join([*ESPER, *TINY])} --run-dir {run}"
        assert subprocess.run(["sh", "-c", script], check=False).returncode == 0
        events = list(read_events(run))
        assert events[-1]["status"] == "completed"
        assert not [event for event in events if event["event"] == "sink_failed"]

    @pytest.mark.parametrize(
        ("command", "where", "status", "says"),
        [
            ("presets", "pipe", 141, ""),
            ("--help", "pipe", 141, ""),
            ("presets", "/dev/full", 1, "esper presets: error: standard output: No space left on device\n"),
        ],
        ids=["pipe", "help", "disk"],
    )
    def test_a_command_that_only_prints_ends_quietly(self, command: str, where: str, status: int, says: str) -> None:
        read, write = os.pipe() if where == "pipe" else (os.open(os.devnull, os.O_RDONLY), os.open(where, os.O_WRONLY))
        os.close(read)
        process = subprocess.run([*ESPER, command], stdout=write, stderr=subprocess.PIPE, text=True, check=False)
        os.close(write)
        assert (process.returncode, process.stderr) == (status, says)

    def test_text_that_the_terminal_cannot_show(self, tmp_path: Path) -> None:
        run = tmp_path / "caf\xe9 run"
        flags = ("--run-dir", str(run), "--eval-every", "100", "--eval-episodes", "1")
        process = subprocess.run(
            [*ESPER, *TINY, *flags],
            capture_output=True,
            check=False,
            env={**os.environ, "PYTHONIOENCODING": "ascii"},
        )
        assert process.returncode == 0
        assert re.search(rb"\\xb1 0.00 over 1 episode\b", process.stdout)
        assert process.stderr == b""
        # The printed command can be pasted.
        (folder,) = re.findall(r"esper evaluate (.*)", process.stdout.decode("ascii"))
        assert subprocess.check_output(["bash", "-c", f"echo {folder}"], text=True) == f"{run}\n"


def test_under_nohup_a_hang_up_is_no_stop(tmp_path: Path) -> None:
    command = [*ESPER, *TINY, "--run-dir", str(tmp_path / "run")]
    # The program that is run inherits what is ignored.
    with subprocess.Popen(["sh", "-c", 'trap "" HUP; exec "$0" "$@"', *command], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        process.communicate()
    assert process.returncode == 0
    assert list(read_events(tmp_path / "run"))[-1]["status"] == "completed"


def test_the_command_line_leaves_the_streams_as_they_were(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    assert main(["presets"]) == 0
    assert (sys.stdout, sys.stderr) == before
    assert "CartPole-v1" in capsys.readouterr().out
