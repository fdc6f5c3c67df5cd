"""Functions and blueprints that a setting names as `module:name`."""

from __future__ import annotations

import importlib
import operator
from typing import Any

from esper.settings.options import ConfigError


def imported(setting: str, named: str) -> Any:
    """What `named`, `module:name`, is.

    Raises:
        ConfigError: when there is none.
    """
    module, _, name = named.partition(":")
    try:
        return operator.attrgetter(name)(importlib.import_module(module))
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(setting, named, f"cannot be imported: {error}") from None
