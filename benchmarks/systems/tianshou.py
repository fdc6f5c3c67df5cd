"""PPO of Tianshou (PyTorch) on Gymnasium's environments, stepped one after the other by `DummyVectorEnv`.

What differs from Esper: the value loss is the whole mean squared error; the values of all next observations are
computed apart; weights are PyTorch's default, as its examples set orthogonal ones by hand. Its trainer copies the
statistics of each rollout, which cannot be turned off; tests, logging and the progress bar are.
"""

from __future__ import annotations

import logging
import statistics
from typing import Any

from common import (
    ADAM_EPS,
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
    import gymnasium as gym
    import numpy as np
    import torch
    from tianshou.algorithm import PPO
    from tianshou.algorithm.optim import AdamOptimizerFactory
    from tianshou.data import Collector, CollectStats, VectorReplayBuffer
    from tianshou.env import DummyVectorEnv
    from tianshou.trainer import OnPolicyTrainerParams
    from torch.distributions import Distribution

    logging.disable(logging.INFO)
    Distribution.set_default_validate_args(False)
    torch.set_num_threads(args.threads)
    np.random.seed(args.seed)  # noqa: NPY002 - it shuffles minibatches by NumPy's global generator
    torch.manual_seed(args.seed)
    envs = DummyVectorEnv([lambda: gym.make(args.env) for _ in range(args.num_envs)])
    envs.seed(args.seed)
    obs_space, action_space = envs.observation_space[0], envs.action_space[0]
    returns: list[float] = []

    class KeepingCollector(Collector[CollectStats]):
        """Keeps the returns of finished episodes."""

        def collect(self, *args: Any, **kwargs: Any) -> CollectStats:
            stats = super().collect(*args, **kwargs)
            returns.extend(stats.returns.tolist())
            return stats

    policy, critic = make_networks(args.hidden, obs_space.shape, action_space)
    algorithm = PPO(
        policy=policy,
        critic=critic,
        optim=AdamOptimizerFactory(lr=args.lr, eps=ADAM_EPS),
        eps_clip=CLIP_COEF,
        value_clip=False,
        advantage_normalization=True,
        vf_coef=VALUE_COEF,
        ent_coef=ENTROPY_COEF,
        max_grad_norm=MAX_GRAD_NORM,
        gae_lambda=GAE_LAMBDA,
        gamma=GAMMA,
        # The values of a rollout in one pass.
        max_batchsize=args.batch_size,
    )

    def at_rollout_start(epoch: int, env_step: int) -> None:
        if collector.collect_step:
            clock.tick()

    collector = KeepingCollector(algorithm, envs, VectorReplayBuffer(args.batch_size, args.num_envs))
    algorithm.run_training(
        OnPolicyTrainerParams(
            training_collector=collector,
            max_epochs=1,
            epoch_num_steps=args.updates * args.batch_size,
            collection_step_num_env_steps=args.batch_size,
            update_step_num_repetitions=args.update_epochs,
            batch_size=args.minibatch_size,
            training_fn=at_rollout_start,
            verbose=False,
            show_progress=False,
        )
    )
    clock.tick()
    return Outcome(env_implementation="gymnasium", score=statistics.fmean(returns[-100:]) if returns else None)


def make_networks(hidden: list[int], obs_shape: tuple[int, ...], action_space: Any) -> tuple[Any, Any]:
    """A policy and a critic apart."""
    from gymnasium.spaces import Discrete
    from tianshou.algorithm.modelfree.reinforce import DiscreteActorPolicy, ProbabilisticActorPolicy
    from tianshou.utils.net.common import Net
    from tianshou.utils.net.continuous import ContinuousActorProbabilistic, ContinuousCritic
    from tianshou.utils.net.discrete import DiscreteActor, DiscreteCritic
    from torch.distributions import Independent, Normal
    from torch.nn import Tanh

    bodies = [Net(state_shape=obs_shape, hidden_sizes=hidden, activation=Tanh) for _ in range(2)]
    if isinstance(action_space, Discrete):
        actor = DiscreteActor(preprocess_net=bodies[0], action_shape=action_space.n, softmax_output=False)
        policy = DiscreteActorPolicy(actor=actor, action_space=action_space)
        return policy, DiscreteCritic(preprocess_net=bodies[1])
    gaussian = ProbabilisticActorPolicy(
        actor=ContinuousActorProbabilistic(preprocess_net=bodies[0], action_shape=action_space.shape, unbounded=True),
        dist_fn=lambda parameters: Independent(Normal(*parameters), 1),
        action_space=action_space,
        action_scaling=True,
        action_bound_method="clip",
    )
    return gaussian, ContinuousCritic(preprocess_net=bodies[1])


if __name__ == "__main__":
    main(
        train,
        system="tianshou",
        packages=("tianshou", "torch", "numpy", "gymnasium"),
        install="-r benchmarks/requirements-peers.txt",
    )
