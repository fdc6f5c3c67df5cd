"""A trained policy in a loop of Gymnasium's."""

import gymnasium

import esper

STEPS = 50_000

folder = esper.train("CartPole-v1", total_timesteps=STEPS, quiet=True).folder

policy = esper.load_policy(folder)
env = gymnasium.make("CartPole-v1")
observation, _ = env.reset(seed=0)
total, ended = 0.0, False
while not ended:
    action, _ = policy.predict(observation)
    observation, reward, terminated, truncated, _ = env.step(action)
    total, ended = total + reward, terminated or truncated
env.close()
print(f"return: {total}")
