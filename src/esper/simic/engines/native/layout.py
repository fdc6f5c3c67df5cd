"""What Python and the kernels share, checked when they are loaded: structs field by field, numbers by name.

`kernels/layout.h` has the other side.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from ctypes import POINTER, Structure, c_char_p, c_float, c_int32, c_int64, c_void_p
from typing import NamedTuple

from esper.simic.engines.native.library import BuildError, load_library

# The last one only where actor and critic share layers.
GROUPS = ("policy", "value", "shared")
EACH = c_void_p * len(GROUPS)

LAYERS = ("linear", "layer_norm", "lstm", "gru", "convolution")
ACTIVATIONS = ("identity", "tanh", "relu", "elu", "gelu", "silu")
METRICS = (
    *("loss", "policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction"),
    *("ratio_mean", "ratio_deviation_sq", "ratio_min", "ratio_max"),
)


class LayerConfig(Structure):
    """A layer: its widths, the activation of its output, and where its parameters begin in their group's vector.

    An input of several channels is an image; convolutions have what follows.
    """

    _fields_ = (
        ("kind", c_int32),
        ("inputs", c_int32),
        ("outputs", c_int32),
        ("activation", c_int32),
        ("first", c_int64),
        ("channels", c_int32),
        ("width", c_int32),
        ("kernel", c_int32),
        ("stride", c_int32),
    )


class NetworkConfig(Structure):
    """A sequence of layers."""

    _fields_ = (("count", c_int32), ("layers", POINTER(LayerConfig)))


class Feedback(Structure):
    """How the factor of a learning rate follows approx_kl."""

    _fields_ = (
        ("target", c_float),
        ("min_factor", c_float),
        ("max_factor", c_float),
        ("step", c_float),
        ("every_minibatch", c_int32),
    )


class LearnerConfig(Structure):
    """Networks, and settings that stay; a negative limit is none."""

    _fields_ = (
        ("networks", NetworkConfig * len(GROUPS)),
        ("parameters", c_int64 * len(GROUPS)),
        ("log_std", c_int64),
        ("groups", c_int32),
        ("normalize_advantages", c_int32),
        ("sequence_steps", c_int32),
        ("choices", c_int32),
        ("choice_sizes", POINTER(c_int32)),
        ("max_grad_norm", c_float),
        ("max_grad_norm_over_group", c_int32),
        ("adam_eps", c_float),
        ("feedback", Feedback * len(GROUPS)),
        ("quantile_count", c_int32),
        ("quantiles", POINTER(c_float)),
    )


class Batch(Structure):
    """Rows to learn from, or sequences."""

    _fields_ = tuple(
        (name, c_void_p)
        for name in (
            *("obs", "byte_values", "actions", "log_probs", "values", "advantages", "returns", "masks"),
            *("recurrent_state", "begins", "selected"),
        )
    )


class Ends(Structure):
    """Where episodes of a rollout end, and the last observations of truncated ones."""

    _fields_ = tuple((name, c_void_p) for name in ("final_obs", "terminated", "truncated"))


class State(Structure):
    """What an update changes, and the rates that it reads."""

    _fields_ = (
        ("parameters", EACH),
        ("exp_avg", EACH),
        ("exp_avg_sq", EACH),
        ("step", c_void_p),
        ("learning_rates", EACH),
        ("clip_coef", c_void_p),
        ("entropy_coef", c_void_p),
        ("value_coef", c_void_p),
        ("value_clip_coef", c_void_p),
        ("target_kl", c_void_p),
        ("stepping", c_void_p),
        ("finite", c_void_p),
        ("factors", EACH),
    )


class Normalizer(Structure):
    """Scales observations; without a mean it leaves them alone, unless bytes have values."""

    _fields_ = (("mean", c_void_p), ("deviation", c_void_p), ("limit", c_float), ("byte_values", c_void_p))


class Rollout(Structure):
    """Where a rollout is written, and what it is drawn from."""

    _fields_ = tuple(
        (name, c_void_p)
        for name in (
            *("obs", "actions", "rewards", "terminated", "truncated", "final_obs"),
            *("state", "steps", "noise", "uniform"),
            *("recurrent_state", "begins", "recurrent_resets"),
        )
    )


class Inputs(Structure):
    """What is learned from; null for what is not float32."""

    _fields_ = tuple((name, c_void_p) for name in ("obs", "final_obs", "rewards", "actions", "terminated", "truncated"))


class Kernels(NamedTuple):
    """The library, which variant it is, and the numbers of the environments that it has, by name."""

    library: ctypes.CDLL
    variant: str
    environments: Mapping[str, int]


def load_kernels() -> Kernels:
    """The kernels for this machine.

    Raises:
        BuildError: where they cannot be had, or were made of sources with another layout than Python's.
    """
    library, variant = load_library()
    library.esper_layout.restype = c_char_p
    theirs = _parse(library.esper_layout().decode())
    environments = {
        name.removeprefix("environment."): numbers[0]
        for name, numbers in theirs.items()
        if name.startswith("environment.")
    }
    ours = _declared()
    for name in (*ours, *theirs):
        if not name.startswith("environment.") and ours.get(name) != theirs.get(name):
            raise BuildError(f"the kernels have another layout: {name} is {theirs.get(name)}, here {ours.get(name)}")
    return Kernels(library, variant, environments)


def _declared() -> dict[str, tuple[int, int]]:
    """Offset and size of every field, bytes, and number and size of every metric, activation and kind of layer."""
    found: dict[str, tuple[int, int]] = {}
    for struct in (
        LayerConfig,
        NetworkConfig,
        Feedback,
        LearnerConfig,
        Batch,
        Ends,
        State,
        Normalizer,
        Rollout,
        Inputs,
    ):
        for name, *_ in struct._fields_:
            field = getattr(struct, name)
            found[f"{struct.__name__}.{name}"] = (field.offset, field.size)
    for kind, names, number in (
        ("metric", METRICS, c_float),
        ("activation", ACTIVATIONS, c_int32),
        ("layer", LAYERS, c_int32),
    ):
        found |= {f"{kind}.{name}": (index, ctypes.sizeof(number)) for index, name in enumerate(names)}
    return found


def _parse(text: str) -> dict[str, tuple[int, int]]:
    lines = (line.split(" ") for line in text.splitlines())
    return {name: (int(first), int(second)) for name, first, second in lines}
