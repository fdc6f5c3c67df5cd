"""sb3-contrib: RecurrentPPO with `--rnn-size`, else MaskablePPO. What differs from Esper is as in sb3.py.

Its recurrent policy has an LSTM for the policy and one for the value function, as Esper's; a minibatch is of whole
sequences that are padded. Its rollouts keep one observation at a time, where ours have sequences of `num_steps`.
"""

from __future__ import annotations

from typing import Any

from common import Arguments, Clock, Outcome, argument_parser, main
from sb3 import learn


def train(args: Arguments, clock: Clock) -> Outcome:
    from sb3_contrib import MaskablePPO, RecurrentPPO

    if not args.rnn_size:
        return learn(MaskablePPO, args, clock)

    def recurrent(_: str, env: Any, **settings: Any) -> Any:
        policy = settings.pop("policy_kwargs") | {
            "lstm_hidden_size": args.rnn_size,
            "net_arch": [],
            "enable_critic_lstm": True,
        }
        return RecurrentPPO("MlpLstmPolicy", env, policy_kwargs=policy, **settings)

    return learn(recurrent, args, clock)  # type: ignore[arg-type]


if __name__ == "__main__":
    parser = argument_parser()
    parser.add_argument("--rnn-size", type=int, default=0)
    main(
        train,
        system="sb3-contrib",
        packages=("sb3-contrib", "stable-baselines3", "torch", "numpy", "gymnasium"),
        install="-r benchmarks/requirements-peers.txt",
        parser=parser,
    )
