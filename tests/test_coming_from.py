"""What docs/coming-from.md puts side by side is the same: each line of torch, optax and Stable-Baselines3 and ours."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from esper.schedules import as_progress_callable
from esper.scripts.flags import settings_from
from esper.scripts.train import make_parsers
from esper.simic import PPOConfig

PAGE = (Path(__file__).parent.parent / "docs" / "coming-from.md").read_text()
TORCH, OPTAX, SB3 = (
    re.findall(r"^\| `(.*?)` \| `(.*?)` \|$", part, re.MULTILINE)
    for part in re.split(r"^## (?:torch|optax|Stable-Baselines3)$", PAGE, flags=re.MULTILINE)[1:]
)
UPDATES = 100

# What optax 0.2.8 gives in float64 for these updates.
AT = (0, 1, 9, 10, 29, 30, 50, 99)
OPTAX_GIVES = {
    "constant_schedule(1e-3)": [0.001, 0.001, 0.001, 0.001, 0.001, 0.001, 0.001, 0.001],
    "linear_schedule(1e-3, 1e-4, 100)": [0.001, 0.000991, 0.000919, 0.00091, 0.000739, 0.00073, 0.00055, 0.000109],
    "cosine_decay_schedule(1e-3, 100, alpha=0.1)": [
        0.001,
        0.000999777952,
        0.000982132159,
        0.000977975432,
        0.000825808174,
        0.000814503364,
        0.00055,
        0.000100222048,
    ],
    "polynomial_schedule(1e-3, 0.0, 2, 100)": [
        0.001,
        0.0009801,
        0.0008281,
        0.00081,
        0.0005041,
        0.00049,
        0.00025,
        1e-07,
    ],
    "exponential_decay(1e-3, 100, 0.01)": [
        0.001,
        0.000954992586,
        0.000660693448,
        0.000630957344,
        0.000263026799,
        0.000251188643,
        0.0001,
        1.04712855e-05,
    ],
    "exponential_decay(1e-3, 30, 0.1, staircase=True)": [0.001, 0.001, 0.001, 0.001, 0.001, 0.0001, 0.0001, 1e-06],
    "piecewise_constant_schedule(1e-3, {30: 0.1, 80: 0.1})": [0.001, 0.001, 0.001, 0.001, 0.001, 0.0001, 0.0001, 1e-05],
    'piecewise_interpolate_schedule("linear", 1e-3, {50: 0.5, 100: 0.1})': [
        0.001,
        0.00099,
        0.00091,
        0.0009,
        0.00071,
        0.0007,
        0.0005,
        5.9e-05,
    ],
    "warmup_constant_schedule(1e-3 / 11, 1e-3, 10)": [
        9.09090909e-05,
        0.000181818182,
        0.000909090909,
        0.001,
        0.001,
        0.001,
        0.001,
        0.001,
    ],
    "warmup_cosine_decay_schedule(1e-3 / 11, 1e-3, 10, 100, 1e-4)": [
        9.09090909e-05,
        0.000181818182,
        0.000909090909,
        0.001,
        0.000904604839,
        0.000894719999,
        0.00062814168,
        0.000100274128,
    ],
}
# By the source of Stable-Baselines3 2.9: the value for a remaining progress of 1 - (u + 1) / 100.
SB3_GIVES = {
    # A constant.
    "learning_rate=3e-4": {0: 3e-4, 99: 3e-4},
    # 1e-3 times 0.99, 0.5 and 0.
    "learning_rate=lambda progress: 1e-3 * progress": {0: 9.9e-4, 49: 5e-4, 99: 0.0},
    # From 1e-3 down by 9e-4 in the first half: 0.02, 0.5 and all of the way; then 1e-4.
    "learning_rate=LinearSchedule(1e-3, 1e-4, 0.5)": {0: 9.82e-4, 24: 5.5e-4, 49: 1e-4, 50: 1e-4, 99: 1e-4},
}


def ours(flags: str) -> list[float]:
    """The rates of a run of 100 updates with these flags of the command line."""
    _, commands = make_parsers(help_all=True)
    sizes = ["--preset", "none", "--num-envs", "1", "--num-steps", "8", "--total-timesteps", str(8 * UPDATES)]
    args = commands["schedule"].parse_args([*sizes, *shlex.split(flags)])
    args.command = "schedule"
    schedule = settings_from(args).config.ppo.make_schedule("policy_lr", UPDATES)
    return [schedule(update) for update in range(UPDATES)]


@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")
@pytest.mark.parametrize(("theirs", "flags"), TORCH, ids=[theirs.split("(")[0] for theirs, _ in TORCH])
def test_torch(theirs: str, flags: str) -> None:
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    scheduler = eval(theirs, vars(lr_scheduler) | {"optimizer": optimizer})
    seen = []
    for _ in range(UPDATES):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert ours(flags) == pytest.approx(seen, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize(("theirs", "flags"), OPTAX, ids=[theirs for theirs, _ in OPTAX])
def test_optax(theirs: str, flags: str) -> None:
    rates = ours(flags)
    assert [rates[update] for update in AT] == pytest.approx(OPTAX_GIVES[theirs], rel=1e-8)


@pytest.mark.parametrize(("theirs", "flags"), SB3, ids=[theirs for theirs, _ in SB3])
def test_stable_baselines3(theirs: str, flags: str) -> None:
    rates = ours(flags)
    for update, rate in SB3_GIVES[theirs].items():
        assert rates[update] == pytest.approx(rate, rel=1e-9, abs=1e-15)


def test_there_are_lines_for_each_library() -> None:
    assert (len(TORCH), len(OPTAX), len(SB3)) == (10, 10, 3)


def test_its_programs_run() -> None:
    names: dict[str, Any] = {}
    configs: list[PPOConfig] = []
    for text in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(text, names)
        configs.append(names["config"])
    # 0.95 of the rate with each update.
    first = configs[0]
    assert names["join"] is not None
    joined = first.make_schedule("policy_lr", UPDATES)
    # The line is a quarter, half and all of its way down 12.5, 25 and 50 updates after update 20.
    assert [joined(update) for update in (0, 19, 20, 45, 70)] == pytest.approx([5e-4, 5e-4, 1e-3, 5e-4, 0.0])
    progress: Callable[[int], float] = names["from_progress"](lambda left: left * 1e-3, UPDATES)
    assert [progress(update) for update in (0, 49, 99)] == pytest.approx([9.9e-4, 5e-4, 0.0])
    learning_rate = as_progress_callable(joined, UPDATES)
    assert names["learning_rate"](0.5) == learning_rate(0.5) == joined(49)
    assert [names[name].get_last_lr() for name in ("relative", "absolute")] == [[pytest.approx(5e-5)], [5e-4]]
