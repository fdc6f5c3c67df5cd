"""Train in a Gymnasium vector environment that you made. It decides `num_envs`, and stays open until you close it."""

import gymnasium
from gymnasium.wrappers.vector import TransformReward

import esper

STEPS = 15_000

env = gymnasium.make_vec("CartPole-v1", num_envs=8, vectorization_mode="vector_entry_point")
env = TransformReward(env, lambda reward: reward / 100)
run = esper.train(env, total_timesteps=STEPS, lr=1e-3, quiet=True)
scores = run.evaluate(episodes=8)
env.close()

print(run)
print(
    f"{run.config.ppo.num_envs} environments; mean length of {len(scores.lengths)} episodes: {sum(scores.lengths) / 8}"
)
