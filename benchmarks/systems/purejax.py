"""PPO in JAX alone, in the manner of PureJaxRL: rollout and update are one XLA program, and so is the environment.

A program of its own, with the hyperparameters of the other scripts: `jax.lax.scan` over steps, epochs and minibatches,
two networks apart, Adam and its clipping written out. Values of a rollout are computed at once after it, which takes
less time than a step at a time. Products of matrices are of float32, which on a GPU is not JAX's default.

The program is called once for each update, and waited for, as a training that reports its updates does.

CartPole is written out; an episode that is cut off has the value of its last observation, as Esper's has. MinAtar's
games are gymnax 0.0.9's, which differ from the package and from Esper's:

- no sticky actions (the package repeats the last action with a probability of 0.1);
- an episode ends after 1,000 steps (Esper's after 10,000), and counts as terminated there;
- the first wave of aliens in SpaceInvaders has seven columns (the package's has six, as all waves).
"""

from __future__ import annotations

import functools
import itertools
import math
import sys
from typing import Any

import purejax_envs
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
    network_options,
)

try:
    import jax
    from jax import numpy as jnp
except ImportError:  # said by `train`
    jax = jnp = None  # type: ignore[assignment]

BETA1, BETA2 = 0.9, 0.999
# The one convolution of MinAtar's authors, and of Esper's encoder `small`.
CHANNELS, KERNEL = 16, 3


def new_network(key: Any, shape: tuple[int, ...], hidden: list[int], outputs: int, last: float, encoder: str) -> Any:
    """Orthogonal weights, those of the last layer times `last`, and biases."""
    made: dict[str, Any] = {"layers": []}
    width = math.prod(shape)
    if encoder == "small":
        key, own = jax.random.split(key)
        height, breadth, channels = shape
        made["convolution"] = _weights(own, KERNEL * KERNEL * channels, CHANNELS, 2**0.5)
        width = (height - KERNEL + 1) * (breadth - KERNEL + 1) * CHANNELS
    sizes = [width, *hidden, outputs]
    for index, (before, after) in enumerate(itertools.pairwise(sizes)):
        key, own = jax.random.split(key)
        made["layers"].append(_weights(own, before, after, last if index == len(hidden) else 2**0.5))
    return made


def _weights(key: Any, before: int, after: int, gain: float) -> tuple[Any, Any]:
    return jax.nn.initializers.orthogonal(gain)(key, (before, after)), jnp.zeros(after)


def forward(network: dict[str, Any], x: Any, activation: str) -> Any:
    if "convolution" in network:
        x = convolved(x, *network["convolution"])
    x = x.reshape(len(x), -1)
    for weight, bias in network["layers"][:-1]:
        x = getattr(jax.nn, activation)(x @ weight + bias)
    weight, bias = network["layers"][-1]
    return x @ weight + bias


def convolved(images: Any, weight: Any, bias: Any) -> Any:
    """A convolution of stride 1 and a ReLU, [N, H, W, C] to [N, H - 2, W - 2, CHANNELS].

    As a product of matrices: XLA's own convolution and its gradient take three to five times as long on a CPU.
    """
    height, breadth = images.shape[1] - KERNEL + 1, images.shape[2] - KERNEL + 1
    places = itertools.product(range(KERNEL), repeat=2)
    patches = jnp.concatenate([images[:, y : y + height, x : x + breadth] for y, x in places], -1)
    return jax.nn.relu(patches @ weight + bias)


def loss_of(network: Any, batch: dict[str, Any], args: Arguments) -> Any:
    every = jax.nn.log_softmax(forward(network["actor"], batch["obs"], args.activation))
    log_probs = jnp.take_along_axis(every, batch["actions"][:, None], 1)[:, 0]
    advantages = batch["advantages"]
    advantages = (advantages - advantages.mean()) / (advantages.std(ddof=1) + 1e-8)
    ratio = jnp.exp(log_probs - batch["log_probs"])
    clipped = jnp.clip(ratio, 1 - CLIP_COEF, 1 + CLIP_COEF)
    values = forward(network["critic"], batch["obs"], args.activation)[:, 0]
    value_loss = 0.5 * ((values - batch["returns"]) ** 2).mean()
    policy_loss = -jnp.minimum(ratio * advantages, clipped * advantages).mean()
    entropy = -(jnp.exp(every) * every).sum(1).mean() if args.entropy_coef else 0.0
    return policy_loss + VALUE_COEF * value_loss - args.entropy_coef * entropy


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


def rollout(env: purejax_envs.Env, network: Any, envs: Any, key: Any, args: Arguments) -> tuple[Any, dict[str, Any]]:
    """The environments after `num_steps`, and what was seen and done, each [T, N, ...].

    `episode` is the return of an episode that ended, NaN elsewhere.
    """

    def one(envs: Any, key: Any) -> tuple[Any, dict[str, Any]]:
        acting, stepping = jax.random.split(key)
        obs, states, total = envs
        logits = jax.nn.log_softmax(forward(network["actor"], obs, args.activation))
        actions = jax.random.categorical(acting, logits)
        after, states, seen = env.step(stepping, states, actions)
        total = total + seen["reward"]
        seen |= {
            "obs": obs,
            "actions": actions,
            "log_probs": jnp.take_along_axis(logits, actions[:, None], 1)[:, 0],
            "episode": jnp.where(seen["done"], total, jnp.nan),
        }
        return (after, states, jnp.where(seen["done"], 0.0, total)), seen

    return jax.lax.scan(one, envs, jax.random.split(key, args.num_steps))


def values_of(network: Any, obs: Any, args: Arguments) -> Any:
    """Of observations [T, N, ...]."""
    return forward(network["critic"], obs.reshape(-1, *obs.shape[2:]), args.activation).reshape(obs.shape[:2])


def with_advantages(network: Any, seen: dict[str, Any], last: Any, args: Arguments) -> dict[str, Any]:
    """The rollout as rows, with advantages and returns; `last` are the observations after it."""

    def back(advantage: Any, row: tuple[Any, Any]) -> tuple[Any, Any]:
        delta, done = row
        advantage = delta + GAMMA * GAE_LAMBDA * jnp.where(done, 0.0, advantage)
        return advantage, advantage

    every = values_of(network, jnp.concatenate((seen["obs"], last[None])), args)
    values, after = every[:-1], values_of(network, seen["final"], args) if "final" in seen else every[1:]
    deltas = seen["reward"] + GAMMA * jnp.where(seen["terminated"], 0.0, after) - values
    _, advantages = jax.lax.scan(back, jnp.zeros(deltas.shape[1]), (deltas, seen["done"]), reverse=True)
    names = ("obs", "actions", "log_probs")
    rows = {name: seen[name] for name in names} | {"advantages": advantages, "returns": advantages + values}
    return {name: field.reshape(-1, *field.shape[2:]) for name, field in rows.items()}


def update(learner: Any, envs: Any, key: Any, *, env: purejax_envs.Env, args: Arguments) -> tuple[Any, Any, Any]:
    """A rollout, and all epochs of minibatches on it; returns of the episodes that ended, NaN elsewhere."""
    collecting, *orders = jax.random.split(key, 1 + args.update_epochs)
    envs, seen = rollout(env, learner["network"], envs, collecting, args)
    batch = with_advantages(learner["network"], seen, envs[0], args)
    permutations = [jax.random.permutation(order, args.batch_size) for order in orders]
    indices = jnp.concatenate(permutations).reshape(-1, args.minibatch_size)

    def one(learner: Any, rows: Any) -> tuple[Any, None]:
        minibatch = {name: field[rows] for name, field in batch.items()}
        return adam(learner, jax.grad(loss_of)(learner["network"], minibatch, args), args.lr), None

    learner, _ = jax.lax.scan(one, learner, indices)
    return learner, envs, seen["episode"]


def train(args: Arguments, clock: Clock) -> Outcome:
    if jax is None:
        raise ImportError("jax")
    if args.encoder not in ("flatten", "small"):
        sys.exit(f"purejax: has flatten and small, not {args.encoder}")
    if args.device == "cpu":
        keep_to_cores(args.threads)
        jax.config.update("jax_platforms", "cpu")
    elif not any(device.platform == "gpu" for device in jax.devices()):
        raise ImportError("a jax that finds a GPU")
    jax.config.update("jax_default_matmul_precision", "float32")
    env = purejax_envs.make(args.env)
    key, actor, critic, first = jax.random.split(jax.random.PRNGKey(args.seed), 4)
    network = {
        name: new_network(own, env.shape, args.hidden, outputs, last, args.encoder)
        for name, own, outputs, last in (("actor", actor, env.num_actions, 0.01), ("critic", critic, 1, 1.0))
    }
    zeros = jax.tree_util.tree_map(jnp.zeros_like, network)
    learner = {"network": network, "first": zeros, "second": zeros, "count": jnp.zeros(())}
    envs = (*env.begin(first, args.num_envs), jnp.zeros(args.num_envs))
    program = jax.jit(functools.partial(update, env=env, args=args))
    returns: Any = None
    for number in range(args.updates):
        key, own = jax.random.split(key)
        learner, envs, returns = jax.block_until_ready(program(learner, envs, own))
        clock.tick()
        if args.seconds and number > 3 and clock.ends[-1] - clock.ends[2] > args.seconds:
            break
    ended = returns[~jnp.isnan(returns)]
    return Outcome(
        env_implementation=env.implementation,
        score=float(ended.mean()) if len(ended) else None,
        score_of="episodes that ended in the last rollout",
        extra={"device": jax.devices()[0].device_kind},
    )


if __name__ == "__main__":
    parser = network_options(argument_parser())
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--seconds", type=float, help="end this long after the warm-up, before all timesteps")
    main(train, system="purejax", packages=("jax", "jaxlib"), install="jax (jax[cuda12] for a GPU)", parser=parser)
