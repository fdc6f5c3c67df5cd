"""A real environment is learned under a schedule."""

from esper.envs.make import make_env
from esper.simic import PPOAgent, PPOConfig, ScheduleConfig, train_ppo_vectorized
from esper.telemetry.events import UpdateCompleted


def test_cartpole_is_learned_with_warmup_and_cosine_decay() -> None:
    rate = ScheduleConfig(peak=1e-3, warmup_frac=0.1, decay="cosine", min_ratio=0.1)
    config = PPOConfig(total_timesteps=50_000, policy_lr=rate, value_lr=rate)
    env = make_env("CartPole-v1", num_envs=config.num_envs)
    events: list[UpdateCompleted] = []
    train_ppo_vectorized(PPOAgent(config, env.spec, seed=1), env, on_event=events.append)  # type: ignore[arg-type]
    returns = [event.episode_return_mean for event in events if event.episode_return_mean is not None]
    # A random policy has about 20; 500 is the most there is.
    assert sum(returns[:5]) / 5 < 40
    assert sum(returns[-5:]) / 5 > 200
