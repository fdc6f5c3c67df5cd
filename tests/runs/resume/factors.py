"""The features that meet each other: levels of factors, what they stand for, and which of them cannot be together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mixed_env
from covering import Row, cover, levels_first
from mixed_parts import PARTS

# One host of two small blocks for each environment, and gates that open soon; episodes end within rollouts.
_HOSTS: Mapping[str, Any] = {
    "channels": [2, 3],
    "blueprints": ["norm", "conv"],
    "epochs": 7,
    "epoch_steps": 1,
    "batch_size": 4,
    "min_epochs": 1,
    "min_gain": 0.0,
    "min_gradient": 0.0,
    "min_contribution": 0.0,
    "blend_steps": 2,
}
# The levels of `vector` that are `esper/Growth-v0`: all hosts in one computation, or each by itself.
_GROWTH: Mapping[str, Mapping[str, Any]] = {
    "growth": {"dataset": "mixed_env:images", **_HOSTS},
    "growth, sync": {"dataset": "mixed_env:odd_images", **_HOSTS},
}
_GROWING = tuple(_GROWTH)

# Levels of each factor, and the settings they stand for. `_env` are arguments of the environment.
FACTORS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "memory": {"none": {}, **{name: {"rnn": name, "rnn_size": 3} for name in ("lstm", "gru")}},
    "observations": {
        "vector": {},
        "dict": {"_env": {"observations": "dict"}},
        "image, small": {"_env": {"observations": "image"}, "encoder": "small"},
        "image, flatten": {"_env": {"observations": "image"}, "encoder": "flatten"},
    },
    "actions": {name: {"_env": {"actions": name}} for name in mixed_env.ACTIONS},
    "scaled actions": {name: {"scale_actions": name} for name in ("off", "on")},
    "activation": {name: {"activation": name} for name in ("tanh", "relu", "elu", "gelu", "silu")},
    "critic": {"as the actor": {}, "deeper": {"critic_hidden_sizes": [5, 3]}},
    "layer norm": {"no": {}, "yes": {"layer_norm": True}},
    "masks": {"none": {}, "masked": {"_env": {"masked": True, "masks_of_vector": True}}},
    "success": {"none": {}, "told": {"_env": {"success": True}}},
    "time limit": {"none": {}, "4 steps": {"max_episode_steps": 4}},
    "observation statistics": {"no": {}, "yes": {"normalize_observations": True}},
    "reward statistics": {"no": {}, "yes": {"normalize_rewards": True}},
    "trunk": {"apart": {}, **{f"shared, {lr}": {"shared_trunk": True, "shared_lr": lr} for lr in ("policy", "min")}},
    "frozen": {"nothing": {}, "3 updates": {"freeze_encoder": 3}},
    "passed": {"id": {}, "class": {"env": "<Mixed>"}},
    "part": PARTS,
    # `check` trains what is begun with, and takes it away before the resume.
    "begun with": {
        "random weights": {},
        "policy": {"init_what": "normalizers"},
        "run": {"init_what": "optimizer"},
    },
    "vector": {
        **{name: {"vector": name} for name in ("sync", "native")},
        **{f"async, {number}": {"vector": "async", "env_workers": number} for number in (2, 4)},
        "torch": {"vector": "auto"},
        "growth": {"vector": "native"},
        # Each host is a computation: half of them.
        "growth, sync": {"vector": "sync", "num_envs": 2, "total_timesteps": 8 * 2 * 8},
    },
    "engine": {name: {"compile": name} for name in ("native", "off", "torch")}
    | {"off, bf16": {"compile": "off", "precision": "bf16"}},
    "telemetry": {name: {"telemetry": name} for name in ("off", "minimal", "normal", "debug")},
    "sinks": {
        "none": {},
        "TensorBoard": {"tensorboard": True},
        "MLflow": {"mlflow": "mixed"},
        "W&B": {"wandb": "mixed"},
    },
    "metrics after": {"no": {}, "yes": {"metrics_after": True}},
    "decay": {
        "constant": {},
        "linear": {"lr_decay": "linear"},
        "cosine": {"lr_decay": "cosine", "lr_min_ratio": 0.1},
        "polynomial": {"lr_decay": "polynomial", "lr_power": 3, "lr_decay_timesteps": 100},
        "exponential": {"lr_decay": "exponential", "lr_min_ratio": 0.01},
        "step": {"lr_decay": "step", "lr_step_size": 3, "lr_gamma": 0.5},
        "multistep": {"lr_decay": "multistep", "lr_milestones": [4, 6], "lr_gamma": 0.5},
        "inverse_sqrt": {"lr_decay": "inverse_sqrt", "lr_timescale": 2},
        "wsd": {"lr_decay": "wsd", "lr_decay_frac": 0.4, "lr_wsd_shape": "1-sqrt"},
        "cosine_restarts": {"lr_decay": "cosine_restarts", "lr_cycles": 2},
        "triangular": {"lr_decay": "triangular", "lr_cycles": 2, "lr_min_ratio": 0.1},
        "function": {"lr_decay": "mixed_env:halving"},
        "piecewise": {"lr_decay": "piecewise", "lr_points": [[0, 1e-3], [4, 1e-4], [6, 5e-4]]},
    },
    "warmup": {
        "none": {},
        "steps": {"lr_warmup_steps": 2, "policy_lr_delay": 1},
        "timesteps": {"lr_warmup_timesteps": 40},
        "fraction": {"lr_warmup_frac": 0.2, "lr_warmup_shape": "cosine", "lr_warmup_start_ratio": 0.1},
    },
    "feedback": {
        "none": {},
        "by update": {"lr_kl_target": 1e-3},
        "by minibatch, policy": {"policy_lr_kl_target": 1e-3, "policy_lr_kl_every": "minibatch"},
    },
    "coefficients": {
        "constant": {},
        "falling": {
            "clip_coef_decay": "linear",
            "entropy_coef": 0.01,
            "entropy_coef_decay": "cosine",
            "value_coef_decay": "step",
            "value_coef_step_size": 2,
            "value_coef_gamma": 0.5,
        },
    },
    "limits": {
        "none": {},
        "all": {"target_kl": 0.02, "value_clip_coef": 0.2, "max_grad_norm": "none"},
        "each": {"max_grad_norm": 0.1, "max_grad_norm_over": "group"},
        "falling": {
            "target_kl": 0.05,
            "target_kl_decay": "cosine",
            "target_kl_min_ratio": 0.2,
            "value_clip_coef": 0.2,
            "value_clip_coef_decay": "linear",
            "value_clip_coef_min_ratio": 0.1,
        },
    },
    "evaluation": {"none": {}, "best policy": {"eval_every": 2, "eval_episodes": 2}},
    "videos": {"none": {}, "every second": {"record_every": 2}},
    "draws": {name: {"_env": {"draws": name}} for name in ("own", "global")},
    "fault": {"none": {}, **{name: {"_env": {"fault": name}} for name in ("reward", "observation")}},
    "resume": {"plain": {}, "continue": {}, "extend": {}, "restart": {}},
    "end": {"killed": {}, "signal": {}},
    "export": {"none": {}, "pt2": {}, "onnx": {}},
}

# What cannot be, by levels of several factors.
FORBIDDEN: tuple[Mapping[str, tuple[str, ...]], ...] = (
    {"actions": ("box",), "masks": ("masked",)},
    {"actions": tuple(name for name in mixed_env.ACTIONS if name != "box"), "scaled actions": ("on",)},
    {"masks": ("masked",), "scaled actions": ("on",)},
    # A class has no vector version, and none makes environments in tensors.
    {"vector": ("native", "torch"), "passed": ("class",)},
    # Parts from Python are torch's, which compiles no optimizer; a network and an encoder are instead of others.
    {"engine": ("native",), "part": tuple(name for name in PARTS if name != "ours")},
    {"engine": ("torch",), "part": ("optimizer",)},
    {"part": ("network",), "memory": ("lstm", "gru")},
    {"part": ("network", "encoder"), "observations": ("image, small", "image, flatten")},
    {"part": ("network",), "trunk": ("shared, policy", "shared, min")},
    {"part": ("network",), "critic": ("deeper",)},
    # `torch` compiles each step of a recurrent network's sequences anew, and is refused.
    {"engine": ("torch",), "memory": ("lstm", "gru")},
    {"engine": ("off, bf16",), "memory": ("lstm", "gru")},
    # The environments in tensors have vectors or, with one choice, images, no masks, one choice or numbers, no faults,
    # tell of no success, and draw from a generator of their own.
    {"vector": ("torch",), "observations": ("dict",)},
    {"vector": ("torch",), "observations": ("image, small", "image, flatten"), "actions": ("box",)},
    {"vector": ("torch",), "masks": ("masked",)},
    {"vector": ("torch",), "actions": ("multi_discrete", "multi_binary")},
    {"vector": ("torch",), "fault": ("reward", "observation")},
    {"vector": ("torch",), "draws": ("global",)},
    {"vector": ("torch",), "success": ("told",)},
    # Hosts that grow have vectors, several choices and masks, tell of success, and draw from a generator of their own.
    {"vector": _GROWING, "observations": ("dict", "image, small", "image, flatten")},
    {"vector": _GROWING, "actions": ("discrete", "multi_binary", "box")},
    {"vector": _GROWING, "scaled actions": ("on",)},
    {"vector": _GROWING, "masks": ("none",)},
    {"vector": _GROWING, "success": ("none",)},
    {"vector": _GROWING, "fault": ("reward", "observation")},
    {"vector": _GROWING, "draws": ("global",)},
    {"vector": _GROWING, "passed": ("class",)},
    {"trunk": ("shared, policy", "shared, min"), "critic": ("deeper",)},
    # Without an encoder or a trunk there is nothing to freeze.
    {
        "frozen": ("3 updates",),
        "trunk": ("apart",),
        "observations": ("vector", "dict", "image, flatten"),
        "part": tuple(name for name in PARTS if name not in ("encoder", "network")),
    },
    {"frozen": ("3 updates",), "part": ("network",)},
    # Points have no warmup: it is one of them; triangles rise by themselves, a function gives every rate.
    {"decay": ("piecewise", "triangular", "function"), "warmup": ("steps", "timesteps", "fraction")},
    # A trunk that follows the lower of two rates has one factor.
    {"trunk": ("shared, min",), "feedback": ("by minibatch, policy",)},
    # It would be compiled once more for what it begins with.
    {"engine": ("torch",), "begun with": ("policy", "run")},
    # A restart leaves 4 updates, of which delay and warmup take 3.
    {"decay": ("cosine_restarts", "wsd"), "warmup": ("steps",), "resume": ("restart",)},
)

SETTINGS: Mapping[str, Any] = {
    "num_envs": 4,
    "num_steps": 8,
    "num_minibatches": 2,
    "update_epochs": 2,
    "total_timesteps": 8 * 4 * 8,
    "hidden_sizes": [4],
    "threads": 1,
    "keep_checkpoints": 99,
    "quiet": True,
    "tensorboard": False,
    "picture": False,
}
UPDATES, MORE_UPDATES = 8, 12


def allowed(row: Row) -> bool:
    """Whether a row, or a part of one, can be."""
    return not any(all(row.get(name) in levels for name, levels in rule.items()) for rule in FORBIDDEN)


def rows(strength: int = 2, *, without: Mapping[str, tuple[str, ...]] | None = None) -> list[Row]:
    """A covering set of rows, those first that have every level, and then the most that is new."""
    left_out = without or {}
    factors = {
        name: [level for level in levels if level not in left_out.get(name, ())] for name, levels in FACTORS.items()
    }
    return levels_first(cover(factors, allowed, strength))


def settings_of(row: Row) -> dict[str, Any]:
    """The settings that `row` stands for."""
    settings = dict(SETTINGS)
    env_kwargs: dict[str, Any] = {}
    for name, level in row.items():
        chosen = dict(FACTORS[name][level])
        env_kwargs |= chosen.pop("_env", {})
        settings |= chosen
    if row["decay"] != "piecewise":
        settings["lr"] = 1e-3
    if row["vector"] == "torch":
        return {**settings, "env": _in_tensors(row)}
    if row["vector"] in _GROWTH:
        return {**settings, "env": "esper/Growth-v0", "env_kwargs": _GROWTH[row["vector"]]}
    return {"env": "Mixed-v0", **settings, "env_kwargs": env_kwargs}


def named_again(row: Row) -> dict[str, Any]:
    """What a resume of `row` is told again: parts from Python, and arguments that import a module."""
    growing = {"env_kwargs": _GROWTH[row["vector"]]} if row["vector"] in _GROWTH else {}
    return {**PARTS[row["part"]], **growing}


def to_begin_with(row: Row) -> Row:
    """Of what a run of `row` can begin: the same network and environment, with nothing that needs many updates."""
    plain = ("frozen", "begun with", "telemetry", "sinks", "decay", "warmup", "feedback", "coefficients", "limits")
    left_out = {name: next(iter(FACTORS[name])) for name in (*plain, "evaluation", "videos", "fault")}
    return {**row, **left_out}


def _in_tensors(row: Row) -> str:
    if row["observations"] != "vector":
        return "torch/MinAtar/Breakout"
    return "torch/Pendulum-v1" if row["actions"] == "box" else "torch/CartPole-v1"
