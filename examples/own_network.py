"""A network, an activation and an optimizer of your own; a resume and a loaded policy need the network again."""

import functools

import torch
from torch import nn

import esper

STEPS = 20_000


class Wide(nn.Module):
    """`actor` and `critic` after a shared `trunk`; `shared_lr` says whose rate the trunk follows."""

    def __init__(self, spec):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(spec.observations.size, 128), nn.Mish())
        self.actor = nn.Linear(128, spec.actions.outputs)
        self.critic = nn.Linear(128, 1)


decayed = functools.partial(torch.optim.AdamW, weight_decay=1e-4)
run = esper.train("CartPole-v1", total_timesteps=STEPS, network=Wide, optimizer=decayed, lr=1e-3, quiet=True)
print(run)
policy = esper.load_policy(run.folder, network=Wide)
print("parameters:", sum(parameter.numel() for parameter in policy.network.parameters()))
print(run.resume(total_timesteps=2 * STEPS))
