"""`predict` is what evaluation does, on what the environment gives; a policy can be saved, pickled and copied."""

from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector.utils import concatenate, create_empty_array
from torch import nn

from esper import load_policy
from esper.envs.base import EnvSpec, VectorEnv
from esper.envs.config import EnvConfig
from esper.envs.make import make_env
from esper.policies.evaluate import evaluate
from esper.policies.player import Player
from esper.policies.policy import Policy, save_policy
from esper.settings.options import ConfigError
from esper.simic import NetworkConfig, PPOAgent, PPOConfig, RuntimeConfig
from esper.storage.store import StoreError
from esper.system.seeding import device_generator, integer_seed

LENGTH = 4
OBSERVATIONS: dict[str, Any] = {
    "vector": spaces.Box(-9, 9, (4,)),
    "matrix": spaces.Box(-9, 9, (2, 3), np.float64),
    "number": spaces.Box(-9, 9, ()),
    "discrete": spaces.Discrete(5, start=-2),
    "choices": spaces.MultiDiscrete([3, 2], start=[1, -1]),
    "bits": spaces.MultiBinary([2, 3]),
    "image": spaces.Box(0, 255, (12, 10, 3), np.uint8),
    "image, channels first": spaces.Box(0, 255, (3, 12, 10), np.uint8),
    "image of booleans": spaces.Box(0, 1, (6, 6, 2), np.bool_),
    "dictionary": spaces.Dict(
        place=spaces.Box(-9, 9, (2,)), kind=spaces.Discrete(3), deep=spaces.Dict(image=spaces.Box(0, 9, (3, 3, 1), int))
    ),
    "tuple": spaces.Tuple([spaces.Discrete(3, start=1), spaces.Box(-9, 9, (1, 2))]),
}
ACTIONS: dict[str, Any] = {
    "discrete": spaces.Discrete(6, start=3),
    "choices": spaces.MultiDiscrete(np.array([[4, 5], [6, 3]]), start=np.array([[1, 2], [0, -3]])),
    "bits": spaces.MultiBinary(4),
    "continuous": spaces.Box(-1, 1, (2, 2)),
    "continuous, scaled": spaces.Box(np.array([0.0, 100.0]), np.array([1.0, 900.0]), dtype=np.float64),
}


class Draws(gymnasium.Env[Any, Any]):
    """Observations that its seed draws; episodes of `LENGTH` steps. It keeps the actions; `masks` also draws masks."""

    def __init__(self, observed: Any, taken: Any, masks: int = 0) -> None:
        self.observation_space, self.action_space = copy.deepcopy(observed), taken
        self.masks, self.actions = masks, list[Any]()

    def info(self) -> dict[str, Any]:
        if not self.masks:
            return {}
        mask = self.np_random.integers(2, size=self.masks)
        mask[[0, -1]] = 1
        return {"action_mask": mask.astype(np.int8)}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.age = 0
        return self.observation_space.sample(), self.info()

    def step(self, action: Any) -> Any:
        self.actions.append(action)
        self.age += 1
        return self.observation_space.sample(), 1.0, self.age == LENGTH, False, self.info()


def settings(network: NetworkConfig | None = None) -> PPOConfig:
    return PPOConfig(
        num_envs=1, num_minibatches=1, network=network or NetworkConfig(), runtime=RuntimeConfig(compile="off")
    )


def trained(folder: Path, env: VectorEnv, rnn: Any = None, name: str = "Draws-v0") -> Path:
    """The folder of a policy for `env`, whose random weights tell observations apart."""
    network = NetworkConfig(hidden_sizes=(8,), rnn=rnn, rnn_size=None if rnn is None else 3)
    agent = PPOAgent(settings(network), env.spec, seed=3)
    with torch.no_grad():
        agent.network.actor[-1].get_parameter("weight").mul_(100)
    save_policy(folder, agent, EnvConfig(env=name))
    return folder


def loaded(folder: Path, env: Draws, rnn: Any = None) -> Policy:
    """A policy for `env`, which is neither reset nor stepped."""
    alike = Draws(env.observation_space, env.action_space, env.masks)
    return load_policy(trained(folder, make_env(alike), rnn), env=env)


def evaluated(policy: Policy, env: Draws, *, stochastic: bool = False) -> list[Any]:
    """The actions that reach `env` in two episodes and a half of an evaluation with seed 0."""
    player = Player(policy.network, make_env(env), 0)
    actions = device_generator(0, "evaluation actions", torch.device("cpu"))
    with torch.no_grad():
        for _ in range(10):
            player.step(policy.network.noise((1,), actions) if stochastic else None)
    return env.actions


def played(policy: Policy, env: Draws, **arguments: Any) -> list[Any]:
    """The same in a loop as a user writes it."""
    observation, info = env.reset(seed=integer_seed(0, "evaluation"))
    state = None
    for _ in range(10):
        action, state = policy.predict(observation, state, info.get("action_mask"), **arguments)
        assert env.action_space.contains(action)
        observation, _, terminated, truncated, info = env.step(action)
        if terminated or truncated:
            observation, info = env.reset()
            state = None
    return env.actions


def same(ours: list[Any], theirs: list[Any]) -> bool:
    alike = [
        np.array_equal(*pair) and np.asarray(pair[0]).dtype == pair[1].dtype for pair in zip(ours, theirs, strict=True)
    ]
    return len(ours) == 10 and all(alike)


def together(space: Any, observations: list[Any]) -> Any:
    empty: Any = create_empty_array(space, len(observations))
    return concatenate(space, observations, empty)


class TestPredict:
    @pytest.mark.parametrize("observed", OBSERVATIONS.values(), ids=OBSERVATIONS)
    def test_takes_what_the_environment_gives(self, tmp_path: Path, observed: Any) -> None:
        first, second = (Draws(observed, ACTIONS["choices"]) for _ in range(2))
        policy = loaded(tmp_path, first)
        actions = played(policy, first)
        assert same(actions, evaluated(policy, second))
        assert len({action.tobytes() for action in actions}) > 1

    @pytest.mark.parametrize("taken", ACTIONS.values(), ids=ACTIONS)
    @pytest.mark.parametrize("stochastic", [False, True], ids=["likely", "sampled"])
    def test_returns_what_the_environment_takes(self, tmp_path: Path, taken: Any, stochastic: bool) -> None:
        first, second = (Draws(OBSERVATIONS["vector"], taken) for _ in range(2))
        policy = loaded(tmp_path, first)
        actions = played(policy, first, deterministic=not stochastic)
        assert same(actions, evaluated(policy, second, stochastic=stochastic))
        assert len({np.asarray(action).tobytes() for action in actions}) > 1

    @pytest.mark.parametrize(("rnn", "size"), [("lstm", 12), ("gru", 6)])
    def test_carries_a_state(self, tmp_path: Path, rnn: str, size: int) -> None:
        first, second = (Draws(OBSERVATIONS["number"], ACTIONS["choices"]) for _ in range(2))
        policy = loaded(tmp_path, first, rnn)
        assert same(played(policy, first), evaluated(policy, second))
        # Outputs of 3, and cells of an LSTM, for policy and value.
        action, state = policy.predict(np.float32(1))
        assert action.shape == (2, 2)
        assert state is not None
        assert state.shape == (size,)
        assert state.dtype == np.float32
        before = state.copy()
        _, after = policy.predict(np.float32(1), state)
        assert after is not None
        assert np.array_equal(state, before)
        assert not np.array_equal(state, after)
        _, again = policy.predict(np.float32(1), after, episode_start=True)
        assert again is not None
        assert np.array_equal(again, before)
        many = np.stack([state, after])
        _, rows = policy.predict(np.ones(2, np.float32), many, episode_start=[False, True])
        assert rows is not None
        np.testing.assert_allclose(rows, [after, before], rtol=1e-4)

    @pytest.mark.parametrize("rnn", [None, "lstm", "gru"])
    def test_obeys_masks(self, tmp_path: Path, rnn: str | None) -> None:
        taken = spaces.MultiDiscrete([2, 5])
        first, second = (Draws(OBSERVATIONS["vector"], taken, masks=7) for _ in range(2))
        policy = loaded(tmp_path, first, rnn)
        assert policy.masked
        assert same(played(policy, first), evaluated(policy, second))
        for allowed in range(5):
            mask = np.concatenate([[1, 0], np.arange(5) == allowed])
            assert policy.predict(first.observation_space.sample(), mask=mask)[0].tolist() == [0, allowed]

    def test_takes_a_mask_from_the_observation(self, tmp_path: Path) -> None:
        observed = spaces.Dict(action_mask=spaces.MultiBinary(6), observation=OBSERVATIONS["vector"])
        env = Draws(observed, ACTIONS["discrete"])
        policy = loaded(tmp_path, env)
        masks = np.eye(6, dtype=np.int8)
        observation = np.ones((6, 4), dtype=np.float32)
        actions, _ = policy.predict({"action_mask": masks, "observation": observation})
        assert actions.tolist() == [3, 4, 5, 6, 7, 8]
        assert policy.predict({"action_mask": masks[2], "observation": observation[2]})[0] == 5

    @pytest.mark.parametrize("observed", OBSERVATIONS.values(), ids=OBSERVATIONS)
    @pytest.mark.parametrize("rnn", [None, "lstm", "gru"])
    def test_of_a_batch_is_that_of_each(self, tmp_path: Path, observed: Any, rnn: str | None) -> None:
        env = Draws(observed, ACTIONS["continuous, scaled"])
        policy = loaded(tmp_path, env, rnn)
        observations = [env.observation_space.sample() for _ in range(5)]
        actions, states = policy.predict(together(env.observation_space, observations))
        assert (actions.shape, actions.dtype) == ((5, 2), np.float64)
        one_by_one: list[Any] = [policy.predict(observation) for observation in observations]
        np.testing.assert_allclose(actions, [action for action, _ in one_by_one], rtol=1e-4)
        if rnn is None:
            assert states is None
        else:
            assert states is not None
            np.testing.assert_allclose(states, [state for _, state in one_by_one], rtol=1e-4, atol=1e-6)

    def test_of_an_empty_batch_is_empty(self, tmp_path: Path) -> None:
        policy = loaded(tmp_path, Draws(OBSERVATIONS["vector"], ACTIONS["discrete"]))
        assert policy.predict(np.zeros((0, 4)))[0].shape == (0,)

    def test_of_a_scalar_action_is_a_number_that_can_be_a_key(self, tmp_path: Path) -> None:
        policy = loaded(tmp_path, Draws(OBSERVATIONS["vector"], ACTIONS["discrete"]))
        assert isinstance(policy.predict(np.zeros(4))[0], np.int64)

    def test_samples_by_its_own_generator(self, tmp_path: Path) -> None:
        policy = loaded(tmp_path, Draws(OBSERVATIONS["vector"], ACTIONS["continuous"]))

        def sampled() -> Any:
            return policy.predict(np.ones((3, 4)), deterministic=False)[0].tolist()

        first, second = sampled(), sampled()
        assert first != second
        torch.manual_seed(5)
        policy.seed(0)
        assert [sampled(), sampled()] == [first, second]
        policy.seed(1)
        assert sampled() != first
        with pytest.raises(ConfigError, match=r"^seed = -1: "):
            policy.seed(-1)


class TestEnvironments:
    def test_in_a_loop_gives_the_score_of_an_evaluation(self, tmp_path: Path) -> None:
        """CartPole is made by its vector version in evaluations, and one by one in the loop."""
        policy = load_policy(str(trained(tmp_path, make_env("CartPole-v1"), name="CartPole-v1")))
        env = gymnasium.make("CartPole-v1")
        observation, _ = env.reset(seed=integer_seed(0, "evaluation"))
        done, steps = False, 0
        while not done:
            action, _ = policy.predict(observation)
            observation, _, terminated, truncated, _ = env.step(action)
            done, steps = terminated or truncated, steps + 1
        assert evaluate(policy, episodes=1, seed=0).lengths == [steps]

    @pytest.mark.parametrize("name", ["torch/MountainCarContinuous-v0", "CartPoleNoVel-v1"])
    def test_of_families_are_gymnasiums(self, tmp_path: Path, name: str) -> None:
        spec = make_env(name).spec
        save_policy(tmp_path, PPOAgent(settings(), spec), EnvConfig(env=name))
        env = gymnasium.make(name.removeprefix("torch/"))
        action, _ = load_policy(tmp_path).predict(env.reset(seed=0)[0])
        assert env.action_space.contains(action)

    def test_of_minigrid_are_as_minigrid_gives_them(self, tmp_path: Path) -> None:
        pytest.importorskip("minigrid")
        name = "MiniGrid-Empty-5x5-v0"
        env = make_env(name)
        save_policy(tmp_path, PPOAgent(settings(), env.spec), EnvConfig(env=name))
        policy = pickle.loads(pickle.dumps(load_policy(tmp_path)))
        observation, _ = gymnasium.make(name).reset(seed=0)
        (expected,) = policy.network.act(torch.from_numpy(env.reset(0))).tolist()
        assert policy.predict(observation)[0] == expected
        assert policy._adapter.to_learner(observation)[0].tolist() == env.reset(0).tolist()
        many, _ = gymnasium.make_vec(name, num_envs=2, vectorization_mode="sync").reset(seed=0)
        assert policy._adapter.to_learner(many)[0][0].tolist() == env.reset(0)[0].tolist()
        assert policy.predict(many)[0].shape == (2,)
        with pytest.raises(ConfigError, match="values that its environment does not give"):
            policy.predict({**observation, "image": np.full((7, 7, 3), 99)})

    @pytest.mark.parametrize(
        "given",
        [
            lambda: Draws(OBSERVATIONS["dictionary"], ACTIONS["discrete"]),
            Draws(OBSERVATIONS["dictionary"], ACTIONS["discrete"]),
            gymnasium.vector.SyncVectorEnv([lambda: Draws(OBSERVATIONS["dictionary"], ACTIONS["discrete"])] * 2),
        ],
        ids=["callable", "instance", "vector"],
    )
    def test_can_be_given(self, tmp_path: Path, given: Any) -> None:
        env = Draws(OBSERVATIONS["dictionary"], ACTIONS["discrete"])
        folder = trained(tmp_path, make_env(env))
        policy = load_policy(folder, env=given)
        assert env.action_space.contains(policy.predict(env.observation_space.sample())[0])
        # An evaluation imports nothing that only the file names; what is saved again has its name.
        assert policy.environment.env != "Draws-v0"
        policy.save(tmp_path / "again")
        assert (tmp_path / "again" / "policy.json").read_bytes() == (folder / "policy.json").read_bytes()
        with pytest.raises(ConfigError, match=r"env = Draws-v0: .*; or load_policy takes an environment in its place"):
            load_policy(folder).predict(env.observation_space.sample())

    def test_of_the_projects_own_kind_can_be_given(self, tmp_path: Path) -> None:
        """They scale by themselves, so the policy's actions are between -1 and 1."""
        env = make_env(Draws(OBSERVATIONS["dictionary"], ACTIONS["continuous, scaled"]))
        policy = load_policy(trained(tmp_path, env), env=env)
        obs = env.reset(0)
        actions, _ = policy.predict(obs)
        assert np.array_equal(actions, policy.network.act(torch.from_numpy(obs)).detach().numpy())

    def test_that_do_not_fit_are_refused(self, tmp_path: Path) -> None:
        folder = trained(tmp_path, make_env(Draws(OBSERVATIONS["vector"], ACTIONS["continuous, scaled"])))
        for observed, taken in (("number", "continuous, scaled"), ("vector", "discrete"), ("vector", "continuous")):
            with pytest.raises(ConfigError, match=r"^env = <Draws>: has (observations|actions) .*; those of the"):
                load_policy(folder, env=Draws(OBSERVATIONS[observed], ACTIONS[taken]))
        with pytest.raises(ConfigError, match=r"env = .*raised in its constructor: TypeError"):
            load_policy(folder, env=Draws)
        with pytest.raises(ConfigError, match=r"env = 3: must be an id, a callable"):
            load_policy(folder, env=3)  # type: ignore[arg-type]

    def test_that_need_a_package_say_so(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        spec = make_env("CartPole-v1").spec
        save_policy(tmp_path, PPOAgent(settings(), spec), EnvConfig(env="MinAtar/Breakout-v1"))
        monkeypatch.setitem(sys.modules, "minatar", None)
        with pytest.raises(ConfigError, match="env = MinAtar/Breakout-v1: needs the extra 'minatar'"):
            load_policy(tmp_path).predict(np.zeros(4))


def net(shape: tuple[int, ...]) -> nn.Module:
    return nn.Linear(shape[0], 3)


class TestEncoders:
    def test_can_be_given(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "own_encoder.py").write_text("from torch import nn\ndef net(shape):\n    return nn.Linear(4, 3)\n")
        monkeypatch.syspath_prepend(tmp_path)
        network = NetworkConfig(hidden_sizes=(8,), encoder="own_encoder:net")
        save_policy(tmp_path, PPOAgent(settings(network), make_env("CartPole-v1").spec), EnvConfig())
        (tmp_path / "own_encoder.py").unlink()
        with pytest.raises(StoreError, match="its encoder imports 'own_encoder'"):
            load_policy(tmp_path)
        policy = load_policy(tmp_path, encoder=net)
        assert policy.predict(np.zeros(4))[0] in (0, 1)
        assert pickle.loads(pickle.dumps(policy)).predict(np.zeros(4)) == policy.predict(np.zeros(4))

    def test_that_do_not_fit_are_refused(self, tmp_path: Path) -> None:
        folder = trained(tmp_path, make_env("CartPole-v1"))
        with pytest.raises(StoreError, match=r"policy\.safetensors: "):
            load_policy(folder, encoder=net)
        with pytest.raises(StoreError, match=r"encoder = .*<lambda>>: must return a torch.nn.Module, not int"):
            load_policy(folder, encoder=lambda shape: 3)
        with pytest.raises(ConfigError, match=r"encoder = 3: must be module:callable, or a callable"):
            load_policy(folder, encoder=3)  # type: ignore[arg-type]


class TestCopies:
    @pytest.mark.parametrize(
        "again", [lambda policy: pickle.loads(pickle.dumps(policy)), copy.deepcopy], ids=["pickled", "copied"]
    )
    @pytest.mark.parametrize("used", [False, True])
    def test_predict_the_same(self, tmp_path: Path, again: Callable[[Policy], Policy], used: bool) -> None:
        env = Draws(OBSERVATIONS["dictionary"], ACTIONS["choices"])
        policy = loaded(tmp_path, env, rnn="lstm")
        observations = together(env.observation_space, [env.observation_space.sample() for _ in range(9)])
        if used:
            policy.predict(observations, deterministic=False)
        other = again(policy)
        assert other.network is not policy.network
        for deterministic in (True, False):
            (ours, state), (theirs, theirs_state) = (
                each.predict(observations, deterministic=deterministic) for each in (policy, other)
            )
            assert np.array_equal(ours, theirs)
            assert np.array_equal(state, theirs_state)  # type: ignore[arg-type]

    def test_a_policy_saved_again_is_the_same_file(self, tmp_path: Path) -> None:
        folder = trained(tmp_path, make_env("CartPole-v1"))
        load_policy(folder).save(str(tmp_path / "b" / "c"))
        for name in ("policy.json", "policy.safetensors"):
            assert (folder / name).read_bytes() == (tmp_path / "b" / "c" / name).read_bytes()
        with pytest.raises(OSError, match=r"policy\.json"):
            load_policy(folder).save(folder / "policy.json")


NUMBERS = np.zeros(4, dtype=np.float32)


class TestBadInput:
    @pytest.mark.parametrize(
        ("observation", "message"),
        [
            (
                np.zeros(3),
                "observation = an array of float64 [3]: the observation must have the shape [4], or [N, 4] for a "
                "batch, not [3]",
            ),
            (np.zeros((2, 2, 4)), "or [N, 4] for a batch, not [2, 2, 4]"),
            (0.0, "or [N, 4] for a batch, not []"),
            ("left", "observation = 'left': the observation must be numbers, not 'left'"),
            ({"a": 1}, "must be numbers, not a value of type dict"),
            (None, "must be numbers, not None"),
            (np.full(4, np.nan), "the observation has NaN"),
        ],
    )
    def test_in_observations(self, tmp_path: Path, observation: Any, message: str) -> None:
        policy = loaded(tmp_path, Draws(OBSERVATIONS["vector"], ACTIONS["discrete"]))
        with pytest.raises(ConfigError) as refused:
            policy.predict(observation)
        assert message in str(refused.value)

    @pytest.mark.parametrize(
        ("kind", "observation", "message"),
        [
            ("image", np.full((12, 10, 3), 0.5), "float64 numbers that its space, of uint8, cannot hold"),
            ("image", np.zeros((3, 12, 10), np.uint8), "the shape [12, 10, 3], or [N, 12, 10, 3] for a batch"),
            ("discrete", 2.5, "float64 numbers that its space, of int64, cannot hold"),
            ("discrete", 3, "values that are not in their space, Discrete(5, start=-2)"),
            ("dictionary", {"place": np.zeros(2)}, "the keys ['place', 'kind', 'deep'], not the keys ['place']"),
            ("dictionary", np.zeros(2), "the keys ['place', 'kind', 'deep'], not an array of float64 [2]"),
            (
                "dictionary",
                {"place": np.zeros(2), "kind": 0, "deep": {"image": np.zeros((3, 3))}},
                "the observation at 'deep' at 'image' must have the shape [3, 3, 1], or [N, 3, 3, 1] for a batch",
            ),
            ("tuple", (1,), "must be a tuple of 2, not a tuple of 1 value"),
            ("tuple", ([1, 1], np.zeros((1, 2))), "has parts of different numbers: a batch of 2, one"),
        ],
    )  # fmt: skip
    def test_in_other_observations(self, tmp_path: Path, kind: str, observation: Any, message: str) -> None:
        policy = loaded(tmp_path, Draws(OBSERVATIONS[kind], ACTIONS["discrete"]))
        with pytest.raises(ConfigError) as refused:
            policy.predict(observation)
        assert refused.value.name == "observation"
        assert message in str(refused.value)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"mask": np.ones(5)}, "mask = an array of float64 [5]: must be [6]; has shape [5], not [6]"),
            ({"mask": np.ones((1, 6))}, "mask = an array of float64 [1, 6]: must be [6]"),
            ({"mask": np.full(6, 2)}, "must be [6]; has values other than 0 and 1"),
            ({"mask": np.zeros(6)}, "must be [6]; allows no action"),
            ({"mask": "all"}, "mask = 'all': must be [6]"),
            ({"mask": None}, "must be [6], true for the actions that are allowed: the policy was trained with masks"),
            (
                {"state": np.zeros(11)},
                "state = an array of float64 [11]: must be [12], as predict returned it, or None",
            ),
            ({"state": np.zeros((1, 12))}, "state = an array of float64 [1, 12]: must be [12]"),
            ({"state": (np.zeros(3), np.zeros(2))}, "state = a tuple of 2 values: must be [12]"),
            ({"episode_start": 2}, "episode_start = 2: must be true or false"),
            ({"episode_start": [True, False]}, "episode_start = a list of 2 values: must be true or false"),
        ],
    )
    def test_beside_one_observation(self, tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
        policy = loaded(tmp_path, Draws(OBSERVATIONS["vector"], ACTIONS["discrete"], masks=6), rnn="lstm")
        with pytest.raises(ConfigError) as refused:
            policy.predict(NUMBERS, **{"mask": np.ones(6), **arguments})
        assert message in str(refused.value)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"mask": np.ones(6)}, "mask = an array of float64 [6]: must be [2, 6]"),
            ({"mask": np.array([[1] * 6, [0] * 6])}, "must be [2, 6]; row 1 allows no action"),
            ({"state": np.zeros(12)}, "state = an array of float64 [12]: must be [2, 12]"),
            ({"episode_start": True}, "episode_start = True: must be [2] of true and false"),
        ],
    )
    def test_beside_a_batch(self, tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
        policy = loaded(tmp_path, Draws(OBSERVATIONS["vector"], ACTIONS["discrete"], masks=6), rnn="lstm")
        with pytest.raises(ConfigError) as refused:
            policy.predict(np.stack([NUMBERS] * 2), **{"mask": np.ones((2, 6)), **arguments})
        assert message in str(refused.value)

    def test_of_what_the_policy_does_not_have(self, tmp_path: Path) -> None:
        policy = loaded(tmp_path, Draws(OBSERVATIONS["vector"], ACTIONS["continuous"]))
        with pytest.raises(ConfigError, match="must be None: the policy has no recurrent layers"):
            policy.predict(NUMBERS, np.zeros(2))
        with pytest.raises(ConfigError, match="must be None: the actions are continuous"):
            policy.predict(NUMBERS, mask=np.ones(4))


def test_a_spec_is_all_that_saving_needs(tmp_path: Path) -> None:
    spec: EnvSpec = make_env("CartPole-v1").spec
    agent = PPOAgent(settings(), spec)
    save_policy(str(tmp_path), agent, EnvConfig())
    assert load_policy(tmp_path).updates == 0
