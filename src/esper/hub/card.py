"""The model card of a run: https://huggingface.co/docs/hub/model-cards has the fields of its head."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from esper import __version__
from esper.analysis.record import Record, ReportError, read_record
from esper.analysis.statistics import interval_from_moments
from esper.hub.shared import GIF, PICTURE, REPORT, HubError
from esper.runs.config import RunConfig
from esper.runs.folder import BEST
from esper.runs.layers import RECORD, SettingsError, as_recorded, changed_settings, file_layer
from esper.settings.options import settings_of
from esper.settings.values import format_value
from esper.storage import files
from esper.storage.trust import unnamed_import

_PACKAGE = "esper-simic"
_TASK = "reinforcement-learning"


def make_card(run_dir: Path, repo: str, names: Collection[str]) -> str:
    """The card of the run in `run_dir`, which is shared as `repo` with the files `names`, as Markdown.

    Raises:
        HubError: when its settings or its record cannot be read.
    """
    try:
        values = {**as_recorded(RunConfig()), **file_layer(run_dir / RECORD).values}
        record = read_record(run_dir, lambda name: name in ("update", "env_steps"))
    except (SettingsError, ReportError) as error:
        raise HubError(str(error)) from None
    if unknown := values.keys() - settings_of(RunConfig):
        raise HubError(f"{run_dir / RECORD}: {min(unknown)} is no setting")
    env = str(values["env"]).strip("<>")
    sections = [
        f"# PPO on {_code(env)}",
        f"A policy for {_code(env)}, trained by {_PACKAGE} {_version(record)}.",
        *(f"![{_alt(name)}]({name})" for name in (GIF, PICTURE) if name in names),
        "## Use it",
        *_use(values, repo, best=f"{BEST}/policy.json" in names),
        "## Scores",
        *_scores(record),
        "## Training",
        *_training(record, values),
        "## Settings that are no defaults",
        _table(("setting", "value"), ((name, _code(text)) for name, text in changed_settings(values).items())),
        "## Schedules",
        _schedules([record.started, *record.resumed][-1]["schedules"]),
        *_pictures(names),
    ]
    return _head(env, record) + "\n" + "\n\n".join(sections) + "\n"


def training_command(values: Mapping[str, Any]) -> str | None:
    """The command that trains with these settings, as in config.json; None where only Python has all of them."""
    settings, changed = settings_of(RunConfig), changed_settings(values)
    if any(value.startswith("<") or not settings[name].flag for name, value in changed.items() if name in settings):
        return None
    if "custom" in (value for name, value in changed.items() if name.endswith("_decay")):
        return None
    words = ["esper", "ppo", "--preset", "none", "--env", str(values["env"])]
    for name, text in changed.items():
        flag = name.replace("_", "-")
        if name != "env":
            boolean = name in settings and settings[name].type is bool
            words += [f"--{'' if text == 'true' else 'no-'}{flag}"] if boolean else [f"--{flag}", text]
    return shlex.join(words)


def _head(env: str, record: Record) -> str:
    """The head for the Hub, in YAML, of which JSON is a part; with the latest evaluation, as that policy is loaded."""
    head: dict[str, Any] = {
        "library_name": _PACKAGE,
        "pipeline_tag": _TASK,
        "tags": [_TASK, "deep-reinforcement-learning", "ppo", env],
    }
    mean, std = _return(record.evaluations[-1]) if record.evaluations else (math.nan, math.nan)
    if not math.isnan(mean):
        result = {
            "task": {"type": _TASK, "name": _TASK},
            "dataset": {"type": env, "name": env},
            "metrics": [
                {"type": "mean_reward", "name": "mean_reward", "value": f"{mean:.2f} +/- {std:.2f}", "verified": False}
            ],
        }
        head["model-index"] = [{"name": "PPO", "results": [result]}]
    return "\n".join(["---", *(f"{name}: {json.dumps(value)}" for name, value in head.items()), "---", ""])


def _use(values: Mapping[str, Any], repo: str, *, best: bool) -> list[str]:
    folder, notes = repo.partition("/")[2], []
    named = {name: str(values[name]) for name in ("env", "encoder") if ":" in str(values[name])}
    flags = "".join(f" --{name} {shlex.quote(each)}" for name, each in named.items())
    arguments = "".join(f", {name}={each!r}" for name, each in named.items())
    if unnamed_import({"env_kwargs": values["env_kwargs"]}, {}) is not None:
        flags, arguments = " --trust", ", trust=True"
    shell = [f"pip install '{_PACKAGE}[hub]'", f"esper pull {repo}", f"esper evaluate {folder}{flags}"]
    if str(values["env"]).startswith("<"):
        arguments = ", env=make_env"
        notes += ["The environment was a Python object, which no name finds: `make_env` is a function that makes it."]
        shell.pop()
    if best:
        notes += [f"`{folder}/{BEST}` is the policy of the best evaluation, `{folder}` that of the end of training."]
    python = ["from esper import load_policy", "", f'policy = load_policy("{folder}"{arguments})']
    python += ["action, state = policy.predict(observation)"]
    return [_block("sh", shell), _block("python", python), *notes]


def _scores(record: Record) -> list[str]:
    if not record.evaluations:
        return ["The run was not evaluated while it trained; `esper evaluate` does it."]
    best = max(record.evaluations, key=lambda event: event.get("eval_return_mean", -math.inf))
    heads = ("evaluation", "after update", "mean return", "deviation", "95 % interval of the mean", "episodes")
    chosen = {"latest": record.evaluations[-1], "best": best}
    successes = any("eval_success_rate" in event for event in chosen.values())
    table = _table(
        (*heads, "success rate") if successes else heads,
        (
            (which, *_score(event), *([f"{event.get('eval_success_rate', math.nan):.2f}"] if successes else []))
            for which, event in chosen.items()
        ),
    )
    count = len(record.evaluations)
    note = "Whole episodes with the most likely actions, always from the same initial states; one run, one seed."
    return [table, note + (f" The best of {count} is in part the luckiest." if count > 1 else "")]


def _score(event: Mapping[str, Any]) -> tuple[str, ...]:
    mean, std = _return(event)
    episodes = event["eval_episodes"]
    low, high = interval_from_moments(mean, std, episodes)
    interval = "" if math.isnan(low) else f"{low:.2f} to {high:.2f}"
    return str(event["update"]), f"{mean:.2f}", f"{std:.2f}", interval, str(episodes)


def _return(event: Mapping[str, Any]) -> tuple[float, float]:
    """Mean and deviation of an evaluation; NaN for one that was not finite, which records leave out."""
    return event.get("eval_return_mean", math.nan), event.get("eval_return_std", math.nan)


def _training(record: Record, values: Mapping[str, Any]) -> list[str]:
    status = record.finished["status"] if record.finished else "not finished"
    steps = int(record.updates["env_steps"][-1])
    lines = [f"{status.capitalize()}: {steps:,} environment steps, seed {values['seed']}."]
    command = training_command(values)
    lines += ["Trained from Python, with parts that no flag has."] if command is None else [_block("sh", [command])]
    for event in record.resumed:
        changes = ", ".join(f"{name} {' to '.join(map(format_value, each))}" for name, each in event["changed"].items())
        lines += [f"Changed at update {event['update']}: {_code(changes)}"] if changes else []
    return lines


def _schedules(schedules: Mapping[str, Mapping[str, Any]]) -> str:
    rows = (
        (
            _code(name),
            _code(", ".join(f"{part} {format_value(value)}" for part, value in each.items() if value is not None)),
        )
        for name, each in schedules.items()
    )
    return _table(("of", "resolved, in updates"), rows)


def _pictures(names: Iterable[str]) -> list[str]:
    found = [f"![{_alt(name)}]({name})" for name in names if name.startswith(f"{REPORT}/")]
    return ["## Curves", *found] if found else []


def _version(record: Record) -> str:
    return str(record.started["versions"].get("esper", __version__))


def _alt(name: str) -> str:
    return Path(name).stem


def _block(language: str, lines: Iterable[str]) -> str:
    return "\n".join([f"```{language}", *lines, "```"])


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows))


def _code(text: str) -> str:
    """`text` as code, in a line and in a cell of a table."""
    plain = files.printable(text).replace("\n", " ").replace("`", "'").replace("|", "\\|")
    return f"`{plain}`" if plain else ""
