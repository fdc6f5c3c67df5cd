"""LSTM and GRU over rollouts: their state is reset where episodes begin, and their gradients are written by hand.

Autograd would record and replay a dozen operations for each step of a sequence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

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


class Recurrent(nn.Module):
    """A recurrent layer of `size` units for inputs of size `before`, with PyTorch's order of gates."""

    gates: ClassVar[int]
    parts: ClassVar[int]  # of the state, each of `size`: what the layer returns is the first

    def __init__(self, before: int, size: int) -> None:
        super().__init__()
        self.before, self.size = before, size
        self.weight_ih = nn.Parameter(torch.empty(self.gates * size, before))
        self.weight_hh = nn.Parameter(torch.empty(self.gates * size, size))
        self.bias = nn.Parameter(torch.empty(self.gates * size))

    @property
    def state_size(self) -> int:
        """The size of the layer's state for one environment."""
        return self.parts * self.size

    def initialize(self, generator: torch.Generator | None) -> None:
        nn.init.orthogonal_(self.weight_ih, generator=generator)
        nn.init.orthogonal_(self.weight_hh, generator=generator)
        nn.init.zeros_(self.bias)

    def forward(self, inputs: Tensor, sequences: Sequences) -> tuple[Tensor, Tensor]:
        """Outputs [B, T, size] for `inputs` [B, T, D], and the state [B, T, S] after each, without gradient."""
        # Masked, not multiplied by 0: the old state may not be finite.
        state = sequences.recurrent_state.detach().masked_fill(sequences.begins[:, :1], 0.0)
        gates = nn.functional.linear(inputs, self.weight_ih, self.bias).transpose(0, 1)
        keep = (~sequences.begins).to(gates.dtype).T.unsqueeze(-1)
        outputs, states = self.recur(gates, state, keep)
        return outputs.transpose(0, 1), states.transpose(0, 1)

    def recur(self, gates: Tensor, state: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs [T, B, size] and states [T, B, S] from the inputs' part of the gates [T, B, gates * size].

        `state` [B, S] is the previous one; `keep` [T, B, 1] is 1, or 0 where it is reset.
        """
        raise NotImplementedError


class Lstm(Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber 1997): gates i, f, g, o; its state is outputs and cells."""

    gates, parts = 4, 2

    def recur(self, gates: Tensor, state: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        output, cells = state.chunk(2, 1)
        if torch.is_grad_enabled():
            outputs, after, *_ = _LstmRecurrence.apply(gates, self.weight_hh, output, cells, keep)  # type: ignore[no-untyped-call]
        else:
            outputs, after, *_ = _recur_lstm(gates, self.weight_hh, output, cells, keep)
        return outputs, torch.cat((outputs.detach(), after.detach()), -1)


class Gru(Recurrent):
    """Gated recurrent unit (Cho et al. 2014, arXiv 1406.1078): gates r, z, n; its state is its outputs.

    As in PyTorch the reset gate is applied after the product with the recurrent weight, which has a bias.
    """

    gates, parts = 3, 1

    def __init__(self, before: int, size: int) -> None:
        super().__init__(before, size)
        self.bias_hn = nn.Parameter(torch.empty(size))

    def initialize(self, generator: torch.Generator | None) -> None:
        super().initialize(generator)
        nn.init.zeros_(self.bias_hn)

    def recur(self, gates: Tensor, state: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        if torch.is_grad_enabled():
            outputs, _ = _GruRecurrence.apply(gates, self.weight_hh, self.bias_hn, state, keep)  # type: ignore[no-untyped-call]
        else:
            outputs, _ = _recur_gru(gates, self.weight_hh, self.bias_hn, state, keep)
        return outputs, outputs.detach()


# By the names that settings have for them.
LAYERS: Mapping[str, type[Recurrent]] = {"lstm": Lstm, "gru": Gru}


class Unrolling:
    """Applies layers to sequences; each `Recurrent` uses the next part of the recurrent state."""

    def __init__(self, sequences: Sequences) -> None:
        self._sequences, self._used = sequences, 0
        self._states: list[Tensor] = []

    def through(self, layers: nn.Sequential, features: Tensor) -> Tensor:
        """[B, T, ...] from `features` [B, T, ...]."""
        for layer in layers:
            if isinstance(layer, Recurrent):
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


def _recur_lstm(gates: Tensor, weight: Tensor, output: Tensor, cells: Tensor, keep: Tensor) -> tuple[Tensor, ...]:
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


class _LstmRecurrence(torch.autograd.Function):
    """`_recur_lstm` with a gradient for `gates` and `weight`; the initial state has none."""

    @staticmethod
    def forward(gates: Tensor, weight: Tensor, output: Tensor, cells: Tensor, keep: Tensor) -> tuple[Tensor, ...]:
        return _recur_lstm(gates, weight, output, cells, keep)

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


def _recur_gru(gates: Tensor, weight: Tensor, bias_hn: Tensor, output: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs [T, B, H], and [T, B, 4H]: the activated gates r, z, n, and what r multiplies.

    `output` [B, H] is the previous state; `gates` and `keep` are those of `Recurrent.recur`.
    """
    size = output.shape[1]
    bias = torch.cat((bias_hn.new_zeros(2 * size), bias_hn))
    transposed = weight.T
    outputs, activated = [], []
    for row, kept in zip(gates, keep, strict=True):
        output = output * kept
        recurrent = torch.addmm(bias, output, transposed)
        reset, update = (row[:, : 2 * size] + recurrent[:, : 2 * size]).sigmoid().chunk(2, 1)
        recurrent = recurrent[:, 2 * size :]
        new = torch.addcmul(row[:, 2 * size :], reset, recurrent).tanh()
        output = new + update * (output - new)
        outputs.append(output)
        activated.append(torch.cat((reset, update, new, recurrent), 1))
    return torch.stack(outputs), torch.stack(activated)


class _GruRecurrence(torch.autograd.Function):
    """`_recur_gru` with a gradient for `gates`, `weight` and `bias_hn`; the initial state has none."""

    @staticmethod
    def forward(gates: Tensor, weight: Tensor, bias_hn: Tensor, output: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        return _recur_gru(gates, weight, bias_hn, output, keep)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        _, weight, _, first_output, keep = inputs
        outputs, activated = output
        ctx.mark_non_differentiable(activated)
        ctx.save_for_backward(weight, first_output, keep, outputs, activated)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, wanted: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        weight, first_output, keep, outputs, activated = ctx.saved_tensors
        before = torch.cat((first_output[None], outputs[:-1])) * keep
        reset, update, new, recurrent = activated.chunk(4, -1)
        # The local derivatives from outputs to the gates before their activation.
        to_new = (1 - update) * (1 - new * new)
        to_reset = to_new * recurrent * reset * (1 - reset)
        to_update = (before - new) * update * (1 - update)
        # The last is that of the recurrent product alone.
        to_gates = torch.stack((to_reset, to_update, to_new, to_new * reset), -2)
        size, update = outputs.shape[-1], update * keep
        output_gradient = torch.zeros_like(first_output)
        rows = []
        for asked, output_to_gates, updated, kept in zip(
            *(tensor.flip(0) for tensor in (wanted, to_gates, update, keep)), strict=True
        ):
            output_gradient = output_gradient + asked
            rows.append((output_gradient.unsqueeze(1) * output_to_gates).flatten(1))
            through_product = torch.cat((rows[-1][:, : 2 * size], rows[-1][:, 3 * size :]), 1) @ weight
            output_gradient = output_gradient * updated + through_product * kept
        gradients = torch.stack(rows[::-1])
        recurrent = torch.cat((gradients[..., : 2 * size], gradients[..., 3 * size :]), -1).flatten(0, 1)
        return (
            gradients[..., : 3 * size],
            recurrent.T @ before.flatten(0, 1),
            recurrent[:, 2 * size :].sum(0),
            None,
            None,
        )
