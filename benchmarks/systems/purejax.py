"""PPO in JAX alone, in the manner of PureJaxRL: rollout and update are one XLA program, and so is the environment.

A program of its own, with the hyperparameters of the other scripts: `jax.lax.scan` over steps, epochs and minibatches,
two networks apart, Adam and its clipping written out. An episode that is cut off has the value of its last observation,
as Esper's has. Products of matrices are of float32, which on a GPU is not JAX's default.

The program is called once for each update, and waited for, as a training that reports its updates does.
"""

from __future__ import annotations

import functools
import itertools
import sys
from typing import Any

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
    keep_to_cores,
    main,
)

try:
    import jax
    from jax import numpy as jnp
except ImportError:  # said by `train`
    jax = jnp = None  # type: ignore[assignment]

MAX_EPISODE_STEPS = 500
BETA1, BETA2 = 0.9, 0.999


def begin(key: Any, count: int) -> Any:
    return jax.random.uniform(key, (count, 4), minval=-0.05, maxval=0.05)


def step(state: Any, action: Any) -> tuple[Any, Any]:
    """CartPole (Barto et al. 1983), with the constants of Gymnasium: the next states [N, 4], and which have fallen."""
    x, speed, angle, turn = state.T
    force = jnp.where(action == 1, 10.0, -10.0)
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    push = (force + 0.05 * turn**2 * sine) / 1.1
    turning = (9.8 * sine - cosine * push) / (0.5 * (4 / 3 - 0.1 * cosine**2 / 1.1))
    sliding = push - 0.05 * turning * cosine / 1.1
    state = jnp.stack((x + 0.02 * speed, speed + 0.02 * sliding, angle + 0.02 * turn, turn + 0.02 * turning), 1)
    return state, (jnp.abs(state[:, 0]) > 2.4) | (jnp.abs(state[:, 2]) > 0.2095)


def layers(key: Any, sizes: list[int], last: float) -> list[Any]:
    """Orthogonal weights, the last ones times `last`, and biases."""
    made = []
    for index, (before, after) in enumerate(itertools.pairwise(sizes)):
        key, own = jax.random.split(key)
        gain = last if index == len(sizes) - 2 else 2**0.5
        made.append((jax.nn.initializers.orthogonal(gain)(own, (before, after)), jnp.zeros(after)))
    return made


def forward(network: list[Any], x: Any) -> Any:
    for weight, bias in network[:-1]:
        x = jnp.tanh(x @ weight + bias)
    weight, bias = network[-1]
    return x @ weight + bias


def log_probs_of(network: Any, obs: Any, actions: Any) -> tuple[Any, Any]:
    """Of the actions, and of all."""
    every = jax.nn.log_softmax(forward(network["actor"], obs))
    return jnp.take_along_axis(every, actions[:, None], 1)[:, 0], every


def loss_of(network: Any, batch: dict[str, Any]) -> Any:
    log_probs, _ = log_probs_of(network, batch["obs"], batch["actions"])
    advantages = batch["advantages"]
    advantages = (advantages - advantages.mean()) / (advantages.std(ddof=1) + 1e-8)
    ratio = jnp.exp(log_probs - batch["log_probs"])
    clipped = jnp.clip(ratio, 1 - CLIP_COEF, 1 + CLIP_COEF)
    values = forward(network["critic"], batch["obs"])[:, 0]
    value_loss = 0.5 * ((values - batch["returns"]) ** 2).mean()
    return -jnp.minimum(ratio * advantages, clipped * advantages).mean() + VALUE_COEF * value_loss


def adam(state: dict[str, Any], gradient: Any, lr: float) -> dict[str, Any]:
    tree = jax.tree_util.tree_map
    norm = jnp.sqrt(sum((leaf**2).sum() for leaf in jax.tree_util.tree_leaves(gradient)))
    scale = jnp.minimum(1.0, MAX_GRAD_NORM / (norm + 1e-6))
    gradient = tree(lambda leaf: leaf * scale, gradient)
    count = state["count"] + 1
    first = tree(lambda old, new: BETA1 * old + (1 - BETA1) * new, state["first"], gradient)
    second = tree(lambda old, new: BETA2 * old + (1 - BETA2) * new**2, state["second"], gradient)
    rate, root = lr / (1 - BETA1**count), jnp.sqrt(1 - BETA2**count)
    network = tree(
        lambda old, mean, square: old - rate * mean / (jnp.sqrt(square) / root + ADAM_EPS),
        *(state["network"], first, second),
    )
    return {"network": network, "first": first, "second": second, "count": count}


def rollout(network: Any, envs: dict[str, Any], key: Any, num_steps: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The environments after `num_steps`, and what was seen and done, each [T, N, ...]."""

    def one(envs: dict[str, Any], key: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        acting, beginning = jax.random.split(key)
        obs = envs["state"]
        logits = jax.nn.log_softmax(forward(network["actor"], obs))
        actions = jax.random.categorical(acting, logits)
        final, fallen = step(obs, actions)
        length = envs["length"] + 1
        truncated = length >= MAX_EPISODE_STEPS
        done = fallen | truncated
        after = {
            "state": jnp.where(done[:, None], begin(beginning, len(obs)), final),
            "length": jnp.where(done, 0, length),
        }
        seen = {
            "obs": obs,
            "actions": actions,
            "log_probs": jnp.take_along_axis(logits, actions[:, None], 1)[:, 0],
            "values": forward(network["critic"], obs)[:, 0],
            "next_values": jnp.where(fallen, 0.0, forward(network["critic"], final)[:, 0]),
            "done": done,
            "length": jnp.where(done, length, 0),
        }
        return after, seen

    return jax.lax.scan(one, envs, jax.random.split(key, num_steps))


def with_advantages(seen: dict[str, Any]) -> dict[str, Any]:
    """The rollout as rows, with advantages and returns; every reward is 1."""

    def back(advantage: Any, row: tuple[Any, Any]) -> tuple[Any, Any]:
        delta, done = row
        advantage = delta + GAMMA * GAE_LAMBDA * jnp.where(done, 0.0, advantage)
        return advantage, advantage

    deltas = 1.0 + GAMMA * seen["next_values"] - seen["values"]
    _, advantages = jax.lax.scan(back, jnp.zeros(deltas.shape[1]), (deltas, seen["done"]), reverse=True)
    names = ("obs", "actions", "log_probs")
    rows = {name: seen[name] for name in names} | {"advantages": advantages, "returns": advantages + seen["values"]}
    return {name: field.reshape(-1, *field.shape[2:]) for name, field in rows.items()}


def update(learner: Any, envs: Any, key: Any, args: Arguments) -> tuple[Any, Any, Any]:
    """A rollout, and all epochs of minibatches on it; lengths of the episodes that ended, 0 elsewhere."""
    collecting, *orders = jax.random.split(key, 1 + args.update_epochs)
    envs, seen = rollout(learner["network"], envs, collecting, args.num_steps)
    batch = with_advantages(seen)
    permutations = [jax.random.permutation(order, args.batch_size) for order in orders]
    indices = jnp.concatenate(permutations).reshape(-1, args.minibatch_size)

    def one(learner: Any, rows: Any) -> tuple[Any, None]:
        minibatch = {name: field[rows] for name, field in batch.items()}
        return adam(learner, jax.grad(loss_of)(learner["network"], minibatch), args.lr), None

    learner, _ = jax.lax.scan(one, learner, indices)
    return learner, envs, seen["length"]


def train(args: Arguments, clock: Clock) -> Outcome:
    if jax is None:
        raise ImportError("jax")
    if args.env != "CartPole-v1":
        sys.exit(f"purejax: has CartPole-v1, not {args.env}")
    if args.device == "cpu":
        keep_to_cores(args.threads)
        jax.config.update("jax_platforms", "cpu")
    elif not any(device.platform == "gpu" for device in jax.devices()):
        raise ImportError("a jax that finds a GPU")
    jax.config.update("jax_default_matmul_precision", "float32")
    key, actor, critic, first = jax.random.split(jax.random.PRNGKey(args.seed), 4)
    network = {"actor": layers(actor, [4, *args.hidden, 2], 0.01), "critic": layers(critic, [4, *args.hidden, 1], 1.0)}
    zeros = jax.tree_util.tree_map(jnp.zeros_like, network)
    learner = {"network": network, "first": zeros, "second": zeros, "count": jnp.zeros(())}
    envs = {"state": begin(first, args.num_envs), "length": jnp.zeros(args.num_envs, dtype=jnp.int32)}
    program = jax.jit(functools.partial(update, args=args))
    lengths: Any = None
    for number in range(args.updates):
        key, own = jax.random.split(key)
        learner, envs, lengths = jax.block_until_ready(program(learner, envs, own))
        clock.tick()
        if args.seconds and number > 3 and clock.ends[-1] - clock.ends[2] > args.seconds:
            break
    ended = lengths[lengths > 0]
    return Outcome(
        env_implementation="jax",
        score=float(ended.mean()) if len(ended) else None,
        score_of="episodes that ended in the last rollout",
        extra={"device": jax.devices()[0].device_kind},
    )


if __name__ == "__main__":
    parser = argument_parser()
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--seconds", type=float, help="end this long after the warm-up, before all timesteps")
    main(train, system="purejax", packages=("jax", "jaxlib"), install="jax (jax[cuda12] for a GPU)", parser=parser)
