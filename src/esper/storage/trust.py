"""What files from someone else must not import or open by names in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from esper.storage.files import printable
from esper.system.shell import quoted


def unnamed_import(found: Mapping[str, Any], given: Mapping[str, Any]) -> str | None:
    """Why a file's `env`, `encoder`, `env_kwargs`, `init_from` and schedules must not be used; None if they may.

    A name with a colon imports a module, an argument of an environment may open a file, and `init_from` reads one. A
    file from someone else could run any code, so the user must repeat the values in `given`.
    """
    for name, value in found.items():
        kind = "decay" if name.endswith("_decay") else name
        if kind not in ("env", "encoder", "decay") or not isinstance(value, str) or ":" not in value:
            continue
        # One function may be given for several schedules.
        again = [each for key, each in given.items() if key == name or (kind == "decay" and key.endswith("_decay"))]
        if value not in again:
            module, what = value.partition(":")[0], {"env": "environment"}.get(name, name)
            say = f"--{name.replace('_', '-')} {quoted(value)} or --trust"
            return f"its {what} imports {module!r}; if that is right, add {say}"
    policy = found.get("init_from")
    if policy is not None and given.get("init_from") != policy:
        say = f"--init-from {quoted(policy)} or --trust"
        return f"its init_from reads another folder, {printable(policy)!r:.100}; if that is right, add {say}"
    arguments = found.get("env_kwargs")
    names = sorted(_named_in(arguments))
    if names and given.get("env_kwargs") != arguments:
        return f"its env_kwargs have {names[0]!r:.100}, maybe a file or a module; if that is right, add --trust"
    return None


def _named_in(value: Any) -> Iterator[str]:
    """Text in `value` that may be the name of a file or a module."""
    if isinstance(value, str) and set(value) & set("/\\:~"):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _named_in(each)
