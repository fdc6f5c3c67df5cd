"""The output of `mutmut results --all true`, on stdin, as a table by module, and the mutants that no test noticed."""

from __future__ import annotations

import re
import sys
from collections import Counter, defaultdict

NOTICED = ("caught by type check", "killed", "timeout")
MISSED = ("survived", "no tests")


def main() -> None:
    by_module: defaultdict[str, Counter[str]] = defaultdict(Counter)
    missed = []
    for name, module, status in re.findall(r"^ +(esper\.([\w.]+)\.\w+): (.+)$", sys.stdin.read(), re.MULTILINE):
        by_module[module][status] += 1
        if status not in (*NOTICED, "not checked"):
            missed.append(f"{name}: {status}")
    print("| module | mutants |", " | ".join((*NOTICED, *MISSED, "other")), "|")
    print("|---" * (len(NOTICED) + len(MISSED) + 3) + "|")
    for module, statuses in {**by_module, "all": sum(by_module.values(), Counter())}.items():
        counts = [statuses[status] for status in (*NOTICED, *MISSED)]
        other = statuses.total() - sum(counts)
        print("|", " | ".join(map(str, (module, statuses.total(), *counts, other))), "|")
    print("\n".join(missed))


if __name__ == "__main__":
    main()
