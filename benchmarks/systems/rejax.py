"""PPO of rejax: environment, rollouts and updates of the whole run as one XLA program, on gymnax's environments.

The program is compiled ahead of time, and the evaluations inside it, one every `eval_freq` steps and one at the start,
are left out by the settings that it has for this, so that it does nothing but train. What an update took cannot be
seen from outside: all of them count as equally long. The score is its own evaluation, afterwards, of 128 episodes with
sampled actions; training episodes are not recorded.

What differs from Esper, in rejax 0.1.3:

- an episode cut short by its time limit counts as terminated: no value of the last observation is added;
- the value loss is clipped by `clip_eps`, always, and halved as Esper's;
- `max_grad_norm` limits each element of a gradient (`optax.clip`), not its norm, for actor and critic apart;
- Adam's epsilon is Optax's 1e-8, without an option, as for the initial weights, Flax's default (LeCun normal);
- gymnax steps CartPole in float32, where Gymnasium's takes float64;
- gymnax's MinAtar differs from the package, as written in purejax.py.

MuJoCo environments have no equal here: Brax's HalfCheetah is another one.
"""

from __future__ import annotations

import sys

from common import (
    CLIP_COEF,
    GAE_LAMBDA,
    GAMMA,
    MAX_GRAD_NORM,
    VALUE_COEF,
    Arguments,
    Clock,
    Outcome,
    argument_parser,
    keep_to_cores,
    main,
    network_options,
)


def train(args: Arguments, clock: Clock) -> Outcome:
    keep_to_cores(args.threads)
    import gymnax
    import jax
    from rejax import PPO

    game = args.env.removeprefix("MinAtar/")
    env = args.env if game == args.env else f"{game}-MinAtar"
    if env not in gymnax.registered_envs:
        sys.exit(f"rejax: gymnax has no {env}")
    if args.encoder != "flatten":
        sys.exit(f"rejax: has no encoder {args.encoder}")
    timesteps = args.updates * args.batch_size
    algorithm = PPO.create(
        env=env,
        agent_kwargs={"hidden_layer_sizes": tuple(args.hidden), "activation": args.activation},
        num_envs=args.num_envs,
        num_steps=args.num_steps,
        num_epochs=args.update_epochs,
        num_minibatches=args.num_minibatches,
        learning_rate=args.lr,
        max_grad_norm=MAX_GRAD_NORM,
        gamma=GAMMA,
        gae_lambda=GAE_LAMBDA,
        clip_eps=CLIP_COEF,
        vf_coef=VALUE_COEF,
        ent_coef=args.entropy_coef,
        total_timesteps=timesteps,
        eval_freq=timesteps,
        skip_initial_evaluation=True,
    )
    evaluate = algorithm.eval_callback
    algorithm = algorithm.replace(eval_callback=lambda algorithm, state, key: ())
    key, evaluation_key = jax.random.split(jax.random.PRNGKey(args.seed))
    imported = clock.now()
    program = jax.jit(algorithm.train).lower(key).compile()
    begun = clock.now()
    state, _ = jax.block_until_ready(program(key))
    seconds = clock.now() - begun
    clock.ends = [begun + seconds * (update + 1) / args.updates for update in range(args.updates)]
    _, returns = jax.jit(evaluate)(algorithm, state, evaluation_key)
    return Outcome(
        env_implementation="gymnax",
        score=float(returns.mean()),
        score_of="evaluation",
        extra={"compile_seconds": begun - imported},
    )


if __name__ == "__main__":
    main(
        train,
        system="rejax",
        packages=("rejax", "jax", "flax", "optax", "numpy", "gymnax"),
        install="-r benchmarks/requirements-rejax.txt",
        parser=network_options(argument_parser()),
    )
