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


def test_the_torch_cartpole_is_learned_to_the_end() -> None:
    rate = ScheduleConfig(peak=3e-3, decay="linear")
    config = PPOConfig(
        total_timesteps=50_000,
        num_envs=16,
        num_steps=64,
        update_epochs=6,
        gamma=0.98,
        gae_lambda=0.8,
        policy_lr=rate,
        value_lr=rate,
    )
    env = make_env("torch/CartPole-v1", num_envs=config.num_envs)
    events: list[UpdateCompleted] = []
    train_ppo_vectorized(PPOAgent(config, env.spec, seed=1), env, on_event=events.append)  # type: ignore[arg-type]
    returns = [event.episode_return_mean for event in events if event.episode_return_mean is not None]
    assert sum(returns[-5:]) / 5 > 400
