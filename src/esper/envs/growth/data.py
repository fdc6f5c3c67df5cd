"""The images that hosts learn to classify."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from esper.envs.growth.config import GrowthConfig
from esper.envs.growth.outside import imported
from esper.envs.registration import how_to_install
from esper.settings.options import ConfigError

_FIELDS = ("x_train", "y_train", "x_val", "y_val")
# Of the 1,797 digits; the others are for training.
_VALIDATED = 360


class Data(NamedTuple):
    """Images, float32 [N, C, H, W], and their classes, int64 [N], numbered from 0; for training and validation."""

    x_train: Tensor
    y_train: Tensor
    x_val: Tensor
    y_val: Tensor

    @property
    def classes(self) -> int:
        return int(max(self.y_train.max(), self.y_val.max())) + 1


def load(config: GrowthConfig, device: torch.device) -> Data:
    """The dataset of `config`, on `device`.

    Raises:
        ConfigError: when it cannot be loaded, or has other shapes than `Data`.
    """
    arrays = _digits(config) if config.dataset == "digits" else _called(config.dataset)
    return Data(*(torch.from_numpy(array).to(device) for array in _checked(arrays, config)))


def _digits(config: GrowthConfig) -> Any:
    """scikit-learn's digits, 8x8 pixels, with noise of `config.noise`; split by `config.data_seed`."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ConfigError("dataset", "digits", f"{how_to_install('growth')}; {error}") from None
    digits, generator = load_digits(), np.random.default_rng(config.data_seed)
    order = generator.permutation(len(digits.target))
    images = (digits.images[order, None] / 16).astype(np.float32)
    images += config.noise * generator.standard_normal(images.shape, dtype=np.float32)
    classes = digits.target[order].astype(np.int64)
    return images[_VALIDATED:], classes[_VALIDATED:], images[:_VALIDATED], classes[:_VALIDATED]


def _called(named: str) -> Any:
    if ":" not in named:
        raise ConfigError("dataset", named, "must be digits or module:function")
    function = imported("dataset", named)
    if not callable(function):
        raise ConfigError("dataset", named, "is no function")
    return function()


def _checked(arrays: Any, config: GrowthConfig) -> tuple[NDArray[Any], ...]:
    def refused(why: str) -> ConfigError:
        return ConfigError("dataset", config.dataset, why)

    if not isinstance(arrays, tuple | list) or len(arrays) != len(_FIELDS):
        raise refused(f"must return four arrays: {', '.join(_FIELDS)}")
    x_train, y_train, x_val, y_val = map(np.asarray, arrays)
    for name, x, y in (("train", x_train, y_train), ("val", x_val, y_val)):
        if x.ndim != 4 or not len(x) or x.dtype.kind not in "fui":
            raise refused(f"x_{name} must be numbers [N, channels, height, width], not {x.dtype} {list(x.shape)}")
        if y.shape != (len(x),) or y.dtype.kind not in "ui" or y.min() < 0:
            raise refused(f"y_{name} must be classes from 0, integers [{len(x)}], not {y.dtype} {list(y.shape)}")
        if not np.isfinite(x).all():
            raise refused(f"x_{name} has numbers that are not finite")
    if x_train.shape[1:] != x_val.shape[1:]:
        raise refused(f"x_val has images {list(x_val.shape[1:])}, x_train {list(x_train.shape[1:])}")
    smallest = 2 ** len(config.channels)
    if min(x_train.shape[2:]) < smallest:
        blocks = f"{len(config.channels)} blocks halve them to nothing"
        raise refused(f"its images are {list(x_train.shape[2:])}, and {blocks}: at least {smallest} pixels")
    if config.batch_size > len(x_train):
        raise ConfigError("batch_size", config.batch_size, f"must be at most the {len(x_train)} images of training")
    x_train, x_val = (np.ascontiguousarray(x, dtype=np.float32) for x in (x_train, x_val))
    y_train, y_val = (np.ascontiguousarray(y, dtype=np.int64) for y in (y_train, y_val))
    return x_train, y_train, x_val, y_val
