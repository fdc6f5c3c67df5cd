"""Actions in [-1, 1] become those of the environment's bounds: where, exactly which, and that it is needed."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, cast

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiBinary
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from esper.analysis.arms import load_arm
from esper.analysis.runs import read_events
from esper.envs.base import ActionBounds, ContinuousActions
from esper.envs.config import EnvConfig
from esper.envs.families.envpool import EnvPoolVectorEnv
from esper.envs.make import make_env
from esper.envs.scaling import bounds_to_scale_to
from esper.policies.evaluate import evaluate, run_episodes
from esper.policies.export import export_policy
from esper.policies.policy import Policy, load_policy
from esper.policies.show import record_gif
from esper.runs.config import RunConfig
from esper.runs.layers import Layer, file_layer, resolve
from esper.runs.resume.point import ResumeError, find_resume_point
from esper.runs.run import resume_run, run
from esper.settings.options import ConfigError, settings_of
from esper.simic import NetworkConfig, PPOAgent, PPOConfig, ScheduleConfig, train_ppo_vectorized
from esper.sweep.plan import Job, SweepError
from esper.sweep.progress import check_same

LENGTH, NUM_ENVS = 5, 3
WIDE = Box(np.array([0, -10], np.float32), np.array([1000, 30], np.float32))
# Of the policy, and as they are in `WIDE`.
GIVEN = np.array([[-1, -1], [0.5, -0.5], [9, -9]], np.float32)
TAKEN = [[0, -10], [750, 0], [1000, -10]]


class Echo(gymnasium.Env[Any, Any]):
    """Observes the action that it has taken; the nearer its first number is to `best`, the better."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, space: Any = WIDE, best: float = 700.0, render_mode: str | None = None) -> None:
        self.action_space, self.best, self.render_mode = space, best, render_mode
        self.observation_space = Box(-np.inf, np.inf, space.shape or (1,), dtype=np.float64)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.steps = 0
        return np.zeros(self.observation_space.shape or ()), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action)
        self.steps += 1
        obs = np.asarray(action, np.float64).reshape(self.observation_space.shape)
        return obs, -abs(float(obs.flat[0]) - self.best), False, self.steps == LENGTH, {}

    def render(self) -> Any:
        return np.zeros((2, 2, 3), np.uint8)


def echoes_at_once(num_envs: int, **arguments: Any) -> SyncVectorEnv:
    """A vector environment of somebody else."""
    return SyncVectorEnv([lambda: Echo(**arguments)] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    gymnasium.register("Echo-v0", entry_point=cast(Any, Echo), vector_entry_point=cast(Any, echoes_at_once))
    gymnasium.register(
        "Tenth-v0", entry_point=cast(Any, Echo), kwargs={"space": Box(-0.1, 0.1, (2,), dtype=np.float64)}
    )
    yield
    del gymnasium.registry["Echo-v0"], gymnasium.registry["Tenth-v0"]


def scaled_to(space: Any, scale_actions: Any = "auto") -> ActionBounds | None:
    env = make_env("Echo-v0", num_envs=1, env_kwargs={"space": space}, scale_actions=scale_actions)
    assert isinstance(env.spec.actions, ContinuousActions)
    return env.spec.actions.scaled_to


@pytest.mark.parametrize(
    ("low", "high", "scaled"),
    [
        (-1, 1, False),
        (-4, 4, False),
        (-0.25, 0.25, False),
        (-4.01, 1, True),
        (-1, 4.01, True),
        (-0.24, 1, True),
        (0, 1, True),
        (-1, 0, True),
        (0.5, 3, True),
        (-3, -0.5, True),
        (0, 1000, True),
        (-np.inf, 1000, False),
        (-1000, np.inf, False),
        (-np.inf, np.inf, False),
        (np.finfo(np.float32).min, np.finfo(np.float32).max, False),
    ],
)
def test_auto_scales_where_bounds_do_not_fit_a_policy_that_begins_near_0(low: float, high: float, scaled: bool) -> None:
    found = scaled_to(Box(np.array([-1, low], np.float32), np.array([1, high], np.float32)))
    exact = [float(np.float32(bound)) for bound in (low, high)]
    assert found == (ActionBounds(low=(-1.0, exact[0]), high=(1.0, exact[1])) if scaled else None)


def test_on_and_off_do_what_they_say() -> None:
    assert scaled_to(WIDE, "off") is None
    assert scaled_to(Box(-1, 1, (2,)), "on") == ActionBounds(low=(-1.0, -1.0), high=(1.0, 1.0))


@pytest.mark.parametrize("env", ["Pendulum-v1", "MountainCarContinuous-v0", "torch/Pendulum-v1", "CartPole-v1"])
def test_gymnasiums_own_stay_as_they_were(env: str) -> None:
    assert getattr(make_env(env, num_envs=1).spec.actions, "scaled_to", None) is None


@pytest.mark.parametrize("vector", ["sync", "async", "native"])
@pytest.mark.parametrize(
    ("space", "message"),
    [
        (Box(0, np.inf, (2,)), "not from 0 to inf; use auto"),
        (Box(-np.inf, np.inf, dtype=np.float64), "not from -inf to inf; use auto"),
        (Box(-3e38, 3e38), "not from -3e+38 to 3e+38; use auto"),
        (Discrete(3), "not Discrete(3); use auto"),
        (MultiBinary(2), "not MultiBinary(2); use auto"),
    ],
    ids=str,
)
def test_on_without_finite_bounds_is_refused(space: Any, message: str, vector: Any) -> None:
    arguments = {"num_envs": 2, "vector": vector, "env_kwargs": {"space": space}}
    with pytest.raises(ConfigError, match="scale_actions = on: needs actions with finite bounds, not ") as error:
        make_env("Echo-v0", scale_actions="on", **arguments)
    assert message in str(error.value)
    make_env("Echo-v0", **arguments).close()


def test_on_is_refused_for_choices_in_tensors() -> None:
    with pytest.raises(ConfigError, match=r"scale_actions = on: .*, not the choices of torch/CartPole-v1; use auto"):
        make_env("torch/CartPole-v1", num_envs=2, scale_actions="on")


@pytest.mark.parametrize("vector", ["sync", "async", "native"])
def test_what_the_environment_gets(vector: Any) -> None:
    taken = {}
    for scale_actions in ("auto", "off"):
        env = make_env("Echo-v0", num_envs=NUM_ENVS, vector=vector, scale_actions=scale_actions)
        env.reset(0)
        taken[scale_actions] = env.step(GIVEN).obs.tolist()
        env.close()
    assert taken == {"auto": TAKEN, "off": [[0, -1], [0.5, -0.5], [9, -9]]}


@pytest.mark.parametrize(
    "space",
    [
        Box(-60_000, 60_000, (2, 1), dtype=np.float16),
        Box(0.1, 0.3, (3,), dtype=np.float32),
        Box(0.1, 0.3, (3,), dtype=np.float64),
        Box(-1e29, 1e29, (1, 2), dtype=np.float32),
        Box(1e9, 1e9 + 1, (1,), dtype=np.float64),
        Box(5, 5, (2,), dtype=np.float32),
    ],
    ids=str,
)
def test_ends_and_middle_are_exact_in_the_spaces_own_type(space: Any) -> None:
    env = make_env("Echo-v0", num_envs=5, vector="sync", env_kwargs={"space": space})
    env.reset(0)
    given = np.repeat(np.array([[-2], [-1], [0], [1], [2]], np.float32), space.low.size, axis=1)
    env.step(given)  # holds each action to the space
    numbers = env._to_space(given)  # type: ignore[attr-defined]
    assert numbers.dtype == space.dtype
    for number, expected in zip(numbers, (space.low, space.low, None, space.high, space.high), strict=True):
        middle = np.float64(space.low) / 2 + np.float64(space.high) / 2
        np.testing.assert_allclose(number, middle if expected is None else expected, rtol=np.finfo(space.dtype).eps)


class Pool:
    """As EnvPool's are; keeps the actions that it was given."""

    num_envs, observation_space, action_space = NUM_ENVS, Box(-1, 1, (1,)), WIDE
    config: ClassVar[dict[str, Any]] = {}

    def __init__(self, seed: int) -> None: ...

    def reset(self) -> Any:
        return np.zeros((NUM_ENVS, 1), np.float32), {}

    def step(self, actions: Any) -> Any:
        self.taken, none = actions.tolist(), np.zeros(NUM_ENVS, bool)
        return np.zeros((NUM_ENVS, 1), np.float32), np.zeros(NUM_ENVS), none, none, {"elapsed_step": np.ones(NUM_ENVS)}

    def close(self) -> None: ...


def test_a_pool_gets_the_same() -> None:
    env = EnvPoolVectorEnv(Pool)
    env.reset(0)
    env.step(GIVEN)
    assert env._pool.taken == TAKEN


def test_environments_in_tensors_scale_too() -> None:
    rewards = {}
    for scale_actions, actions in (("on", (0.5, -9.0)), ("off", (1.0, -2.0)), ("off", (0.5, -9.0))):
        env = make_env("torch/Pendulum-v1", num_envs=2, scale_actions=scale_actions)  # type: ignore[arg-type]
        env.reset(0)
        rewards[scale_actions, actions] = env.step(np.array([actions], np.float32).T).reward.tolist()
    scaled, same, other = rewards.values()
    assert scaled == same != other


def trained(run_dir: Path, **settings: Any) -> Path:
    small = {"total_timesteps": 64, "num_steps": 8, "num_envs": 4, "num_minibatches": 1, "hidden_sizes": [4]}
    more = {"env": "Echo-v0", "vector": "sync", "quiet": True, "picture": False, "tensorboard": False, "threads": 1}
    values = {**small, **more, "run_dir": str(run_dir), **settings}
    run(resolve([Layer(source="test", values=values)]).config)
    return run_dir


def far_from_0(policy: Policy) -> Policy:
    """Its most likely actions are within the bounds by their first number, and beyond by their second."""
    with torch.no_grad():
        policy.network.actor[-1].get_parameter("bias").copy_(torch.tensor([0.4, 3.0]))
    return policy


class TestPolicies:
    def test_act_the_same_everywhere(self, tmp_path: Path) -> None:
        policy = far_from_0(load_policy(trained(tmp_path / "run")))
        assert policy.environment.scale_actions == "on"
        for vector in ("sync", "native"):
            env = make_env("Echo-v0", num_envs=2, vector=vector)
            expected = run_episodes(policy.network, env, episodes=2, seed=0).returns
            assert evaluate(policy, episodes=2, seed=0).returns == expected
        # 0.4 is 700, but for what the last layer adds; unscaled it would be about -3,500.
        assert min(expected) > -500
        assert record_gif(policy, tmp_path / "a.gif", seed=0) == LENGTH

    def test_act_on_bounds_of_another_type(self, tmp_path: Path) -> None:
        high = np.full(2, 0.1)
        policy = load_policy(trained(tmp_path / "run", env="Tenth-v0"))
        assert policy.network.actions == ContinuousActions(size=2, scaled_to=bounds_to_scale_to("on", -high, high))
        gymnasium.registry["Tenth-v0"].kwargs = {"space": Box(-0.1, 0.1, (2,), dtype=np.float32)}
        assert evaluate(policy, episodes=1, seed=0).lengths == [LENGTH]

    def test_are_refused_where_the_bounds_are_others(self, tmp_path: Path) -> None:
        policy = load_policy(trained(tmp_path / "run"))
        gymnasium.registry["Echo-v0"].kwargs = {"space": Box(0, 500, (2,))}
        with pytest.raises(ConfigError, match=r"actions = .*1000.*: the policy's; the environment takes .*500"):
            evaluate(policy, episodes=1, seed=0)

    @pytest.mark.parametrize(("suffix", "lstm_size"), [(".pt2", None), (".onnx", 3)])
    def test_exported_ones_act_in_the_environments_units(
        self, tmp_path: Path, suffix: str, lstm_size: int | None
    ) -> None:
        policy = far_from_0(load_policy(trained(tmp_path / "run", **({"lstm_size": lstm_size} if lstm_size else {}))))
        path = tmp_path / f"policy{suffix}"
        export_policy(policy, path)
        env = make_env("Echo-v0", num_envs=NUM_ENVS)
        env.reset(0)
        for given in (torch.zeros(NUM_ENVS, 2), torch.randn(NUM_ENVS, 2, generator=torch.Generator().manual_seed(0))):
            inputs = {"observations": given * 9}
            if lstm_size:
                inputs["memory"] = torch.zeros(NUM_ENVS, policy.network.state_size)
            memory = inputs["memory"].clone() if lstm_size else None
            expected = env.step(policy.network.act(given * 9, recurrent_state=memory).detach().numpy()).obs
            np.testing.assert_allclose(act(path, inputs), expected, rtol=1e-5)
            assert 300 < expected[:, 0].min() < 1000
            assert (expected[:, 1] == 30).all()

    def test_of_before_there_was_the_setting_are_not_scaled(self, tmp_path: Path) -> None:
        folder = trained(tmp_path / "run", scale_actions="off")
        stored = json.loads((folder / "policy.json").read_text())
        assert stored["actions"] == {"kind": "continuous", "size": 2}
        policy = load_policy(folder)
        assert policy.environment.scale_actions == "off"
        assert min(evaluate(policy, episodes=1, seed=0).returns) < -600 * LENGTH

    @pytest.mark.parametrize(
        ("scaled_to", "message"),
        [
            ([0, 1], "actions.scaled_to = .0, 1.: must be a mapping"),
            ({"low": [0.0, 0.0]}, "actions.scaled_to.high = None: must be a list of 2 numbers"),
            ({"low": [0.0], "high": [1.0, 1.0]}, "actions.scaled_to.low = .0.0.: must be a list of 2 numbers"),
            ({"low": [0.0, "x"], "high": [1.0, 1.0]}, "actions.scaled_to.low = .*: must be a list of 2 numbers"),
            ({"low": [0.0, 0.0], "high": [1.0, 1e300]}, "actions.scaled_to.high = .*, each nearer to 0 than 1e.30"),
            ({"low": [0.0, 2.0], "high": [1.0, 1.0]}, "actions.scaled_to = .* has a lower bound above its upper bound"),
            ({"low": [], "high": [], "mid": []}, "actions.scaled_to = 'mid': must be of high, low"),
        ],
    )
    def test_with_bounds_of_no_sense_are_refused(self, tmp_path: Path, scaled_to: Any, message: str) -> None:
        folder = trained(tmp_path / "run")
        stored = json.loads((folder / "policy.json").read_text())
        assert stored["actions"]["scaled_to"] == {"low": [0.0, -10.0], "high": [1000.0, 30.0]}
        stored["actions"]["scaled_to"] = scaled_to
        (folder / "policy.json").write_text(json.dumps(stored))
        with pytest.raises(Exception, match=message):
            load_policy(folder)


def act(path: Path, inputs: dict[str, torch.Tensor]) -> np.ndarray:
    """The actions of an exported policy."""
    if path.suffix == ".pt2":
        observations = inputs.pop("observations")
        out = torch.export.load(path).module()(observations, **inputs)
        actions: np.ndarray = (out[0] if isinstance(out, tuple) else out).numpy()
        return actions
    pytest.importorskip("onnxscript")
    reference = pytest.importorskip("onnx.reference")
    session = reference.ReferenceEvaluator(str(path))
    result: np.ndarray = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})[0]
    return result


class TestRuns:
    def test_say_it_once_and_record_it(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO, "esper"):
            folder = trained(tmp_path / "run", eval_every=1, eval_episodes=1)
        said = [record.getMessage() for record in caplog.records if "scaled" in record.getMessage()]
        assert said == ["actions are scaled from [-1, 1] to the environment's bounds, [0, 1000], [-10, 30]"]
        started = next(iter(read_events(folder)))
        assert started["actions_scaled_to"] == {"low": [0.0, -10.0], "high": [1000.0, 30.0]}
        assert json.loads((folder / "config.json").read_text())["scale_actions"] == "auto"
        assert load_policy(folder / "best").environment.scale_actions == "on"

    def test_say_nothing_where_nothing_is_scaled(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO, "esper"):
            folder = trained(tmp_path / "run", scale_actions="off")
        assert "scaled" not in caplog.text
        assert "actions_scaled_to" not in next(iter(read_events(folder)))

    def test_cannot_go_on_with_another_value(self, tmp_path: Path) -> None:
        folder = trained(tmp_path / "run")
        for value in ("on", "off"):
            with pytest.raises(ResumeError, match=f"cannot change on resume:\n  scale_actions: auto, now {value}"):
                resume_run(folder, [Layer(source="flag", values={"scale_actions": value})])

    def test_of_before_there_was_the_setting_go_on_without(self, tmp_path: Path) -> None:
        old = Path(__file__).parents[1] / "runs" / "resume" / "schema1" / "tensors"
        assert "scale_actions" not in json.loads((old / "config.json").read_text())
        assert find_resume_point(old).config.environment.scale_actions == "off"
        begun = tmp_path / "begun"
        begun.mkdir()
        shutil.copy(old / "config.json", begun)
        assert find_resume_point(begun).config.environment.scale_actions == "off"
        assert resolve([file_layer(begun / "config.json")]).config.environment.scale_actions == "off"
        # A file of the user's own has the defaults of today.
        shutil.copy(old / "config.json", tmp_path / "mine.json")
        assert resolve([file_layer(tmp_path / "mine.json")]).config.environment.scale_actions == "auto"

    def test_of_an_old_sweep_are_not_mixed_with_scaled_ones(self, tmp_path: Path) -> None:
        old = Path(__file__).parents[1] / "runs" / "resume" / "schema1" / "tensors"
        there = tmp_path / "env" / "arm" / "1"
        there.mkdir(parents=True)
        shutil.copy(old / "config.json", there)

        def job(scale_actions: str) -> Job:
            values = {**json.loads((old / "config.json").read_text()), "run_dir": str(there)}
            layers = [Layer(source="sweep", values={**values, "scale_actions": scale_actions})]
            return Job(environment="env", arm="arm", config=resolve(layers).config)

        check_same(job("off"))
        with pytest.raises(SweepError, match="with other settings: scale_actions off, now auto"):
            check_same(job("auto"))

    def test_of_before_there_was_the_setting_are_compared_as_not_scaled(self, tmp_path: Path) -> None:
        for seed in (1, 2):
            folder = trained(tmp_path / "arm" / str(seed), seed=seed, scale_actions="off")
        first, *others = (folder / "events.jsonl").read_text().splitlines()
        event = json.loads(first)
        del event["config"]["scale_actions"]
        (folder / "events.jsonl").write_text("\n".join([json.dumps(event), *others, ""]))
        assert load_arm(tmp_path / "arm", settings_of(RunConfig)).settings["scale_actions"] == "off"


@pytest.mark.parametrize(("scale_actions", "learned"), [("auto", True), ("off", False)])
def test_what_is_far_from_0_is_learned_where_it_is_scaled(scale_actions: Any, learned: bool) -> None:
    space = Box(0, 1000, (1,))
    env = make_env("Echo-v0", num_envs=8, env_kwargs={"space": space}, vector="sync", scale_actions=scale_actions)
    rate = ScheduleConfig(peak=1e-2, decay="linear", min_ratio=0.05)
    config = PPOConfig(
        num_envs=8,
        num_steps=16,
        num_minibatches=2,
        total_timesteps=60 * 8 * 16,
        gamma=0.0,
        normalize_rewards=True,
        policy_lr=rate,
        value_lr=rate,
        network=NetworkConfig(hidden_sizes=(16,), normalize_observations=True),
    )
    agent = PPOAgent(config, env.spec, seed=3)
    train_ppo_vectorized(agent, env)
    policy = Policy(
        network=agent.network.eval(),
        environment=EnvConfig(env="Echo-v0", env_kwargs={"space": space}, scale_actions=scale_actions),
    )
    distance = -evaluate(policy, episodes=1, seed=0).returns[0] / LENGTH
    assert distance < 50 if learned else distance > 500
