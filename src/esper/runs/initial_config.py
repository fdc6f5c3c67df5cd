"""What a run begins with. Does not import torch, so the command line starts quickly."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from esper.settings.options import ConfigError, check_options, option


@dataclass(frozen=True, kw_only=True)
class InitialConfig:
    """The policy that a run begins with, in place of random weights."""

    group: ClassVar[str] = "initial policy"
    # The name, in files, of a policy that was passed from Python.
    PASSED: ClassVar[str] = "<Policy>"

    init_from: str | Path | None = option(
        None,
        "begin with the weights of a run (its folder), of a checkpoint or of a saved policy: for the same observations "
        "and layers; the policy's last layer is new where actions differ",
    )
    init_what: Literal["weights", "normalizers", "optimizer"] = option(
        "normalizers",
        "what is taken: weights; normalizers, the statistics of observations and rewards too; optimizer, its moments "
        "too",
    )

    # What is taken from, where it was passed from Python: `init_from` is its name. Not a setting.
    given: Any = dataclasses.field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_options(self)
        if self.init_from is None and self.init_what != "normalizers":
            raise ConfigError("init_what", self.init_what, "needs init_from")

    @property
    def was_given(self) -> bool:
        """Whether it was passed from Python, be it now or when its run began."""
        return self.init_from == self.PASSED
