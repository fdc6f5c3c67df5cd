"""Choosing what computes an update: the C++ kernels, `torch.compile`, or torch as it is."""

from __future__ import annotations

import functools
import logging
from typing import Literal, NamedTuple

from esper.settings.options import ConfigError
from esper.simic.engines.compilers import missing_to_compile
from esper.simic.engines.native.engine import NativeEngine
from esper.simic.engines.native.library import BuildError
from esper.simic.engines.protocol import Engine, Workload
from esper.simic.engines.torch import TorchEngine
from esper.system.machine import usable_cores

_log = logging.getLogger(__name__)

# torch.compile takes 15 to 40 s of a two-core machine and saves about 3 ms a step on small networks.
MIN_STEPS_TO_COMPILE = 8_000

# Below so many multiplications in a minibatch, threads wait for each other longer than they compute.
_MIN_WORK_FOR_TORCH_THREADS = 2**26
# What a thread of the kernels should have, in rows of a minibatch: as many as go into one partial sum.
_ROWS_PER_THREAD = 128

EngineName = Literal["native", "torch", "graphs", "eager"]


class EngineChoice(NamedTuple):
    """An engine, its name, and how many CPU threads it computes with: the kernels start their own, torch has its."""

    name: EngineName
    threads: int
    engine: Engine


def choose_engine(workload: Workload) -> EngineChoice:
    """The engine that `compile` of the runtime's settings asks for. `auto` takes what is there, and says so once.

    Raises:
        ConfigError: for an engine that is asked for by name and cannot be had.
    """
    asked = workload.config.runtime.compile
    warned = False
    if asked in ("auto", "native"):
        missing = NativeEngine.missing(workload)
        try:
            if missing is None:
                threads = _threads("native", workload)
                return EngineChoice("native", threads, NativeEngine(workload, threads))
            line = f"updates run in torch: the C++ kernels do not compute {missing}"
        except BuildError as error:
            missing, warned = str(error), True
            line = f"{missing}: updates run several times slower"
        if asked == "native":
            raise ConfigError("compile", asked, f"is not available: {missing}; use auto, torch or off")
        _say_once(logging.WARNING if warned else logging.INFO, line)
    _check_asked(workload)
    compiled = _would_compile(workload)
    if compiled and (missing := missing_to_compile(workload.device)) is not None:
        compiled = False
        if asked == "torch":
            raise ConfigError("compile", asked, f"needs {missing}; use auto or off without")
        if not warned:
            _say_once(logging.WARNING, f"torch.compile needs {missing}: updates run several times slower")
    graphs = asked == "graphs" or (asked == "auto" and _would_replay(workload))
    name: EngineName = "graphs" if graphs else "torch" if compiled else "eager"
    replayed = graphs or (compiled and workload.device.type == "cuda")
    engine = TorchEngine(workload, compiled=compiled, replayed=replayed, whole=graphs)
    return EngineChoice(name, _threads(name, workload), engine)


def _check_asked(workload: Workload) -> None:
    """Raise a ConfigError where torch cannot do what it is asked to by name."""
    asked = workload.config.runtime.compile
    if asked == "torch" and workload.network.state_size:
        raise ConfigError(
            "compile", asked, "would compile each step of a recurrent network's sequences anew; use auto, graphs or off"
        )
    if asked == "graphs" and workload.device.type != "cuda":
        allowed = f"needs a CUDA device, not {workload.device}; use auto, native, torch or off"
        raise ConfigError("compile", asked, allowed)
    if asked in ("torch", "graphs") and workload.optimizer.is_given:
        raise ConfigError("compile", asked, "is not available: an optimizer from Python; use auto or off")


def _would_compile(workload: Workload) -> bool:
    """Whether torch is to compile, which it is asked to, or may where it pays."""
    asked = workload.config.runtime.compile
    if asked == "auto" and workload.optimizer.is_given:
        _log.info("compile auto: torch computes an optimizer from Python, uncompiled")
        return False
    if asked == "off" or workload.network.state_size:
        return False
    # Whether a user's code can be compiled only shows when it is.
    given = workload.network.is_given or bool(workload.given_terms)
    return asked != "auto" or not (given or workload.config.minibatch_steps < MIN_STEPS_TO_COMPILE)


def _would_replay(workload: Workload) -> bool:
    """Whether rollouts and updates may be CUDA graphs: a user's code may wait for the device, which ends a capture."""
    given = workload.network.is_given or workload.given_terms or workload.optimizer.is_given
    return workload.device.type == "cuda" and not given and not workload.network.state_size


def _threads(engine: EngineName, workload: Workload) -> int:
    parameters = sum(len(flat) for flat in workload.optimizer.parameters)
    return workload.config.runtime.threads or default_threads(engine, parameters, workload.config.minibatch_size)


@functools.cache
def _say_once(level: int, message: str) -> None:
    """A process may make many agents."""
    _log.log(level, "%s", message)


def default_threads(engine: EngineName, parameters: int, minibatch_size: int) -> int:
    """How many CPU threads are worth having for networks of so many `parameters`."""
    if engine == "native":
        return max(1, min(usable_cores(), minibatch_size // _ROWS_PER_THREAD))
    return usable_cores() if parameters * minibatch_size >= _MIN_WORK_FOR_TORCH_THREADS else 1
