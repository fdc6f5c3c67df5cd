"""A trained policy in a loop of Gymnasium's."""

import gymnasium
import torch

import esper

STEPS = 50_000

folder = esper.train("CartPole-v1", total_timesteps=STEPS, quiet=True).folder

network = esper.load_policy(folder).network
env = gymnasium.make("CartPole-v1")
observation, _ = env.reset(seed=0)
total, ended = 0.0, False
while not ended:
    (action,) = network.act(torch.from_numpy(observation)[None]).tolist()  # a batch of one observation
    observation, reward, terminated, truncated, _ = env.step(action)
    total, ended = total + reward, terminated or truncated
env.close()
print(f"return: {total}")
