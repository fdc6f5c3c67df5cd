"""Forms of states: a component declares the form of its `state_dict`, so that stored ones can be checked.

A form is a tree like the state, with a meta tensor (dtype and shape, no numbers) in place of each tensor or array, a
type in place of each other value, and `object` in place of values that the component checks itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

StateForm: TypeAlias = Mapping[str, Any]


def array(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """The form of a tensor, or of a NumPy array."""
    return torch.empty(shape, dtype=dtype, device="meta")


def form_of(tensors: Mapping[str, Any]) -> StateForm:
    """The form of a tree of tensors whose sizes do not change."""
    return {
        name: form_of(value) if isinstance(value, Mapping) else array(*value.shape, dtype=value.dtype)
        for name, value in tensors.items()
    }
