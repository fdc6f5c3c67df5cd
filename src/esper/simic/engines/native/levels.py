"""How kernels are compiled, and for which levels of processors wheels carry them. setup.py reads this file alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping

# Errors and traps of mathematical functions would forbid vectorizing them; NaN and infinity keep their meaning.
FLAGS = (
    *("-std=c++20", "-O3", "-fno-math-errno", "-fno-trapping-math"),
    *("-ffp-contract=fast", "-fPIC", "-shared", "-pthread"),
)
# Of the compiler's C++ library only what is used, inside: other machines have older ones. Whole, or with libgcc inside
# too, it would need the C library of the same system.
STATIC = ("-static-libstdc++", "-Wl,--exclude-libs,ALL", "-Wl,--gc-sections")

# What a level has beside the one below it, the highest first, in the words of /proc/cpuinfo (x86-64 psABI, 3.1.1).
_V2 = frozenset({"cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"})
_V3 = _V2 | {"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"}
_V4 = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
# By machine, as `uname -m` has it; all 64-bit ARM processors have the vectors that the kernels use.
LEVELS: Mapping[str, Mapping[str, frozenset[str]]] = {
    "x86_64": {"x86-64-v4": _V4, "x86-64-v3": _V3, "x86-64-v2": _V2},
    "aarch64": {"armv8-a": frozenset()},
}


def levels_of(machine: str, flags: Collection[str]) -> list[str]:
    """The levels that a processor with these `flags` has, the highest first."""
    return [level for level, needed in LEVELS.get(machine, {}).items() if needed <= set(flags)]


def file_name(level: str) -> str:
    """Of the kernels for `level`."""
    return f"kernels-{level}.so"
