"""The settings of a resumed run: its own, with changes on top."""

from __future__ import annotations

import dataclasses
from collections import ChainMap
from collections.abc import Sequence

from esper.runs.config import RunConfig
from esper.runs.layers import Layer, Settings, resolve
from esper.runs.resume.functions import keep_functions, names_of_functions
from esper.runs.resume.point import ResumeError, ResumePoint
from esper.runs.resume.rules import Mode, changes, may_change
from esper.settings.layers import with_common_names
from esper.settings.options import flatten, settings_of
from esper.settings.values import format_value, spelled
from esper.storage.trust import unnamed_import

_HINT = "\nschedules may change with --resume-schedule extend or restart"


def settings_to_resume(point: ResumePoint, layers: Sequence[Layer], mode: Mode, *, trust: bool = False) -> Settings:
    """The settings of `point`, overridden by `layers`, the strongest last.

    Raises:
        SettingsError: for an unknown name or a value that cannot be used.
        ResumeError: listing every difference that `mode` does not allow; for an environment, an encoder or a schedule
            that imports a module and is named only by the checkpoint, unless the user has `trust` in its files.
    """
    stored = flatten(point.config)
    if mode != "continue":
        stored = names_of_functions(stored)
    values = with_common_names(stored, settings_of(RunConfig))
    settings = resolve([Layer(source=str(point.source), values=values), *layers])
    # Of the functions those that are left: another decay may have replaced them.
    used = stored | {name: value for name, value in flatten(settings.config).items() if name.endswith("_decay")}
    if point.state is not None:
        used["init_from"] = None  # was read when the run began
    given = ChainMap(*({name: spelled(value) for name, value in each.values.items()} for each in layers[::-1]))
    reason = None if trust else unnamed_import(used, given)
    if reason:
        raise ResumeError(f"{point.source}: {reason}")
    changed = changes(point.config, settings.config)
    wrong = [name for name in changed if not may_change(name, mode)]
    if wrong:
        old_and_new = {name: [format_value(value) for value in changed[name]] for name in wrong}
        lines = "".join(f"\n  {name}: {old}, now {new}" for name, (old, new) in old_and_new.items())
        schedules = any(may_change(name, "extend") for name in wrong)
        hint = _HINT if schedules else ""
        raise ResumeError(f"{point.source}: these settings cannot change on resume:{lines}{hint}")
    if mode == "continue":
        try:
            return dataclasses.replace(settings, config=keep_functions(point.config, settings.config))
        except ValueError as error:
            raise ResumeError(f"{point.source}: these settings cannot change on resume:\n  {error}{_HINT}") from None
    return settings
