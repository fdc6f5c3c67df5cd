"""A run that begins with the weights of another run, of a checkpoint, or of a policy."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from torch import Tensor, nn

import esper
from esper.policies.policy import load_policy
from esper.runs.checkpoint.folder import load_checkpoint
from esper.runs.resume.point import ResumeError
from esper.scripts.train import main
from esper.settings.options import ConfigError
from esper.storage.store import dump_tensors

SMALL: dict[str, Any] = {
    "preset": "none",
    "num_envs": 2,
    "num_steps": 8,
    "num_minibatches": 2,
    "hidden_sizes": [5],
    "lr": 1e-2,
    "compile": "off",
    "threads": 1,
    "checkpoint_every": 1,
    "keep_checkpoints": 99,
    "tensorboard": False,
    "picture": False,
    "quiet": True,
}
STEPS = 16
ACTIONS = {"two": Discrete(2), "three": Discrete(3), "box": Box(-1, 1, (2,)), "several": MultiDiscrete([2, 2])}


class Own(gymnasium.Env[Any, Any]):
    """Episodes of 5 steps with random observations; rewards by the action."""

    def __init__(self, actions: str = "two", size: int = 3, image: bool = False) -> None:
        self.action_space = ACTIONS[actions]
        self.observation_space = Box(0, 255, (1, 8, 8), np.uint8) if image else Box(-1, 1, (size,))
        self.image, self.steps = image, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return self._observe(), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        return self._observe(), float(np.sum(action)), self.steps >= 5, False, {}

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "generator": self.np_random.bit_generator.state}

    def load_state_dict(self, state: Any) -> None:
        self.steps, self.np_random.bit_generator.state = state["steps"], state["generator"]

    def _observe(self) -> np.ndarray:
        if self.image:
            return self.np_random.integers(256, size=(1, 8, 8), dtype=np.uint8)
        return self.np_random.uniform(-1, 1, self.observation_space.shape).astype(np.float32)


class Masked(Own):
    """The first action is allowed always, the second in every other step."""

    def action_masks(self) -> np.ndarray:
        return np.array([True, self.steps % 2 == 0])


def train(run_dir: Path, updates: int = 3, env: Any = Own, **settings: Any) -> esper.Run:
    return esper.train(env, **{**SMALL, **settings}, total_timesteps=STEPS * updates, run_dir=run_dir)


def agent_at(run_dir: Path, updates: int = 0) -> dict[str, Any]:
    state: dict[str, Any] = load_checkpoint(run_dir / "checkpoints" / f"{updates:08}")["training"]["agent"]
    return state


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor], *names: str) -> bool:
    return all(torch.equal(ours[name], theirs[name]) for name in names or theirs)


def begun(run: esper.Run) -> dict[str, Any]:
    found: dict[str, Any] = run.record[0]["initial_policy"]
    return found


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "normalized": {"normalize_observations": True, "normalize_rewards": True},
    "recurrent": {"rnn": "lstm", "rnn_size": 3},
    "masked": {"env": Masked},
    "images": {"env_kwargs": {"image": True}, "encoder": "small"},
    "images in a row": {"env_kwargs": {"image": True}, "encoder": "flatten", "normalize_observations": True},
    "shared": {"shared_trunk": True, "layer_norm": True},
    "numbers": {"env_kwargs": {"actions": "box"}},
    "kernels": {"compile": "native"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_takes_all_weights_and_a_resume_is_exact(tmp_path: Path, kind: str) -> None:
    settings = KINDS[kind]
    first = train(tmp_path / "first", **settings)
    more = {**settings, "init_from": first.folder, "seed": 2, "lr_decay": "linear"}
    whole = train(tmp_path / "whole", 6, **more)
    network = agent_at(whole.folder)["network"]
    assert same(network, first.policy.network.state_dict())
    assert not same(network, agent_at(train(tmp_path / "other", 1, **settings, seed=2).folder)["network"])
    assert (begun(whole)["updates"], begun(whole)["new"], begun(whole)["skipped"]) == (3, {}, {})
    assert begun(whole)["source"] == str(first.folder / "checkpoints/00000003")
    assert set(begun(whole)["taken"]) >= set(network)
    # The schedule and the clock are the new run's.
    assert whole.updates["update"].tolist() == list(range(6))
    assert whole.updates["lr/policy"].tolist() == pytest.approx([1e-2 * n / 6 for n in (6, 5, 4, 3, 2, 1)])

    def stop(run: Any) -> None:
        if run.agent.train_steps == 2:
            run.stop("enough")

    parts = train(tmp_path / "parts", 6, **more, callbacks=[stop])
    shutil.rmtree(first.folder)  # a resume needs it no more
    parts = parts.resume(quiet=True)
    ours, theirs = (run.folder / "policy.safetensors" for run in (parts, whole))
    assert ours.read_bytes() == theirs.read_bytes()
    assert json.loads((parts.folder / "config.json").read_text())["init_from"] == str(first.folder)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> esper.Run:
    folder = tmp_path_factory.mktemp("first") / "run"
    return train(folder, normalize_observations=True, normalize_rewards=True, eval_every=1, eval_episodes=2)


NORMALIZED = {"normalize_observations": True, "normalize_rewards": True}


def test_takes_from_each_kind_of_folder_and_from_a_policy(tmp_path: Path, first: esper.Run) -> None:
    first.policy.save(tmp_path / "saved")
    policy = load_policy(tmp_path / "saved", env=Own)
    checkpoint = first.folder / "checkpoints" / "00000002"
    found: dict[str, tuple[Any, dict[str, Tensor]]] = {
        "checkpoint": (checkpoint, agent_at(first.folder, 2)["network"]),
        "best": (first.folder / "best", first.best_policy.network.state_dict()),
        "saved": (str(tmp_path / "saved"), first.policy.network.state_dict()),
        "policy": (policy, first.policy.network.state_dict()),
    }
    for name, (source, expected) in found.items():
        run = train(tmp_path / f"from {name}", 1, init_from=source, **NORMALIZED)
        assert same(agent_at(run.folder)["network"], expected), name
        assert begun(run)["source"] == ("<Policy>" if source is policy else str(source))
    rewards = [f"reward_scaler.{name}" for name in ("mean", "var", "count")]
    # Only checkpoints have the statistics of rewards.
    assert begun(train(tmp_path / "a", 1, init_from=checkpoint, **NORMALIZED))["taken"][-3:] == rewards
    assert begun(run)["new"] == dict.fromkeys(rewards, "there are none there")
    state = agent_at(tmp_path / "a")["reward_scaler"]
    assert same(state, agent_at(first.folder, 2)["reward_scaler"], "mean", "var", "count")
    assert state["discounted"].tolist() == [0, 0]


def test_a_policy_that_was_passed_is_a_name_in_files(tmp_path: Path, first: esper.Run) -> None:
    run = train(tmp_path / "run", 2, init_from=first.policy, **NORMALIZED)
    config = run.folder / "config.json"
    assert json.loads(config.read_text())["init_from"] == "<Policy>"
    assert run.resume(total_timesteps=STEPS * 3, quiet=True).result.train.updates == 3
    needed = "init_from = <Policy>: was passed from Python, where it must be passed again"
    with pytest.raises(ConfigError, match=needed):
        esper.train(Own, preset="none", config=config, run_dir=tmp_path / "again", quiet=True)
    assert not (tmp_path / "again").exists()


def test_one_that_was_killed_before_its_first_checkpoint_begins_with_them_again(
    tmp_path: Path, first: esper.Run
) -> None:
    run = train(tmp_path / "run", 2, init_from=first.folder, **NORMALIZED)
    before = (run.folder / "policy.safetensors").read_bytes()
    shutil.rmtree(run.folder / "checkpoints")
    # A file must not choose what is read.
    with pytest.raises(ResumeError, match=f"its init_from reads another folder, .*add --init-from {first.folder} or"):
        esper.resume(run.folder, Own, quiet=True)
    esper.resume(run.folder, Own, init_from=first.folder, quiet=True)
    assert (run.folder / "policy.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("actions", "new", "skipped"),
    [
        ("three", {"actor.2.bias": "[2] there, [3] here", "actor.2.weight": "[2, 5] there, [3, 5] here"}, {}),
        (
            "box",
            {
                "actor.2.bias": "[2] there, [2] here",
                "actor.2.weight": "[2, 5] there, [2, 5] here",
                "log_std": "none there, [2] here",
            },
            {},
        ),
    ],
)
def test_other_actions_have_a_new_head(
    tmp_path: Path, actions: str, new: dict[str, str], skipped: dict[str, str]
) -> None:
    source = train(tmp_path / "source")
    run = train(tmp_path / "run", 1, init_from=source.folder, seed=2, env_kwargs={"actions": actions})
    fresh = train(tmp_path / "fresh", 1, seed=2, env_kwargs={"actions": actions})
    ours, theirs = agent_at(run.folder)["network"], source.policy.network.state_dict()
    assert begun(run)["new"] == {name: f"{why}: other actions" for name, why in new.items()}
    assert begun(run)["skipped"] == skipped
    assert same(ours, theirs, "actor.0.weight", "critic.0.weight", "critic.2.weight")
    assert same(ours, agent_at(fresh.folder)["network"], *new)
    back = train(tmp_path / "back", 1, init_from=run.folder)
    assert same(agent_at(back.folder)["network"], run.policy.network.state_dict(), "actor.0.weight", "critic.2.bias")
    gone = {"log_std": "[2] there, none here: other actions"} if actions == "box" else {}
    assert begun(back)["skipped"] == gone


def test_each_tensor_that_does_not_fit_is_named_with_both_shapes(tmp_path: Path) -> None:
    source = train(tmp_path / "source")
    with pytest.raises(ConfigError) as caught:
        train(tmp_path / "run", 1, init_from=source.folder, env_kwargs={"size": 4})
    assert str(caught.value) == (
        f"init_from = {source.folder}/checkpoints/00000003: does not fit this network:"
        "\n  actor.0.weight: [5, 3] there, [5, 4] here\n  critic.0.weight: [5, 3] there, [5, 4] here"
    )
    with pytest.raises(ConfigError, match=r"\n  trunk.0.weight: none there, \[5, 3\] here") as caught:
        train(tmp_path / "run", 1, init_from=source.folder, shared_trunk=True)
    assert "\n  critic.2.bias: [1] there, none here" in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_statistics_are_taken_or_left_out_as_a_whole(tmp_path: Path, first: esper.Run) -> None:
    run = train(tmp_path / "weights", 1, init_from=first.folder, init_what="weights", **NORMALIZED)
    statistics = dict.fromkeys(begun(run)["new"], "init_what is weights")
    assert begun(run)["new"] == statistics
    assert {f"normalizer.{name}" for name in ("mean", "var", "count")} < set(statistics)
    assert agent_at(run.folder)["network"]["normalizer.count"] == 0
    # The policy would get other observations than it was trained on.
    with pytest.raises(ConfigError, match=r"normalizer.mean: \[3\] there, none here(.|\n)*give the same normalize_obs"):
        train(tmp_path / "run", 1, init_from=first.folder)
    plain = train(tmp_path / "plain")
    with pytest.raises(ConfigError, match=r"normalizer.mean: none there, \[3\] here"):
        train(tmp_path / "run", 1, init_from=plain.folder, normalize_observations=True)
    without = train(tmp_path / "without", 1, init_from=first.folder, init_what="weights")
    assert begun(without)["skipped"]["normalizer.var"] == "init_what is weights"


def sgd(groups: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, momentum=0.9)


@pytest.mark.parametrize("parts", [{}, {"optimizer": sgd}])
def test_takes_the_moments_of_the_optimizer(tmp_path: Path, parts: dict[str, Any]) -> None:
    source = train(tmp_path / "source", **parts)
    run = train(tmp_path / "run", 1, init_from=source.folder, init_what="optimizer", lr=1e-3, **parts)
    ours, theirs = (agent_at(each.folder, n)["optimizer"] for each, n in ((run, 0), (source, 3)))
    if parts:
        assert ours["state"]["0"]["momentum_buffer"].equal(theirs["state"]["0"]["momentum_buffer"])
    else:
        assert same(ours["exp_avg"], theirs["exp_avg"])
        assert ours["step"] == theirs["step"] > 0
    # Rates are the new run's.
    assert run.updates["lr/policy"].tolist() == [1e-3]


def test_an_optimizer_that_cannot_be_taken(tmp_path: Path, first: esper.Run) -> None:
    settings: dict[str, Any] = {**NORMALIZED, "init_what": "optimizer"}
    with pytest.raises(ConfigError, match=r"init_what = optimizer: needs a run or a checkpoint; .*best is a policy"):
        train(tmp_path / "run", 1, init_from=first.folder / "best", **settings)
    with pytest.raises(ConfigError, match=r"has no state for what is new: actor.2.bias, actor.2.weight"):
        train(tmp_path / "run", 1, init_from=first.folder, env_kwargs={"actions": "three"}, **settings)
    with pytest.raises(ConfigError, match=r"init_what = optimizer: .*checkpoints/00000003: optimizer lacks groups"):
        train(tmp_path / "run", 1, init_from=first.folder, optimizer=sgd, **settings)
    assert not (tmp_path / "run").exists()


class Net(nn.Module):
    def __init__(self, spec: Any) -> None:
        super().__init__()
        self.actor, self.critic = nn.Linear(3, spec.actions.outputs), nn.Linear(3, 1)


def test_a_network_from_python_fits_as_a_whole(tmp_path: Path) -> None:
    source = train(tmp_path / "source", network=Net)
    run = train(tmp_path / "run", 1, network=Net, init_from=source.folder, activation="relu")
    assert same(agent_at(run.folder)["network"], source.policy.network.state_dict())
    with pytest.raises(ConfigError, match=r"\n  actor.0.weight: \[2, 3\] there, \[3, 3\] here"):
        train(tmp_path / "other", 1, network=Net, init_from=source.folder, env_kwargs={"actions": "three"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"activation": "relu"}, "activation = relu: the weights of .* are of tanh; give it as activation, too"),
        ({"init_from": 3}, r"init_from = 3: must be a folder \(a run, a checkpoint, a saved policy\) or a Policy"),
        ({"init_from": None, "init_what": "weights"}, "init_what = weights: needs init_from"),
        ({"init_what": "all"}, "init_what = all: must be one of weights, normalizers, optimizer"),
    ],
)
def test_what_cannot_be_used_is_refused(
    tmp_path: Path, first: esper.Run, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(tmp_path / "run", 1, **{"init_from": first.folder, **NORMALIZED, **settings})
    assert not (tmp_path / "run").exists()


def test_files_of_strangers_are_checked(tmp_path: Path, first: esper.Run) -> None:
    with pytest.raises(ConfigError, match=r"init_from = .*nowhere: No such file or directory"):
        train(tmp_path / "run", 1, init_from=tmp_path / "nowhere")
    first.policy.save(tmp_path / "saved")
    file = tmp_path / "saved" / "policy.safetensors"
    tensors = dict(first.policy.network.state_dict())
    file.write_bytes(dump_tensors({**tensors, "actor.0.bias": torch.full((5,), torch.nan)}))
    with pytest.raises(ConfigError, match=r"saved: actor.0.bias has values that are not finite"):
        train(tmp_path / "run", 1, init_from=tmp_path / "saved", **NORMALIZED)
    file.write_bytes(dump_tensors({**tensors, "actor.0.bias": torch.zeros(5, dtype=torch.float64)}))
    with pytest.raises(ConfigError, match=r"saved: actor.0.bias has dtype torch.float64"):
        train(tmp_path / "run", 1, init_from=tmp_path / "saved", **NORMALIZED)
    file.write_bytes(b"pickle")
    with pytest.raises(ConfigError, match="not a complete safetensors file"):
        train(tmp_path / "run", 1, init_from=tmp_path / "saved", **NORMALIZED)
    file.unlink()
    file.symlink_to(first.folder / "policy.safetensors")
    with pytest.raises(ConfigError, match="link"):
        train(tmp_path / "run", 1, init_from=tmp_path / "saved", **NORMALIZED)
    assert not (tmp_path / "run").exists()


def test_the_command_line_has_a_line_for_each_tensor(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    small = {name: value for name, value in SMALL.items() if name not in ("quiet", "tensorboard", "picture", "preset")}
    flags = [f"--{name.replace('_', '-')}={str(value).strip('[]')}" for name, value in small.items()]
    flags += ["--no-tensorboard", "--no-picture", "--preset=none", f"--total-timesteps={STEPS}"]
    assert main(["ppo", "--env=CartPole-v1", *flags, f"--run-dir={tmp_path / 'first'}"]) == 0
    caplog.clear()
    again = ["ppo", "--env=Acrobot-v1", *flags, f"--init-from={tmp_path / 'first'}", f"--run-dir={tmp_path / 'second'}"]
    with pytest.raises(SystemExit, match="2"):
        main(again)
    assert "--init-from" in (err := capsys.readouterr().err)
    assert "\n  actor.0.weight: [5, 4] there, [5, 6] here" in err
    with pytest.raises(SystemExit, match="2"):
        main(["ppo", "--env=Acrobot-v1", "--init-from=nowhere"])
    assert capsys.readouterr().err == "esper ppo: error: --init-from nowhere: No such file or directory\n"
    again[1] = "--env=CartPole-v1"
    capsys.readouterr()
    with caplog.at_level("INFO", "esper"):
        assert main(again) == 0
    command = re.search(r"esper (ppo --config .*)", capsys.readouterr().out)
    assert command is not None
    assert command[1].endswith(f"--init-from {tmp_path / 'first'}")
    assert main([*shlex.split(command[1]), f"--run-dir={tmp_path / 'third'}"]) == 0
    with pytest.raises(SystemExit, match="2"):
        main(["ppo", "--config", str(tmp_path / "second" / "config.json")])
    assert "its init_from reads another folder" in capsys.readouterr().err
    lines = [record.getMessage() for record in caplog.records if record.name == "esper.runs.initial"]
    assert lines[0].startswith("begins with the policy of ")
    assert sorted(lines[1:9]) == sorted(
        f"  taken    {part}.{layer}.{kind}"
        for part in ("actor", "critic")
        for layer in (0, 2)
        for kind in ("weight", "bias")
    )
