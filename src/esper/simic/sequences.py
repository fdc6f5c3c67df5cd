"""Rollouts of a recurrent policy, as one sequence for each environment."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from esper.simic.losses import Minibatch
from esper.simic.nets.actor_critic import ActorCritic
from esper.simic.nets.recurrent import Sequences
from esper.simic.rollout import Rollout, at_rows, on_device


def evaluate_sequences(network: ActorCritic, rollout: Rollout, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Log probabilities, values, and values of the next states, each [T, N], `size` environments at once.

    Observations are normalized ones. After truncation the next state is that of the final observation, with the
    recurrent state of the step before.
    """
    assert rollout.recurrent_state is not None
    obs, finals = rollout.obs, rollout.final_obs
    begins = on_device(rollout.begins, obs.device)
    cut = rollout.truncated & ~rollout.terminated
    pieces = []
    for rows in torch.split(torch.arange(obs.shape[1], device=obs.device), size):
        sequences = Sequences(rollout.recurrent_state[rows], begins[:, rows].T)
        masks = None if rollout.masks is None else rollout.masks[:, rows].transpose(0, 1)
        outputs, values, states = network.unroll(obs[:, rows].transpose(0, 1), sequences)
        policy = network.distribution(outputs[:, :-1], masks)
        log_probs = policy.log_prob(rollout.actions[:, rows].transpose(0, 1))
        values = values.squeeze(-1)
        next_values = _with_final_values(
            network, values[:, 1:], finals[:, rows].transpose(0, 1), states[:, :-1], cut[:, rows].T
        )
        pieces.append((log_probs, values[:, :-1], next_values))
    log_probs, values, next_values = (torch.cat(column).T for column in zip(*pieces, strict=True))
    return log_probs, values, next_values


def _with_final_values(network: ActorCritic, values: Tensor, finals: Tensor, states: Tensor, cut: Tensor) -> Tensor:
    """`values` [B, T], where `cut` those of the final observations `finals` [B, T, ...] after `states` [B, T, S]."""

    def value(obs: Tensor, state: Tensor) -> Tensor:
        alone = Sequences(state, torch.zeros((len(state), 1), dtype=torch.bool, device=obs.device))
        return network.unroll(obs.unsqueeze(1), alone)[1].flatten()

    return at_rows(cut, value, finals, states, elsewhere=values)


def to_sequences(batch: Minibatch, rollout: Rollout, generator: np.random.Generator) -> Minibatch:
    """`batch`, with fields [T, N, ...], as a row for each environment.

    A step that an environment used to reset stays in the sequence, as it did when the policy acted, but its targets are
    those of another step of the same environment.
    """
    rows = batch.map(lambda field: field.transpose(0, 1).contiguous())
    begins = on_device(rollout.begins[:-1].T.copy(), rows.returns.device)
    rows = rows._replace(recurrent_state=rollout.recurrent_state, begins=begins)
    if not rollout.ignored.any():
        return rows
    selected = on_device(_select(rollout.ignored.T, generator), rows.returns.device)
    learned = ("log_probs", "values", "advantages", "returns")
    return rows._replace(selected=selected, **{name: getattr(rows, name).gather(1, selected) for name in learned})


def _select(ignored: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """For each row of `ignored` [N, T] its step indices, with a random other one for ignored steps."""
    selected = np.tile(np.arange(ignored.shape[1]), (len(ignored), 1))
    for row, skipped in zip(selected, ignored, strict=True):
        row[skipped] = generator.choice(np.flatnonzero(~skipped), size=int(skipped.sum()))
    return selected
