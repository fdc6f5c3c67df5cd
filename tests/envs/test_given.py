"""Environments that Python code gives: callables, instances, Gymnasium's vector environments, wrapped and not."""

from __future__ import annotations

import functools
import itertools
import re
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.spaces.utils import flatten
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import vector as wrappers

from esper.envs.base import DiscreteActions, EnvError, VectorEnv
from esper.envs.gym import GymnasiumVectorEnv
from esper.envs.make import make_env
from esper.settings.options import ConfigError
from esper.simic import NetworkConfig, PPOAgent, PPOConfig, RuntimeConfig, train_ppo_vectorized

NEXT, SAME, OFF = AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED
LENGTH = 3
MASKS = "action_mask"


class Walk(gymnasium.Env[Any, Any]):
    """A Dict of a position, in one array that is written anew, and of the 3 steps left; each forbids one action.

    `odd` does something to what step returns, from the second step on.
    """

    observation_space = spaces.Dict(position=spaces.Box(-9, 9, (2,)), left=spaces.Discrete(LENGTH + 1))
    action_space = spaces.Discrete(3)

    def __init__(self, masks: str = "", odd: Any = None) -> None:
        self.position, self.masks, self.odd = np.zeros(2, np.float32), masks, odd

    def outcome(self) -> Any:
        obs = {"position": self.position, "left": LENGTH - self.steps}
        mask = np.arange(3) != self.steps % 3 if self.steps < LENGTH else np.zeros(3, bool)
        return obs, {self.masks: mask} if self.masks else {"path": self.steps * [None]}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        self.position[:] = self.np_random.uniform(-1, 1, 2)
        return self.outcome()

    def step(self, action: Any) -> Any:
        self.steps += 1
        self.position += 1
        obs, info = self.outcome()
        right = (obs, float(action), False, self.steps == LENGTH, info)
        return self.odd(*right) if self.odd and self.steps > 1 else right


def walks(kind: Any = SyncVectorEnv, mode: AutoresetMode = NEXT, num_envs: int = 4, **kwargs: Any) -> Any:
    return kind([functools.partial(Walk, **kwargs)] * num_envs, autoreset_mode=mode)


def cart_poles(vector: str, **kwargs: Any) -> Any:
    return gymnasium.make_vec("CartPole-v1", num_envs=4, vectorization_mode=vector, vector_kwargs=kwargs)


def train(env: VectorEnv) -> int:
    """Two updates; how many were completed."""
    config = PPOConfig(
        num_envs=env.spec.num_envs,
        num_steps=8,
        num_minibatches=2,
        total_timesteps=2 * 8 * env.spec.num_envs,
        network=NetworkConfig(hidden_sizes=(4,)),
        runtime=RuntimeConfig(threads=1, compile="off"),
    )
    return train_ppo_vectorized(PPOAgent(config, env.spec, seed=1), env).updates


def of_four(env: Any, **kwargs: Any) -> VectorEnv:
    return make_env(env, num_envs=4, **kwargs)


KINDS: dict[str, Any] = {
    "class": lambda: of_four(CartPoleEnv),
    "class, async": lambda: of_four(Walk, vector="async"),
    "function": lambda: of_four(lambda: gymnasium.make("CartPole-v1"), vector="sync"),
    "function, async": lambda: of_four(functools.partial(gymnasium.make, "Acrobot-v1"), vector="async"),
    "instance": lambda: make_env(gymnasium.make("CartPole-v1")),
    "sync": lambda: make_env(cart_poles("sync")),
    "async": lambda: make_env(cart_poles("async")),
    "async, same step": lambda: make_env(walks(AsyncVectorEnv, SAME)),
    "vector entry point": lambda: make_env(gymnasium.make_vec("CartPole-v1", 4, "vector_entry_point")),
    "by the constructor": lambda: GymnasiumVectorEnv(walks()),
    "statistics": lambda: make_env(wrappers.RecordEpisodeStatistics(walks(mode=SAME)), num_envs=4),
    "normalized": lambda: make_env(wrappers.NormalizeObservation(cart_poles("sync"))),
    "clipped": lambda: make_env(wrappers.ClipReward(cart_poles("async", autoreset_mode=SAME), -1, 1)),
    "list": lambda: make_env(wrappers.DictInfoToList(wrappers.RecordEpisodeStatistics(walks(mode=SAME, masks=MASKS)))),
    "our own": lambda: make_env(make_env("torch/CartPole-v1", num_envs=4)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_learned_in(kind: str) -> None:
    env = KINDS[kind]()
    try:
        assert env.spec.num_envs == (1 if kind == "instance" else 4)
        assert train(env) == 2
    finally:
        env.close()


def loop(num_steps: int) -> tuple[list[Any], list[Any]]:
    """What is acted on, and what episodes ended with, [4, D] each, of `Walk`s one by one."""
    copies, space = [Walk() for _ in range(4)], Walk.observation_space
    seen, last = [[flatten(space, each.reset(seed=7 + i)[0]) for i, each in enumerate(copies)]], []
    for _ in range(num_steps):
        rows = [flatten(space, each.step(1)[0]) for each in copies]
        if copies[0].steps == LENGTH:
            last.append(rows)
            rows = [flatten(space, each.reset()[0]) for each in copies]
        seen.append(rows)
    return seen, last


@pytest.mark.parametrize("mode", [NEXT, SAME])
@pytest.mark.parametrize(
    "around",
    [make_env, GymnasiumVectorEnv, lambda env: make_env(wrappers.RecordEpisodeStatistics(env)), "list"],
    ids=["made", "constructed", "statistics", "list"],
)
@pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])
def test_observations_are_those_of_a_plain_loop(kind: Any, around: Any, mode: AutoresetMode) -> None:
    if kind is AsyncVectorEnv and mode is SAME:
        pytest.skip("Gymnasium's processes hand on a last observation after they have reset the environment")
    if around == "list":
        env = make_env(wrappers.DictInfoToList(walks(kind, mode, masks=MASKS)))
    else:
        env = around(walks(kind, mode, masks=MASKS))
    seen, last = [env.reset(7).copy()], []
    while len(seen) < 8:
        step = env.step(np.ones(4, np.int64))
        if step.final_obs is not None:
            last.append(step.final_obs.copy())
        if not (env.spec.resets_in_a_step and step.final_obs is not None):
            seen.append(step.obs.copy())
        allowed = (
            np.ones(3, bool)
            if step.final_obs is not None and env.spec.resets_in_a_step
            else np.arange(3) != ((len(seen) - 1) % LENGTH)
        )
        assert env.action_masks is not None
        np.testing.assert_array_equal(env.action_masks, np.tile(allowed, (4, 1)))
    env.close()
    for ours, theirs in zip((seen, last), loop(7), strict=True):
        np.testing.assert_array_equal(np.array(ours), np.array(theirs, np.float32))


class Layout(gymnasium.vector.VectorWrapper[Any, Any, Any, Any, Any]):
    """Infos as `change`, where an episode ended, and `first`, on reset, make them of Gymnasium's."""

    def __init__(self, env: Any, change: Any, first: Any = None) -> None:
        super().__init__(env)
        self.change, self.first = change, first

    def reset(self, **arguments: Any) -> Any:
        obs, info = self.env.reset(**arguments)
        return obs, self.first(info) if self.first else info

    def step(self, actions: Any) -> Any:
        *rest, info = self.env.step(actions)
        return (*rest, self.change(dict(info)) if "final_obs" in info else info)


def batch(info: Any) -> Any:
    """Rows of copies that go on are anything."""
    rows = [np.zeros(3, np.float32) if final is None else final for final in info["final_obs"]]
    return info | {"final_obs": np.stack(rows)}


def counting(length: int) -> gymnasium.Env[Any, Any]:
    env = gymnasium.make("Pendulum-v1", disable_env_checker=True).unwrapped
    return gymnasium.wrappers.TimeLimit(env, length)


@pytest.mark.parametrize(
    "change",
    [
        lambda info: info,
        batch,
        lambda info: {"final_observation": info["final_obs"], "_final_observation": info["_final_obs"]},
        lambda info: {"final_obs": info["final_obs"]},
        lambda info: [{} if final is None else {"final_obs": final} for final in info["final_obs"]],
    ],
    ids=["objects", "batch", "old name", "no companion", "list"],
)
def test_final_observations_in_every_layout(change: Any) -> None:
    """Copies end in turn, so that most rows are of copies that go on."""
    makers = [functools.partial(counting, length) for length in (2, 3, 5)]
    ours = make_env(Layout(SyncVectorEnv(makers, autoreset_mode=SAME), change))
    theirs = SyncVectorEnv(makers, autoreset_mode=SAME)
    ours.reset(3)
    theirs.reset(seed=3)
    for _ in range(6):
        step, (_, _, _, truncated, info) = ours.step(np.ones((3, 1), np.float32)), theirs.step(np.ones((3, 1)))
        assert (step.final_obs is not None) == truncated.any()
        if step.final_obs is not None:
            np.testing.assert_array_equal(step.final_obs[truncated], np.stack(info["final_obs"][truncated]))
            np.testing.assert_array_equal(step.final_obs[~truncated], step.obs[~truncated])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda info: {}, "step returned no final_obs in info where an episode ended"),
        (lambda info: [{}, {}, {}], "step returned no final_obs in info where an episode ended"),
        (
            lambda info: batch(info) | {"_final_obs": np.array([False, True, True])},
            "step returned no final_obs of environment 0, where an episode ended",
        ),
        (
            lambda info: {"final_obs": np.full(3, None)},
            "in final_obs[0], step returned a value that is None; its space",
        ),
        (lambda info: {"final_obs": np.full(2, None)}, "an array of object [2] as final_obs; Gymnasium requires [3]"),
    ],
)
def test_final_observations_that_are_missing_are_named(change: Any, message: str) -> None:
    makers = [functools.partial(counting, length) for length in (2, 3, 5)]
    env = make_env(Layout(SyncVectorEnv(makers, autoreset_mode=SAME), change))
    env.reset(3)
    env.step(np.ones((3, 1), np.float32))
    with pytest.raises(EnvError, match=re.escape(message)):
        env.step(np.ones((3, 1), np.float32))


@pytest.mark.filterwarnings("ignore:.*Received the following error")
@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (lambda *right: 1 / 0, "environment 1 raised in a step: ZeroDivisionError: division by zero"),
        (lambda *right: right[:4], "environment 1 breaks Gymnasium's rules: step returned a tuple of 4 values"),
        (lambda obs, *rest: (obs["position"], *rest), "environment 1 breaks Gymnasium's rules: step returned an obs"),
    ],
)
def test_the_copy_that_fails_is_named(odd: Any, message: str) -> None:
    makers: list[Any] = [Walk, functools.partial(Walk, odd=odd)]
    for env in (SyncVectorEnv(makers), wrappers.RecordEpisodeStatistics(SyncVectorEnv(makers))):
        ours = make_env(env)
        ours.reset(0)
        ours.step(np.ones(2, np.int64))
        with pytest.raises(EnvError, match=re.escape(message)):
            ours.step(np.ones(2, np.int64))
        ours.close()


def test_the_process_that_fails_is_named_and_closed(capfd: pytest.CaptureFixture[str]) -> None:
    makers: list[Any] = [Walk, functools.partial(Walk, odd=lambda *right: 1 / 0)]
    given = AsyncVectorEnv(makers)
    env = make_env(wrappers.RecordEpisodeStatistics(given))
    env.reset(0)
    env.step(np.ones(2, np.int64))
    with pytest.raises(EnvError, match="environment 1 raised ZeroDivisionError: division by zero"):
        env.step(np.ones(2, np.int64))
    env.close()
    assert not any(process.is_alive() for process in given.processes)
    assert "Traceback" not in capfd.readouterr().err


def odd_mask(mask: Any) -> Any:
    return lambda obs, reward, terminated, truncated, info: (
        obs,
        reward,
        terminated,
        False,
        {MASKS: mask} if mask else {},
    )


@pytest.mark.parametrize(
    ("masks", "odd", "message"),
    [
        (MASKS, odd_mask([0, 0, 0]), "the action mask of environment 1 allows no action"),
        (MASKS, odd_mask(None), "environment 1 gave no action mask; the first reset came with one"),
        ("", odd_mask([1, 1, 1]), "environment 1 gave an action mask; the first reset came without one"),
    ],
)
@pytest.mark.parametrize("around", [wrappers.RecordEpisodeStatistics, wrappers.DictInfoToList])
def test_wrong_masks_are_named(masks: str, odd: Any, message: str, around: Any) -> None:
    good, bad = (functools.partial(Walk, masks=masks, odd=each) for each in (None, odd))
    env = make_env(around(SyncVectorEnv([good, bad])))
    assert env.spec.masked == bool(masks)
    env.reset(0)
    env.step(np.ones(2, np.int64))
    with pytest.raises(EnvError, match=message):
        env.step(np.ones(2, np.int64))


def test_what_looks_like_a_mask_and_is_none_is_said(caplog: pytest.LogCaptureFixture) -> None:
    assert make_env(wrappers.RecordEpisodeStatistics(walks(masks="avail_actions"))).spec.masked
    assert not caplog.messages
    assert not make_env(wrappers.RecordEpisodeStatistics(walks(masks="legal_actions"))).spec.masked
    numbers = Layout(walks(mode=SAME), lambda info: info, lambda info: {"avail_actions": np.zeros((4, 2))})
    assert not make_env(numbers).spec.masked
    said = [f"looks like an action mask, and is not used as one: info['{name}']" for name in ("legal", "avail")]
    assert caplog.messages == [message.replace("']", "_actions']") for message in said]


@pytest.mark.parametrize("kind", ["class", "class, async", "function", "instance", "sync", "vector entry point"])
def test_goes_on_where_it_was(kind: str) -> None:
    env, other = KINDS[kind](), KINDS[kind]()
    if kind == "class, async":
        # Nobody knows where these stand.
        assert env.reset(0) is not None
        assert env.state_dict() is None
    else:
        actions = np.arange(env.spec.num_envs) % 2
        env.reset(0)
        for _ in range(5):
            env.step(actions)
        other.reset(1)
        other.load_state_dict(env.state_dict())
        for _ in range(30):
            ours, theirs = env.step(actions), other.step(actions)
            np.testing.assert_array_equal(ours.obs, theirs.obs)
    env.close()
    other.close()


class Oddity(gymnasium.spaces.Space[Any]):
    """A space of somebody's own."""

    def sample(self, mask: Any = None, probability: Any = None) -> Any:
        return 0

    def contains(self, x: Any) -> bool:
        return True


def of_space(space: Any) -> Any:
    env = Walk()
    env.observation_space = space
    return env


def two_in_turn() -> Any:
    environments = itertools.cycle([Walk(), Walk()])
    return lambda: next(environments)


def one_in_two_places(wrap: Any = lambda env: env) -> Any:
    env = Walk()
    return wrap(SyncVectorEnv([lambda: env] * 2, autoreset_mode=SAME))


def the_same_one() -> Any:
    env = Walk()
    return lambda: env


REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    (3, {}, "env = 3: must be an id, a callable that makes a gymnasium.Env, or an environment or ve"),
    (None, {}, "env = None: must be an id"),
    (lambda: None, {"num_envs": 2}, "<lambda>: must make a gymnasium.Env, and made None"),
    (walks, {}, "env = walks: must make a gymnasium.Env, and made a vector environment; pass that its"),
    (the_same_one(), {"num_envs": 2}, "must make a new environment at each call, not one twice"),
    (two_in_turn(), {"num_envs": 4}, "must make a new environment at each call, not one twice"),
    (one_in_two_places(), {}, "env = SyncVectorEnv: must have an environment of its own in each place, not one twice"),
    (one_in_two_places(wrappers.RecordEpisodeStatistics), {}, "must have an environment of its own in each place"),
    (lambda: 1 / 0, {"num_envs": 2}, "<lambda>: raised in its constructor: ZeroDivisionError: division by zero"),
    (Walk, {"env_kwargs": {"size": 3}}, 'env_kwargs = {"size": 3}: Walk refuses them: TypeError'),
    (Walk, {"vector": "native"}, "vector = native: must be auto, sync or async, as Walk makes one at a time"),
    (Walk, {"num_envs": 0}, "num_envs = 0: must be at least 1"),
    ("CartPole-v1", {"num_envs": 0}, "num_envs = 0: must be at least 1"),
    (Walk(), {"num_envs": 2}, "num_envs = 2: must be 1, as Walk exists already; to choose, pass a callable that m"),
    (Walk(), {"vector": "async"}, "vector = async: must be auto, as Walk exists already"),
    (Walk(), {"env_kwargs": {"masks": "no"}}, "must be empty, as Walk exists already"),
    (walks(), {"num_envs": 3}, "num_envs = 3: must be 4, as SyncVectorEnv exists already"),
    (walks(), {"vector": "sync"}, "vector = sync: must be auto, as SyncVectorEnv exists already"),
    (make_env("CartPole-v1", num_envs=2), {"num_envs": 3}, "must be 2, as GymnasiumVectorEnv exists already"),
    (walks(mode=OFF), {}, "env = SyncVectorEnv: must reset by itself: metadata['autoreset_mode'] must be"),
    (wrappers.RecordEpisodeStatistics(walks(mode=OFF)), {}, "NEXT_STEP or SAME_STEP, not AutoresetMode.DISABLED"),
    (lambda: of_space(Oddity()), {}, "<lambda>: has observations that cannot become a vector: there is a Oddity;"),
    (lambda: of_space(spaces.Dict(a=spaces.Text(3))), {}, "a vector: at 'a', there is a Text;"),
]


@pytest.mark.parametrize(("env", "arguments", "message"), REFUSED)
def test_what_cannot_be_used_is_named(env: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        make_env(env, **arguments)


@pytest.mark.parametrize("space", [Oddity(), spaces.Tuple([spaces.Text(3)])], ids=["of their own", "text"])
def test_odd_spaces_of_wrapped_vector_environments_are_refused(space: Any) -> None:
    env = wrappers.RecordEpisodeStatistics(SyncVectorEnv([lambda: of_space(space)] * 2))
    with pytest.raises(ConfigError, match="env = SyncVectorEnv: has observations that cannot become a vector"):
        make_env(env)


def test_arguments_reach_what_makes_a_copy() -> None:
    env = make_env(Walk, num_envs=2, env_kwargs={"masks": MASKS})
    assert env.spec.masked
    assert env.spec.actions == DiscreteActions(n=3)


def test_a_callable_is_wrapped_as_an_id_is() -> None:
    pytest.importorskip("minigrid")
    by_id = make_env("MiniGrid-Empty-5x5-v0", num_envs=2)
    env = make_env(lambda: gymnasium.make("MiniGrid-Empty-5x5-v0"), num_envs=2)
    assert env.spec.observations == by_id.spec.observations
    np.testing.assert_array_equal(env.reset(0), by_id.reset(0))
    # Who has put a view of their own around it gets that.
    minigrid = pytest.importorskip("minigrid.wrappers")
    own = make_env(lambda: minigrid.ImgObsWrapper(gymnasium.make("MiniGrid-Empty-5x5-v0")))
    assert own.spec.observations != by_id.spec.observations


def test_gymnasiums_checker_finds_nothing_wrong_with_what_is_put_around() -> None:
    """Warnings are errors here."""
    env = make_env(gymnasium.make("CartPole-v1"))
    env.reset(0)
    env.step(np.zeros(1, np.int64))


def test_infos_and_an_array_that_is_written_anew_do_no_harm_in_a_sync_one() -> None:
    """Infos of copies differ in length, which Gymnasium's own `SyncVectorEnv` cannot join."""
    env = make_env(walks())
    env.reset(7)
    last = [step.final_obs for step in (env.step(np.ones(4, np.int64)) for _ in range(3))][-1]
    np.testing.assert_array_equal(last, np.array(loop(3)[1][0], np.float32))
