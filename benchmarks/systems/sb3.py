"""PPO of Stable-Baselines3 (PyTorch) on Gymnasium's environments, stepped one after the other by `DummyVecEnv`.

What differs from Esper: the value loss is the whole mean squared error, where Esper takes half of it. A reward of an
episode that was cut short gets the last observation's value added, at the cost of a forward pass each.
"""

from __future__ import annotations

import statistics
from typing import Any

import choices  # noqa: F401  (registers its environments)
from common import (
    CLIP_COEF,
    ENTROPY_COEF,
    GAE_LAMBDA,
    GAMMA,
    MAX_GRAD_NORM,
    VALUE_COEF,
    Arguments,
    Clock,
    Outcome,
    main,
)


def train(args: Arguments, clock: Clock) -> Outcome:
    from stable_baselines3 import PPO

    return learn(PPO, args, clock)


def learn(ppo: type[Any], args: Arguments, clock: Clock) -> Outcome:
    """Train with `ppo`, of Stable-Baselines3 or of one with its interface.

    Tanh and Adam's epsilon of 1e-5 are its defaults, and Stable-Baselines3's are orthogonal weights.
    """
    import torch
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env

    class Ticks(BaseCallback):
        """An update ends where the next rollout starts."""

        def _on_rollout_start(self) -> None:
            if self.num_timesteps:
                clock.tick()

        def _on_training_end(self) -> None:
            clock.tick()

        def _on_step(self) -> bool:
            return True

    torch.set_num_threads(args.threads)
    model = ppo(
        "MlpPolicy",
        make_vec_env(args.env, n_envs=args.num_envs, seed=args.seed),
        learning_rate=args.lr,
        n_steps=args.num_steps,
        batch_size=args.minibatch_size,
        n_epochs=args.update_epochs,
        gamma=GAMMA,
        gae_lambda=GAE_LAMBDA,
        clip_range=CLIP_COEF,
        normalize_advantage=True,
        ent_coef=ENTROPY_COEF,
        vf_coef=VALUE_COEF,
        max_grad_norm=MAX_GRAD_NORM,
        policy_kwargs={"net_arch": {"pi": args.hidden, "vf": args.hidden}},
        seed=args.seed,
        device="cpu",
        verbose=0,
    )
    model.learn(args.timesteps, callback=Ticks(), log_interval=None)
    # Its window is of 100 episodes.
    returns = [float(episode["r"]) for episode in model.ep_info_buffer]
    return Outcome(env_implementation="gymnasium", score=statistics.fmean(returns) if returns else None)


if __name__ == "__main__":
    main(
        train,
        system="stable-baselines3",
        packages=("stable-baselines3", "torch", "numpy", "gymnasium"),
        install="-r benchmarks/requirements-peers.txt",
    )
