"""Observations may be a `Dict`: its parts are joined to one vector, `Discrete` parts one-hot."""

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete

import esper

STEPS = 30_000


class Reach(gymnasium.Env):
    """A point on a line, and a goal on the left or on the right: reach it in few steps."""

    observation_space = Dict({"position": Box(-1, 1, (1,)), "goal": Discrete(2)})
    action_space = Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position, self.goal = 0.0, int(self.np_random.integers(2))
        return self.observe(), {}

    def step(self, action):
        self.position = float(np.clip(self.position + (0.2 if action else -0.2), -1, 1))
        reached = abs(self.position - (1.0 if self.goal else -1.0)) < 0.1
        return self.observe(), -1.0, reached, False, {}

    def observe(self):
        return {"position": np.array([self.position], dtype=np.float32), "goal": self.goal}


run = esper.train(Reach, max_episode_steps=50, total_timesteps=STEPS, lr=3e-3, quiet=True)
print(run)
print(f"steps to the goal: {run.evaluate(episodes=8).lengths}; five are the fewest")
