"""PPO of SBX, Stable-Baselines3 in JAX: each minibatch step is compiled, rollouts are Stable-Baselines3's on the host.

What differs from Esper: actor and critic have an optimizer each, and their gradients are clipped apart; the value loss
is the whole mean squared error; weights are Flax's default (LeCun normal), as its `ortho_init` is off by default and
would set the actor's last layer only.
"""

from __future__ import annotations

from common import Arguments, Clock, Outcome, keep_to_cores, main
from sb3 import learn


def train(args: Arguments, clock: Clock) -> Outcome:
    keep_to_cores(args.threads)
    from sbx import PPO

    return learn(PPO, args, clock)


if __name__ == "__main__":
    main(
        train,
        system="sbx",
        packages=("sbx-rl", "stable-baselines3", "jax", "flax", "torch", "numpy", "gymnasium"),
        install="-r benchmarks/requirements-peers.txt",
    )
