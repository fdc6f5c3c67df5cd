"""Choosing what computes an update: the C++ learner, `torch.compile`, or torch as it is."""

from __future__ import annotations

import functools
import logging
import shutil
import sysconfig
from pathlib import Path
from typing import Literal, NamedTuple

from esper.settings.options import ConfigError
from esper.simic.config import PPOConfig
from esper.simic.engines.learner import Gate, Learner, TorchLearner
from esper.simic.engines.native.cache import mounted_noexec
from esper.simic.engines.native.learner import NativeLearner, unsupported
from esper.simic.engines.native.library import BuildError
from esper.simic.losses import Coefficients
from esper.simic.nets.actor_critic import ActorCritic
from esper.simic.optimizers import Adam
from esper.system.machine import usable_cores

_log = logging.getLogger(__name__)

# torch.compile takes 15 to 40 s of a two-core machine and saves about 3 ms a step on small networks.
MIN_STEPS_TO_COMPILE = 8_000

# Below so many multiplications in a minibatch, threads wait for each other longer than they compute.
_MIN_WORK_FOR_TORCH_THREADS = 2**26
# What a thread of the kernels should have, in rows of a minibatch: as many as go into one partial sum.
_ROWS_PER_THREAD = 128

Engine = Literal["native", "torch", "eager"]


class Made(NamedTuple):
    """A learner, its kind, and how many CPU threads it computes with: the kernels start their own, torch has its."""

    engine: Engine
    threads: int
    learner: Learner


def make_learner(
    network: ActorCritic,
    optimizer: Adam,
    coefficients: Coefficients,
    gate: Gate,
    config: PPOConfig,
    *,
    masked: bool = False,
    debug: bool = False,
) -> Made:
    """The learner that `config.runtime.compile` asks for. `auto` takes what is there, and says so once.

    It is given masks if `masked`. With `debug` its metrics have the columns of `RATIO_QUANTILES` too.

    Raises:
        ConfigError: for an engine that is asked for by name and cannot be had.
    """
    asked, device = config.runtime.compile, optimizer.state.step.device
    parameters = sum(len(flat) for flat in optimizer.state.parameters)

    def threads(engine: Engine) -> int:
        return config.runtime.threads or default_threads(engine, parameters, config.minibatch_size)

    if asked in ("auto", "native"):
        reason = unsupported(network, device, masked=masked)
        try:
            if reason is None:
                count = threads("native")
                native = NativeLearner(network, optimizer, coefficients, gate, config, count, debug=debug)
                return Made("native", count, native)
        except BuildError as error:
            reason = str(error)
            if asked == "auto":
                _warn_once(f"{reason}: updates run several times slower")
        if asked == "native":
            raise ConfigError("compile", asked, f"is not to be had: {reason}; use auto, torch or off")
    if network.memory_size and asked == "torch":
        raise ConfigError("compile", asked, "would compile each step of an LSTM's sequences anew; use auto or off")
    if network.memory_size:
        asked = "off"
    compiled = asked == "torch" or (asked == "auto" and config.minibatch_steps >= MIN_STEPS_TO_COMPILE)
    missing = _missing_to_compile() if compiled and device.type == "cpu" else None
    if missing is not None:
        if asked == "torch":
            raise ConfigError("compile", asked, f"needs {missing}; use auto or off without")
        compiled = False
    learner = TorchLearner(network, optimizer, coefficients, gate, config, compiled=compiled, debug=debug)
    engine: Engine = "torch" if compiled else "eager"
    return Made(engine, threads(engine), learner)


@functools.cache
def _warn_once(message: str) -> None:
    """A process may make many agents."""
    _log.warning("%s", message)


def default_threads(engine: Engine, parameters: int, minibatch_size: int) -> int:
    """How many CPU threads are worth having for networks of so many `parameters`."""
    if engine == "native":
        return max(1, min(usable_cores(), minibatch_size // _ROWS_PER_THREAD))
    return usable_cores() if parameters * minibatch_size >= _MIN_WORK_FOR_TORCH_THREADS else 1


def _missing_to_compile() -> str | None:
    """What Inductor's C++ needs and this machine lacks."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    try:
        compiler = shutil.which(get_cpp_compiler())
    except (InvalidCxxCompiler, OSError):
        compiler = None
    if compiler is None:
        return "a C++ compiler (g++ or clang++ on PATH, or CXX)"
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "Python's C headers (Debian: python3-dev)"
    try:
        folder = cache_dir()
    except OSError as error:
        return f"a folder for what it compiles ({error})"
    if mounted_noexec(folder):
        return f"TORCHINDUCTOR_CACHE_DIR that is not mounted noexec, as {folder} is"
    return None
