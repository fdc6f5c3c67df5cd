"""A linear recurrence along time without a loop over time."""

from __future__ import annotations

import torch
from torch import Tensor


def decayed_sums(terms: Tensor, decays: Tensor) -> Tensor:
    """sums[t] = terms[t] + decays[t] * sums[t + 1] along the first of the dimensions [T, ...].

    In log2(T) rounds of batched operations, each of which doubles the number of terms in a sum (Hillis and Steele 1986,
    "Data parallel algorithms").
    """
    sums, reach = terms, 1
    while reach < len(terms):
        left = len(terms) - reach
        sums = torch.cat((torch.addcmul(sums[:left], decays[:left], sums[reach:]), sums[left:]))
        decays = decays[:-reach] * decays[reach:]
        reach *= 2
    return sums
