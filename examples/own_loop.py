"""The layer below `esper.train`: an agent, an environment, and a loop of your own that makes one update at a time."""

from esper import PPOAgent, PPOConfig, ScheduleConfig, make_env
from esper.simic.vectorized import Training
from esper.telemetry.events import UpdateCompleted

STEPS = 30_000

env = make_env("CartPole-v1", num_envs=8)
config = PPOConfig(
    total_timesteps=STEPS,
    policy_lr=ScheduleConfig(peak=1e-3, warmup_frac=0.1, decay="cosine"),
    value_lr=2e-3,
)
agent = PPOAgent(config, env.spec, seed=1)
training = Training(agent, env, env_seed=1)
best_return, best = 0.0, agent.state_dict()
while training.updates < config.total_updates:
    update = training.update()  # collects a rollout and learns from it
    if isinstance(update, UpdateCompleted) and update.episodes and update.episode_return_mean > best_return:
        best_return, best = update.episode_return_mean, agent.state_dict()
        print(f"{update.env_steps:6,} steps, rate {update.lr['policy']:.1e}, return {best_return:.0f}")
agent.load_state_dict(best)
env.close()
print(f"the agent is that of {agent.train_steps} updates again")
