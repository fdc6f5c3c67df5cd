"""A schedule of your own is a function of the update index; `join` and `clamp` make schedules of others."""

import esper
from esper.schedules import clamp, join

UPDATES = 30


def sawtooth(update):
    return 1e-3 * (1 - update % 10 / 10)


run = esper.train(
    "CartPole-v1",
    policy_lr=clamp(sawtooth, minimum=2e-4),
    value_lr=join([2e-3, sawtooth], boundaries=[10]),  # constant for 10 updates, then the sawtooth from its beginning
    total_timesteps=UPDATES * 8 * 128,
    quiet=True,
)
for update in range(0, UPDATES, 3):
    policy, value = (run.updates[name][update] for name in ("lr/policy", "lr/value"))
    print(f"update {update:2}: policy {policy:.1e}, value {value:.1e}")
