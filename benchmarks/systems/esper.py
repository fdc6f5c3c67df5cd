"""PPO of this project, through its Python interface.

`--env CartPole-v1` is Gymnasium's, whose own vector version `--vector auto` takes; with `--torch` it is Esper's own,
all copies in one tensor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import choices  # noqa: F401  (registers its environments)
from common import (
    ADAM_EPS,
    CLIP_COEF,
    GAE_LAMBDA,
    GAMMA,
    MAX_GRAD_NORM,
    VALUE_COEF,
    Arguments,
    Clock,
    Outcome,
    argument_parser,
    main,
    network_options,
)

if TYPE_CHECKING:
    from esper.telemetry.events import UpdateCompleted


def train(args: Arguments, clock: Clock) -> Outcome:
    import torch

    from esper.envs.make import make_env
    from esper.simic import (
        CoefficientConfig,
        NetworkConfig,
        PPOAgent,
        PPOConfig,
        RuntimeConfig,
        ScheduleConfig,
        train_ppo_vectorized,
    )
    from esper.telemetry.events import Event, UpdateCompleted

    # The kernels have threads of their own; a torch that computes has those of torch.
    torch.set_num_threads(1 if args.compile in ("auto", "native") else args.threads)
    config = PPOConfig(
        total_timesteps=args.timesteps,
        num_envs=args.num_envs,
        num_steps=args.num_steps,
        update_epochs=args.update_epochs,
        num_minibatches=args.num_minibatches,
        gamma=GAMMA,
        gae_lambda=GAE_LAMBDA,
        value_coef=VALUE_COEF,
        max_grad_norm=MAX_GRAD_NORM,
        adam_eps=ADAM_EPS,
        policy_lr=ScheduleConfig(peak=args.lr),
        value_lr=ScheduleConfig(peak=args.lr),
        clip_coef=CoefficientConfig(peak=CLIP_COEF),
        entropy_coef=CoefficientConfig(peak=args.entropy_coef),
        network=NetworkConfig(
            hidden_sizes=() if args.rnn_size else tuple(args.hidden),
            shared_trunk=args.shared_trunk,
            rnn="lstm" if args.rnn_size else None,
            rnn_size=args.rnn_size or None,
            encoder=args.encoder,
            activation=args.activation,
        ),
        runtime=RuntimeConfig(compile=args.compile, threads=args.threads),
    )
    name = f"torch/{args.env}" if args.torch else args.env
    env = make_env(name, num_envs=args.num_envs, vector=args.vector)
    agent = PPOAgent(config, env.spec, seed=args.seed)
    events: list[Event] = []

    def on_event(event: Event) -> None:
        clock.tick()
        events.append(event)

    train_ppo_vectorized(agent, env, env_seed=args.seed, on_event=on_event)
    env.close()
    return Outcome(
        env_implementation="torch" if name.startswith("torch/") else "gymnasium",
        score=last_episodes([event for event in events if isinstance(event, UpdateCompleted)]),
        # Events tell the mean of the episodes of a rollout.
        score_of="last 100 training episodes, rounded up to whole rollouts",
        extra={"engine": agent.updater.engine_name, "vector": args.vector},
    )


def last_episodes(updates: list[UpdateCompleted]) -> float | None:
    """Mean return of the last 100 episodes, and of those that ended in the same rollout as the first of them."""
    total, episodes = 0.0, 0
    for event in reversed(updates):
        if event.episode_return_mean is not None:
            total += event.episode_return_mean * event.episodes
            episodes += event.episodes
        if episodes >= 100:
            break
    return total / episodes if episodes else None


if __name__ == "__main__":
    parser = network_options(argument_parser())
    parser.add_argument("--vector", choices=("auto", "native", "sync", "async", "envpool"), default="auto")
    parser.add_argument("--torch", action="store_true", help="the environment of this id in tensors")
    parser.add_argument("--rnn-size", type=int, default=0, help="an LSTM of this size in place of the hidden layers")
    parser.add_argument("--shared-trunk", action="store_true")
    parser.add_argument("--compile", choices=("auto", "native", "torch", "off"), default="auto", help="what computes")
    main(
        train,
        system="esper",
        packages=("esper-simic", "torch", "numpy", "gymnasium"),
        install="-e .",
        parser=parser,
    )
