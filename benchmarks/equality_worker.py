"""Runs commands of one checkout, each in a process of its own, forked from this one.

This process has imported what takes long and is of others, and nothing of esper: where its modules are does not matter.
A line on standard input is a command as JSON, a line on standard output its exit status.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import traceback
from typing import Any

# Imported before the first command.
_SLOW = ("gymnasium", "matplotlib.pyplot", "numpy", "rich.live", "scipy.stats", "torch", "torch.export", "torch.func")


def perform(arguments: list[str]) -> int:
    """As `python ARGUMENTS` would, `-m MODULE ...` or `-c CODE`."""
    kind, name, *rest = arguments
    try:
        if kind == "-m":
            sys.argv = [name, *rest]
            runpy.run_module(name, run_name="__main__", alter_sys=True)
        else:
            exec(compile(name, "<command>", "exec"), {"__name__": "__main__"})
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def begin(command: dict[str, Any], number: int) -> None:
    """Take on the folder, the variables and the output files of `command`."""
    os.chdir(command["folder"])
    os.environ.update(command["variables"])
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(f"{number}.{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.dup2(file, descriptor)
        os.close(file)


def main() -> None:
    for name in _SLOW:
        __import__(name)
    for line in sys.stdin:
        command = json.loads(line)
        statuses = []
        for number, arguments in enumerate(command["commands"]):
            if not (pid := os.fork()):
                begin(command, number)
                status = perform(arguments)
                # As the interpreter ends: what is registered for it is done, as pools of processes need it.
                sys.exit(status)
            statuses.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        print(json.dumps(statuses), flush=True)


if __name__ == "__main__":
    main()
