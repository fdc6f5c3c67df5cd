"""Action masks from the environment to the loss: whose they are, what is done with them, and what is no mask."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv

import probes
from esper.envs.base import EnvError, VectorEnv, Vectors
from esper.envs.config import EnvConfig
from esper.envs.make import make_env
from esper.policies.evaluate import evaluate
from esper.policies.policy import Policy
from esper.policies.show import record_gif
from esper.scripts.train import main
from esper.simic import NetworkConfig, PPOAgent, PPOConfig, RuntimeConfig, ScheduleConfig, train_ppo_vectorized
from esper.simic.collect import Collector
from esper.simic.nets.actor_critic import ActorCritic
from esper.simic.rollout import Rollout
from esper.simic.vectorized import Training
from esper.system.seeding import device_generator
from esper.telemetry.events import UpdateCompleted

LENGTH = 3


class Locks(gymnasium.Env[Any, Any]):
    """Only one value of each choice is allowed: the step's number, modulo the choice's size. None is, at the end.

    Another action than the allowed one raises. Copies with an odd seed give what `odd` makes of the step and the mask.
    """

    observation_space: spaces.Space[Any] = spaces.Box(0, 10, (1,))
    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(
        self, nvec: Any = (4,), by: str = "action_mask", odd: Any = None, render_mode: str | None = None
    ) -> None:
        self.nvec, self.by, self.odd, self.render_mode = nvec, by, odd, render_mode
        self.action_space = spaces.MultiDiscrete(nvec) if len(nvec) > 1 else spaces.Discrete(nvec[0])
        self.steps = 0
        if by.endswith("()"):
            setattr(self, by.removesuffix("()"), self.mask)
        if by == "observation":
            self.observation_space = spaces.Dict(
                action_mask=spaces.MultiBinary(sum(nvec)), observation=type(self).observation_space
            )

    def mask(self) -> Any:
        if self.steps == LENGTH:
            return np.zeros(sum(self.nvec), dtype=np.int8)
        mask = np.concatenate([np.arange(n) == self.steps % n for n in self.nvec]).astype(np.int8)
        return mask if self.odd is None or self.seed % 2 == 0 else self.odd(self.steps, mask)

    def info(self) -> dict[str, Any]:
        mask = self.mask()
        return {self.by: mask} if self.by in ("action_mask", "avail_actions") and mask is not None else {}

    def obs(self) -> Any:
        obs = np.array([self.steps], dtype=np.float32)
        return {"action_mask": self.mask(), "observation": obs} if self.by == "observation" else obs

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.steps = 0
        if seed is not None:
            self.seed = seed
        return self.obs(), self.info()

    def step(self, action: Any) -> Any:
        assert np.ravel(action).tolist() == [self.steps % n for n in self.nvec]
        self.steps += 1
        return self.obs(), 1.0, self.steps == LENGTH, False, self.info()

    def render(self) -> Any:
        return np.zeros((4, 4, 3), dtype=np.uint8)

    def state_dict(self) -> Any:
        return {"steps": self.steps, "seed": self.seed}

    def load_state_dict(self, state: Any) -> None:
        self.steps, self.seed = state["steps"], state["seed"]


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    kinds: tuple[Any, ...] = (Locks, Late, Shut, Alike, Pushes)
    for kind in kinds:
        gymnasium.register(f"{kind.__name__}-v0", entry_point=kind)
    gymnasium.register("AtOnce-v0", entry_point=cast(Any, Locks), vector_entry_point=cast(Any, AtOnce))
    yield
    del gymnasium.registry["AtOnce-v0"]
    for kind in kinds:
        del gymnasium.registry[f"{kind.__name__}-v0"]


def make(vector: Any = "sync", num_envs: int = 2, **kwargs: Any) -> VectorEnv:
    return make_env("Locks-v0", num_envs=num_envs, vector=vector, env_kwargs=kwargs)


def agent_for(env: VectorEnv, **changes: Any) -> PPOAgent:
    settings: dict[str, Any] = {
        "num_envs": env.spec.num_envs,
        "num_steps": 8,
        "total_timesteps": 20 * 8 * env.spec.num_envs,
        "network": NetworkConfig(hidden_sizes=(8,)),
        "runtime": RuntimeConfig(compile="off"),
    }
    config = PPOConfig(**(settings | changes))
    return PPOAgent(config, env.spec)


@pytest.mark.parametrize("vector", ["sync", "async"])
@pytest.mark.parametrize(
    "by", ["action_mask", "avail_actions", "action_masks()", "action_mask()", "valid_action_mask()", "observation"]
)
def test_after_the_end_of_an_episode_they_are_those_of_the_next_one(vector: str, by: str) -> None:
    env = make(vector, nvec=(3, 2), by=by)
    assert env.spec.masked
    assert env.spec.observations == Vectors(size=1)
    env.reset(0)
    for steps in (0, 1, 2, 0, 1, 2, 0):
        expected = [steps == 0, steps == 1, steps == 2, steps % 2 == 0, steps % 2 == 1]
        assert env.action_masks is not None
        assert env.action_masks.dtype == np.bool_
        assert env.action_masks.tolist() == [expected] * 2
        env.step(np.array([[steps, steps % 2]] * 2))
    env.close()


@pytest.mark.parametrize("nvec", [(4,), (3, 2), (2, 2, 2)])
def test_nothing_but_what_is_allowed_is_done_in_training(nvec: Any) -> None:
    """The environment would raise; and where one action is allowed there is nothing to learn, and no entropy."""
    env = make(nvec=nvec)
    events: list[UpdateCompleted] = []
    train_ppo_vectorized(agent_for(env), env, on_event=events.append)  # type: ignore[arg-type]
    assert [event.episode_length_mean for event in events] == [LENGTH] * 20
    assert [event.entropy for event in events] == [0.0] * 20
    assert [event.approx_kl for event in events] == [0.0] * 20


def test_the_most_likely_action_is_an_allowed_one() -> None:
    for stochastic in (False, True):
        network = ActorCritic(Vectors(size=1), make(nvec=(3, 2)).spec.actions, NetworkConfig(hidden_sizes=(4,)))
        policy = Policy(network=network, environment=EnvConfig(env="Locks-v0", env_kwargs={"nvec": [3, 2]}))
        scores = evaluate(policy, episodes=5, seed=0, stochastic=stochastic)
        assert scores.lengths == [LENGTH] * 5


def test_a_recorded_episode_is_of_allowed_actions(tmp_path: Path) -> None:
    network = ActorCritic(Vectors(size=1), make().spec.actions, NetworkConfig(hidden_sizes=(4,)))
    policy = Policy(network=network, environment=EnvConfig(env="Locks-v0"))
    assert record_gif(policy, tmp_path / "episode.gif", seed=0) == LENGTH


class TestRollout:
    def test_has_what_was_allowed_when_it_was_acted(self) -> None:
        env, rollouts = make(), []
        agent, collector = agent_for(env), Collector(env, seed=0)
        for _ in range(2):
            rollout = agent.allocate_rollout()
            collector.collect(agent.network, rollout, agent.generators["actions"])
            rollouts.append(rollout)
        # 8 steps are two episodes and two steps of a third, which goes on in the second rollout.
        masks = torch.cat([rollout.masks for rollout in rollouts if rollout.masks is not None])
        assert masks.int().argmax(-1)[:, 0].tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
        assert masks.sum(-1).eq(1).all()
        assert masks.int().argmax(-1).equal(torch.cat([rollout.actions for rollout in rollouts]))

    def test_the_update_sees_the_same_masks(self) -> None:
        """Two of 16 actions are allowed, and a new policy is nearly uniform."""
        env = probes.Trapdoors()
        agent = agent_for(env, update_epochs=1, num_minibatches=1, policy_lr=ScheduleConfig(peak=1e-9))
        update = Training(agent, env, env_seed=0).update()
        assert isinstance(update, UpdateCompleted)
        assert update.entropy == pytest.approx(math.log(2), rel=1e-3)
        assert (update.ratio_min, update.ratio_max) == pytest.approx((1.0, 1.0), abs=1e-5)

    def test_a_device_of_its_own_is_given_them_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        env = make()
        agent, stand_in = agent_for(env), agent_for(env).allocate_rollout()
        monkeypatch.setattr(Collector, "_on_host", lambda self, rollout: stand_in)
        rollout = agent.allocate_rollout()
        Collector(env, seed=0).collect(agent.network, rollout, agent.generators["actions"])
        assert rollout.masks is not None
        assert stand_in.masks is not None
        assert rollout.masks.any()
        assert rollout.masks.equal(stand_in.masks)

    def test_has_none_where_there_are_none(self) -> None:
        env = make_env("CartPole-v1", num_envs=2, vector="sync")
        rollout = Rollout.allocate(env.spec, 4, torch.device("cpu"))
        network = ActorCritic(Vectors(size=4), env.spec.actions, NetworkConfig(hidden_sizes=(4,)))
        collector = Collector(env, seed=0)
        collector.collect(network, rollout, device_generator(0, "actions", torch.device("cpu")))
        assert rollout.masks is None
        assert env.action_masks is None
        assert set(collector.state_dict()) == {"obs"}


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_training_goes_on_with_the_masks_it_had(stop: int) -> None:
    """3 rollouts of 8 steps end with an episode, so that the next one has begun with the last step."""
    runs = [Training(agent_for(env), env, env_seed=0) for env in (make(nvec=(3, 2)) for _ in range(2))]
    for _ in range(stop):
        runs[0].update()
    runs[1].load_state_dict(runs[0].state_dict(), env_seed=9)
    for _ in range(2):
        for run in runs:
            run.update()
    assert str(runs[0].state_dict()) == str(runs[1].state_dict())


class TestWhatIsNoMask:
    @pytest.mark.parametrize(
        ("nvec", "odd", "message"),
        [
            ((4,), lambda steps, mask: mask[:3], r"the action mask of environment 1 has shape \[3\], not \[4\]"),
            ((4,), lambda steps, mask: mask[None], r"the action mask of environment 1 has shape \[1, 4\], not \[4\]"),
            ((4,), lambda steps, mask: mask * np.nan, "the action mask of environment 1 has values other than 0 and 1"),
            ((4,), lambda steps, mask: mask * 2, "the action mask of environment 1 has values other than 0 and 1"),
            ((4,), lambda steps, mask: mask * 0, "the action mask of environment 1 allows no action"),
            ((2, 3), lambda steps, mask: mask * [1, 1, 0, 0, 0], "of environment 1 allows no value of choice 1"),
            ((4,), lambda steps, mask: None, "environment 1 gave no action mask; the first reset came with one"),
        ],
    )
    @pytest.mark.parametrize("when", [0, 1], ids=["on reset", "in a step"])
    @pytest.mark.parametrize("by", ["action_mask", "action_masks()"])
    def test_is_refused_by_the_copys_number(self, nvec: Any, odd: Any, message: str, when: int, by: str) -> None:
        env = make(nvec=nvec, by=by, odd=lambda steps, mask: odd(steps, mask) if steps >= when else mask)
        with pytest.raises(EnvError, match=message):
            # Seeds are 0 and 1: the second copy is the odd one.
            self.walk(env, nvec)

    def walk(self, env: VectorEnv, nvec: Any) -> None:
        env.reset(0)
        env.step(np.zeros((2, *((len(nvec),) if len(nvec) > 1 else ())), dtype=np.int64))

    @pytest.mark.filterwarnings("ignore")  # Gymnasium reports a worker's error as a warning too.
    def test_is_refused_in_a_process_of_its_own(self) -> None:
        env = make("async", odd=_short)
        with pytest.raises(EnvError, match=r"the action mask of environment 1 has shape \[3\], not \[4\]"):
            env.reset(0)
        env.close()

    def test_one_that_comes_late(self) -> None:
        late = make_env("Late-v0", num_envs=2)
        assert not late.spec.masked
        late.reset(0)
        with pytest.raises(EnvError, match="environment 0 gave an action mask; the first reset came without one"):
            late.step(np.zeros(2, dtype=np.int64))

    @pytest.mark.parametrize("vector", ["sync", "async"])
    def test_what_looks_like_one_and_is_not_used_is_said_once(
        self, vector: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        env = make_env("Alike-v0", num_envs=2, vector=vector)
        env.reset(0)
        env.step(np.zeros(2, dtype=np.int64))
        env.close()
        assert not env.spec.masked
        said = "looks like an action mask, and is not used as one: info['avail_actions'], info['legal_actions']"
        assert caplog.messages == [said]

    def test_continuous_actions_have_none(self) -> None:
        env = make_env("Pushes-v0", num_envs=2)
        env.reset(0)
        env.step(np.zeros((2, 1), dtype=np.float32))
        assert env.action_masks is None

    def test_ends_the_command_with_a_message(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as exit:
            main(["ppo", "--env", "Shut-v0", "--quiet", "--run-dir", str(tmp_path / "run")])
        assert exit.value.code == 1
        assert capsys.readouterr().err == "esper ppo: error: the action mask of environment 0 allows no action\n"

    def test_one_that_a_version_for_several_copies_gives_no_more(self) -> None:
        env = make_env("AtOnce-v0", num_envs=2)
        env.reset(0)
        with pytest.raises(EnvError, match="environment 0 gave no action mask; the first reset came with one"):
            env.step(np.zeros(2, dtype=np.int64))


def _short(steps: int, mask: Any) -> Any:
    return mask[:3]


class Late(Locks):
    """Tells what is allowed in steps alone."""

    def reset(self, **arguments: Any) -> Any:
        return super().reset(**arguments)[0], {}


class Shut(Locks):
    """Has no way out."""

    def mask(self) -> Any:
        return np.zeros(4, dtype=np.int8)


class AtOnce(CartPoleVectorEnv):
    """Has a version of its own for several copies."""

    def reset(self, **arguments: Any) -> Any:
        return super().reset(**arguments)[0], {"action_mask": np.ones((2, 2), dtype=np.int8)}


class Alike(Locks):
    """Gives the numbers of what is allowed, and a method that asks for a state."""

    def info(self) -> dict[str, Any]:
        return {"avail_actions": [0], "legal_actions": [0], "reaction": 1}

    def action_mask(self, state: Any) -> Any:
        raise AssertionError


class Pushes(Locks):
    """Has actions that no mask can be for."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = spaces.Box(-1, 1, (1,))


def test_taxi_is_driven_where_there_is_road() -> None:
    env = make_env("Taxi-v4" if "Taxi-v4" in gymnasium.registry else "Taxi-v3", num_envs=2)
    events: list[UpdateCompleted] = []
    agent = agent_for(env, num_steps=128, total_timesteps=2 * 2 * 128)
    train_ppo_vectorized(agent, env, on_event=events.append)  # type: ignore[arg-type]
    assert env.spec.masked
    assert len(events) == 2
    # Six actions; masks leave a few of them.
    assert 0.5 < events[0].entropy < math.log(5)
