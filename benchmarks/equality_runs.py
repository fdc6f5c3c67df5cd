"""The runs that `equality.py` compares: commands of `esper`, each with what it is there for."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

_SMALL = (
    "ppo --preset none --num-envs 4 --num-steps 16 --total-timesteps 640 --hidden-sizes 16 --num-minibatches 4 "
    "--update-epochs 2 --lr 1e-3 --checkpoint-every 4 --keep-checkpoints 99 --threads 1 --no-tensorboard --no-picture "
    "--run-dir run "
)
_EVALUATE = "evaluate run --episodes 5 --seed 3 --trust"
_EXPORT = "export run --trust"
_REPORT = "report run"
_VARIED = "--env equality_envs:Varied-v0"

# The paths that others import.
_LIBRARY = """
import dataclasses
from esper.envs.make import make_env
from esper.simic import PPOAgent, PPOConfig, ScheduleConfig, train_ppo_vectorized

env = make_env("CartPole-v1", num_envs=4)
rate = ScheduleConfig(peak=1e-3, warmup_frac=0.05, decay="cosine")
value_lr = ScheduleConfig(peak=2e-3, decay="linear")
config = PPOConfig(total_timesteps=512, num_envs=4, num_steps=16, policy_lr=rate, value_lr=value_lr)
agent = PPOAgent(config, env.spec, seed=1)
train_ppo_vectorized(agent, env, on_event=lambda event: print(dataclasses.replace(event, steps_per_second=0.0)))
print({name: tensor.tolist() for name, tensor in agent.network.state_dict().items()})
"""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Commands, by the arguments of the interpreter; the first one ends with exit status `status`.

    Without `package` it is left out. `variables` are of the environment of its processes.
    """

    commands: tuple[tuple[str, ...], ...]
    status: int = 0
    package: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)


def _esper(command: str) -> tuple[str, ...]:
    return ("-m", "esper.scripts.train", *shlex.split(command))


def _run(flags: str, *then: str, status: int = 0, package: str | None = None, **variables: str) -> Run:
    """A small run with `flags`, and the commands after it."""
    commands = (_SMALL + flags, *then)
    return Run(commands=tuple(map(_esper, commands)), status=status, package=package, variables=variables)


RUNS: Mapping[str, Run] = {
    # The engines; the slowest first.
    "torch, discrete": _run("--compile torch --target-kl 0.02", _EVALUATE),
    "torch, continuous, shared trunk": _run(
        "--compile torch --env Pendulum-v1 --shared-trunk --shared-lr min --normalize-observations", _EVALUATE
    ),
    "native, preset, pictures, TensorBoard": Run(
        commands=tuple(
            map(
                _esper,
                (
                    "ppo --total-timesteps 8192 --threads 2 --checkpoint-every 3 --run-dir run",
                    _EVALUATE,
                    _EXPORT,
                    _REPORT,
                    "checkpoint inspect run",
                ),
            )
        )
    ),
    "native, odd sizes": _run(
        "--compile native --threads 2 --num-envs 3 --num-steps 129 --num-minibatches 3 --total-timesteps 3000 "
        "--hidden-sizes 33,17 --activation relu --value-clip-coef 0.2 --max-grad-norm 0.1",
        _EVALUATE,
    ),
    "native, continuous, normalized": _run(
        "--compile native --env Pendulum-v1 --normalize-observations --normalize-rewards --log-std-init -0.5",
        *(_EVALUATE, _EXPORT),
    ),
    "eager, value clip, no limits": _run(
        "--compile off --value-clip-coef 0.2 --max-grad-norm none --no-normalize-advantages --gamma 0.9", _EVALUATE
    ),
    "eager, target_kl, odd sizes": _run(
        "--compile off --target-kl 0.001 --num-envs 5 --num-steps 7 --num-minibatches 7 --lr 1e-2", _EVALUATE
    ),
    # What is learned from, and what is chosen.
    "memory": _run("--env CartPoleNoVel-v1 --lstm-size 8", _EVALUATE, _EXPORT),
    "memory, masks, MultiDiscrete, fault": _run(
        f'{_VARIED} --env-kwargs \'{{"masked": true, "actions": "multi_discrete", "fault": "once"}}\' '
        "--lstm-size 4 --normalize-observations --normalize-rewards",
        *(_EVALUATE, _EXPORT, _REPORT),
    ),
    "masks": _run(f"{_VARIED} --env-kwargs '{{\"masked\": true}}'", _EVALUATE, _EXPORT),
    "images": _run(f'{_VARIED} --env-kwargs \'{{"observations": "image"}}\'', _EVALUATE, _EXPORT),
    "images, nature": _run(f'{_VARIED} --env-kwargs \'{{"observations": "large image"}}\' --shared-trunk', _EVALUATE),
    "images, flatten, MultiBinary": _run(
        f'{_VARIED} --env-kwargs \'{{"observations": "image", "actions": "multi_binary"}}\' --encoder flatten',
        _EVALUATE,
    ),
    "a dict, box, an encoder of one's own": _run(
        f'{_VARIED} --env-kwargs \'{{"observations": "dict", "actions": "box"}}\' --encoder equality_envs:encoder',
        _EVALUATE,
    ),
    "shared trunk, policy": _run("--shared-trunk --policy-lr 2e-3 --value-lr 5e-4 --value-lr-decay linear", _EXPORT),
    "shared trunk, value": _run("--shared-trunk --shared-lr value --policy-lr-delay 3 --policy-lr 2e-3", _EVALUATE),
    # Every shape of a schedule.
    "cosine, linear, polynomial, exponential": _run(
        "--policy-lr-decay cosine --policy-lr-warmup-frac 0.2 --policy-lr-warmup-shape cosine "
        "--policy-lr-warmup-start-ratio 0.1 --policy-lr-min-ratio 0.1 --value-lr-decay linear "
        "--value-lr-warmup-steps 2 --clip-coef-decay polynomial --clip-coef-power 3 --clip-coef-min-ratio 0.1 "
        "--entropy-coef 0.01 --entropy-coef-decay exponential --entropy-coef-min-ratio 0.01",
        _REPORT,
    ),
    "step, multistep, inverse_sqrt, wsd": _run(
        "--policy-lr-decay step --policy-lr-step-size 3 --policy-lr-gamma 0.5 --value-lr-decay multistep "
        "--value-lr-milestones 4,6 --value-lr-gamma 0.5 --clip-coef-decay inverse_sqrt --clip-coef-timescale 2 "
        "--entropy-coef 0.01 --entropy-coef-decay wsd --entropy-coef-decay-frac 0.4 --entropy-coef-wsd-shape 1-sqrt"
    ),
    "cosine_restarts, piecewise, wsd, delay": _run(
        "--policy-lr-decay cosine_restarts --policy-lr-cycles 2 --policy-lr-cycle-mult 2 --policy-lr-cycle-decay 0.5 "
        "--policy-lr-delay 2 --value-lr-decay piecewise --value-lr-points 0:1e-3,4:1e-4,6:5e-4 "
        "--clip-coef-decay wsd --clip-coef-decay-frac 0.5 --entropy-coef 0.01 --entropy-coef-warmup-steps 3"
    ),
    "schedules switched off": _run("--lr-decay cosine --clip-coef-decay linear", ESPER_LR_SCHEDULE="off"),
    # How environments are stepped.
    "sync": _run("--vector sync --normalize-rewards", _EVALUATE),
    "async": _run("--env Acrobot-v1 --vector async", _EVALUATE),
    "torch/CartPole-v1": _run("--env torch/CartPole-v1 --normalize-observations", _EVALUATE),
    "torch/Acrobot-v1, eager": _run("--env torch/Acrobot-v1 --compile off --normalize-rewards", _EVALUATE),
    "torch/Pendulum-v1, memory": _run("--env torch/Pendulum-v1 --lstm-size 4", _EVALUATE),
    "torch/MountainCar-v0": _run("--env torch/MountainCar-v0 --num-steps 64 --total-timesteps 2560", _EVALUATE),
    "torch/MountainCarContinuous-v0": _run("--env torch/MountainCarContinuous-v0 --normalize-observations"),
    "MuJoCo": _run("--env HalfCheetah-v4 --normalize-observations --normalize-rewards", package="mujoco"),
    "Box2D": _run("--env LunarLander-v3", package="Box2D"),
    "MinAtar": _run("--env MinAtar/Breakout-v1", _EVALUATE, package="minatar"),
    "torch/MinAtar/Breakout, convolutions": _run("--env torch/MinAtar/Breakout --encoder small", _EVALUATE),
    "torch/MinAtar/SpaceInvaders, in a row": _run(
        "--env torch/MinAtar/SpaceInvaders --encoder flatten --activation relu", _EVALUATE
    ),
    "MiniGrid": _run("--env MiniGrid-Empty-5x5-v0", _EVALUATE, package="minigrid"),
    "POPGym": _run("--env popgym-RepeatPreviousEasy-v0 --lstm-size 4", package="popgym"),
    "Atari": _run(
        "--env ALE/Pong-v5 --num-envs 2 --num-steps 8 --total-timesteps 32 --num-minibatches 2 --checkpoint-every 1",
        package="ale_py",
    ),
    # What is recorded.
    "debug, evaluated": _run(
        "--telemetry debug --snapshot-every 3 --eval-every 3 --eval-episodes 2", "evaluate run/best --json", _REPORT
    ),
    "debug, eager, memory": _run("--telemetry debug --compile off --env CartPoleNoVel-v1 --lstm-size 4"),
    "minimal": _run("--telemetry minimal --normalize-observations"),
    "off": _run("--telemetry off --quiet"),
    # How runs end and go on.
    "stopped at a return, gone on with": _run(
        "--eval-every 2 --eval-episodes 2 --stop-at-return 1", "ppo --resume run --stop-at-return none", _EVALUATE
    ),
    "undone updates, continued": _run(
        f'{_VARIED} --env-kwargs \'{{"fault": "once"}}\'',
        *("ppo --resume run --total-timesteps 960 --trust", _EVALUATE),
    ),
    "diverged": _run(f'{_VARIED} --env-kwargs \'{{"fault": "always"}}\' --max-skipped-updates 3', status=1),
    "extended": _run(
        "--lr-decay cosine --lr-warmup-frac 0.1",
        *("ppo --resume run --resume-schedule extend --total-timesteps 960", _EVALUATE, _REPORT),
    ),
    "restarted, other rates": _run(
        "--lr-decay linear --compile off",
        "ppo --resume run --resume-schedule restart --total-timesteps 960 --lr 2e-3",
        "checkpoint inspect run --json",
    ),
    "from a checkpoint, elsewhere": _run(
        "--env Pendulum-v1 --normalize-observations --lr-decay linear",
        "ppo --resume run/checkpoints/00000004 --run-dir elsewhere",
    ),
    "from a checkpoint, memory, masks": _run(
        f"{_VARIED} --env-kwargs '{{\"masked\": true}}' --lstm-size 4",
        "ppo --resume run/checkpoints/00000004 --run-dir elsewhere --trust",
    ),
    "fresh episodes, async": _run(
        "--vector async --num-envs 2 --num-minibatches 2",
        "ppo --resume run --fresh-episodes --total-timesteps 960",
        "compare run",
    ),
    "a sweep": Run(
        commands=tuple(
            map(
                _esper,
                (
                    _SMALL.replace("ppo", "sweep", 1).replace("--run-dir run", "--env CartPole-v1 --workers 1")
                    + "--arm constant: --arm 'cosine: --lr-decay cosine' --seeds 2 --output sweep --quiet",
                    "compare sweep/CartPole-v1/constant sweep/CartPole-v1/cosine --json",
                ),
            )
        )
    ),
    "from Python": Run(commands=(("-c", _LIBRARY),)),
}
