"""Train in an environment of your own: pass its class, and its arguments as `env_kwargs`."""

import gymnasium
from gymnasium.spaces import Discrete

import esper

STEPS = 20_000


class Corridor(gymnasium.Env):
    """Cells in a row, begun in the first; an episode ends in the last, and every step costs 1."""

    def __init__(self, length):
        self.observation_space = Discrete(length)
        self.action_space = Discrete(2)
        self.last = length - 1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.cell = 0
        return self.cell, {}

    def step(self, action):
        self.cell = max(0, self.cell + (1 if action else -1))
        return self.cell, -1.0, self.cell == self.last, False, {}

    # With these two methods a run resumes exactly where it stopped.
    def state_dict(self):
        return {"cell": self.cell}

    def load_state_dict(self, state):
        self.cell = state["cell"]


run = esper.train(
    Corridor,
    env_kwargs={"length": 8},
    max_episode_steps=100,
    total_timesteps=STEPS,
    lr=3e-3,
    lr_decay="linear",
    quiet=True,
)
print(run)
print(f"return of one episode: {run.evaluate(episodes=1).returns[0]}; seven steps are the shortest way")
