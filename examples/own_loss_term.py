"""A loss term of your own, with a weight that falls; its mean over the minibatches is in the record."""

import esper

STEPS = 20_000


def small_values(inputs):
    return inputs.evaluation.value.square().mean()


def weight(update):
    return 0.01 / (1 + update)


run = esper.train("CartPole-v1", total_timesteps=STEPS, loss_terms={"small_values": (small_values, weight)}, quiet=True)
print(run)
print("mean square of the values, first and last:", run.updates["loss_term/small_values"][[0, -1]])
