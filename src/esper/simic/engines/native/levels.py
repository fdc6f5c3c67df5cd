"""How kernels are compiled, and the levels of x86-64 for which a wheel carries them. setup.py reads this file alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping

# Errors and traps of mathematical functions would forbid vectorizing them; NaN and infinity keep their meaning.
FLAGS = (
    *("-std=c++20", "-O3", "-fno-math-errno", "-fno-trapping-math"),
    *("-ffp-contract=fast", "-fPIC", "-shared", "-pthread"),
)
# A machine without a compiler may lack its libraries, too.
STATIC = ("-static-libstdc++", "-static-libgcc")

# What a level has beside the one below it, the highest first, in the words of /proc/cpuinfo (x86-64 psABI, 3.1.1).
_V2 = frozenset({"cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"})
_V3 = _V2 | {"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"}
_V4 = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
LEVELS: Mapping[str, frozenset[str]] = {"x86-64-v4": _V4, "x86-64-v3": _V3, "x86-64-v2": _V2}


def levels_of(flags: Collection[str]) -> list[str]:
    """The levels that a processor with these `flags` has, the highest first."""
    return [level for level, needed in LEVELS.items() if needed <= set(flags)]


def file_name(level: str) -> str:
    """Of the kernels for `level`."""
    return f"kernels-{level}.so"
