"""The kind of a task, which general settings go by where no preset is for the environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from esper.envs.config import EnvConfig
from esper.runs.config import RunConfig
from esper.settings.layers import Layer, merge
from esper.settings.options import ConfigError, settings_of, unflatten

if TYPE_CHECKING:
    from esper.envs.adapter import Adapter
    from esper.envs.given import Given

# Vectors with Box and with other actions, one Discrete observation, images, and policies that remember.
KINDS = ("continuous", "discrete", "one-hot", "images", "memory")


def kind_of(layers: Sequence[Layer], given: Given | None = None) -> str | None:
    """The kind of the environment that `layers` choose, or of `given`; None where it cannot be made.

    Makes one environment, and closes it. One that cannot be made is left to the run, which says why.

    Raises:
        SettingsError: for a name in `layers` that is unknown.
    """
    from esper.envs.base import EnvError
    from esper.envs.families import family_of
    from esper.envs.given import adapter_of_given

    values, _ = merge(settings_of(RunConfig), layers)
    if _remembers(values):
        return "memory"
    try:
        config = unflatten(EnvConfig, {name: values[name] for name in settings_of(EnvConfig) if name in values})
        return _of_spaces(family_of(config).make_adapter(config) if given is None else adapter_of_given(given, config))
    except (ConfigError, EnvError):
        return None


def _remembers(values: Mapping[str, Any]) -> bool:
    return values.get("rnn") not in (None, "none")


def _of_spaces(adapter: Adapter) -> str:
    from esper.envs.base import ContinuousActions, Images

    if isinstance(adapter.observations, Images):
        return "images"
    if adapter.one_hot:
        return "one-hot"
    return "continuous" if isinstance(adapter.actions, ContinuousActions) else "discrete"


def fitted(general: Mapping[str, Any], layers: Sequence[Layer]) -> dict[str, Any]:
    """The `general` settings, with the number of minibatches that fits the sizes in `layers`.

    It is the nearest that divides the rollout, or with a recurrent layer the environments, into two rows at least.
    """
    settings = settings_of(RunConfig)
    given, _ = merge(settings, layers)
    sizes = {name: settings[name].default for name in ("num_envs", "num_steps", "num_minibatches")}
    sizes |= {name: value for name, value in {**general, **given}.items() if name in sizes}
    try:
        num_envs, num_steps, wanted = (int(sizes[name]) for name in ("num_envs", "num_steps", "num_minibatches"))
    except (TypeError, ValueError):
        return dict(general)  # the error is that of the setting
    rows, steps = (num_envs, num_steps) if _remembers(given) else (num_envs * num_steps, 1)
    fits = [n for n in range(1, min(rows, 2 * wanted) + 1) if rows % n == 0 and rows // n * steps >= 2]
    if "num_minibatches" in given or wanted in fits or not fits:
        return dict(general)
    return {**general, "num_minibatches": min(fits, key=lambda n: (abs(n - wanted), n))}
