"""An LSTM over rollouts: its state is reset where episodes begin, and its gradient is written by hand.

Autograd would record and replay a dozen operations for each step of a sequence.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class Sequences(NamedTuple):
    """The context of B sequences of T observations: `recurrent_state` [B, S] before the first, and `begins` [B, T],
    bool.

    At an observation that begins an episode the state is zero.
    """

    recurrent_state: Tensor
    begins: Tensor


class Lstm(nn.Module):
    """A layer of `size` cells (Hochreiter and Schmidhuber 1997), with PyTorch's order of gates: i, f, g, o."""

    def __init__(self, before: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.weight_ih = nn.Parameter(torch.empty(4 * size, before))
        self.weight_hh = nn.Parameter(torch.empty(4 * size, size))
        self.bias = nn.Parameter(torch.empty(4 * size))

    @property
    def state_size(self) -> int:
        """The size of the layer's state for one environment: outputs and cells."""
        return 2 * self.size

    def initialize(self, generator: torch.Generator | None) -> None:
        nn.init.orthogonal_(self.weight_ih, generator=generator)
        nn.init.orthogonal_(self.weight_hh, generator=generator)
        nn.init.zeros_(self.bias)

    def forward(self, inputs: Tensor, sequences: Sequences) -> tuple[Tensor, Tensor]:
        """Outputs [B, T, size] for `inputs` [B, T, D], and the state [B, T, 2 * size] after each, without gradient."""
        # Masked, not multiplied by 0: the old state may not be finite.
        recurrent_state = sequences.recurrent_state.detach().masked_fill(sequences.begins[:, :1], 0.0)
        output, cells = recurrent_state.chunk(2, 1)
        gates = nn.functional.linear(inputs, self.weight_ih, self.bias).transpose(0, 1)
        keep = (~sequences.begins).to(gates.dtype).T.unsqueeze(-1)
        if torch.is_grad_enabled():
            outputs, after, *_ = _Recurrence.apply(gates, self.weight_hh, output, cells, keep)  # type: ignore[no-untyped-call]
        else:
            outputs, after, *_ = _recur(gates, self.weight_hh, output, cells, keep)
        states = torch.cat((outputs.detach(), after.detach()), -1)
        return outputs.transpose(0, 1), states.transpose(0, 1)


class Unrolling:
    """Applies layers to sequences; each `Lstm` uses the next part of the recurrent state."""

    def __init__(self, sequences: Sequences) -> None:
        self._sequences, self._used = sequences, 0
        self._states: list[Tensor] = []

    def through(self, layers: nn.Sequential, features: Tensor) -> Tensor:
        """[B, T, ...] from `features` [B, T, ...]."""
        for layer in layers:
            if isinstance(layer, Lstm):
                own = self._sequences.recurrent_state[:, self._used : self._used + layer.state_size]
                features, states = layer(features, self._sequences._replace(recurrent_state=own))
                self._used += layer.state_size
                self._states.append(states)
            else:
                features = layer(features)
        return features

    @property
    def states(self) -> Tensor:
        """[B, T, S]: the recurrent state after each observation."""
        return torch.cat(self._states, -1)


def _recur(gates: Tensor, weight: Tensor, output: Tensor, cells: Tensor, keep: Tensor) -> tuple[Tensor, ...]:
    """Outputs and cells [T, B, H], and the activated gates [T, B, 4H], from the inputs' part of the gates.

    `output` and `cells` [B, H] are the previous state; `keep` [T, B, 1] is 1, or 0 where it is reset.
    """
    transposed = weight.T
    outputs, all_cells, activated = [], [], []
    for row, kept in zip(gates, keep, strict=True):
        output, cells = output * kept, cells * kept
        logits = torch.addmm(row, output, transposed)
        enter, stay, new, leave = logits.chunk(4, 1)
        enter, stay, new, leave = enter.sigmoid(), stay.sigmoid(), new.tanh(), leave.sigmoid()
        cells = torch.addcmul(stay * cells, enter, new)
        output = leave * cells.tanh()
        outputs.append(output)
        all_cells.append(cells)
        activated.append(torch.cat((enter, stay, new, leave), 1))
    return torch.stack(outputs), torch.stack(all_cells), torch.stack(activated)


class _Recurrence(torch.autograd.Function):
    """`_recur` with a gradient for `gates` and `weight`; the initial state has none."""

    @staticmethod
    def forward(gates: Tensor, weight: Tensor, output: Tensor, cells: Tensor, keep: Tensor) -> tuple[Tensor, ...]:
        return _recur(gates, weight, output, cells, keep)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        _, weight, first_output, first_cells, keep = inputs
        outputs, all_cells, activated = output
        ctx.mark_non_differentiable(all_cells, activated)
        ctx.save_for_backward(weight, first_output, first_cells, keep, outputs, all_cells, activated)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, wanted: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        weight, first_output, first_cells, keep, outputs, all_cells, activated = ctx.saved_tensors
        before = torch.cat((first_output[None], outputs[:-1])) * keep
        cells_before = torch.cat((first_cells[None], all_cells[:-1])) * keep
        enter, stay, new, leave = activated.chunk(4, -1)
        squashed = all_cells.tanh()
        # The local derivatives from cells and outputs to each gate and to each other.
        to_cells = leave * (1 - squashed * squashed)
        from_cells = torch.stack(
            (new * enter * (1 - enter), cells_before * stay * (1 - stay), enter * (1 - new * new)), -2
        )
        from_output = squashed * leave * (1 - leave)
        stay = stay * keep
        output_gradient = cells_gradient = torch.zeros_like(first_cells)
        rows = []
        steps = zip(
            *(tensor.flip(0) for tensor in (wanted, to_cells, from_cells, from_output, stay, keep)), strict=True
        )
        for asked, output_to_cells, cells_to_gates, output_to_gate, stayed, kept in steps:
            output_gradient = output_gradient + asked
            cells_gradient = torch.addcmul(cells_gradient, output_gradient, output_to_cells)
            through_cells = (cells_gradient.unsqueeze(1) * cells_to_gates).flatten(1)
            rows.append(torch.cat((through_cells, output_gradient * output_to_gate), 1))
            output_gradient = (rows[-1] @ weight) * kept
            cells_gradient = cells_gradient * stayed
        gradients = torch.stack(rows[::-1])
        return gradients, gradients.flatten(0, 1).T @ before.flatten(0, 1), None, None, None
