"""`esper/Growth-v0`: hosts that are trained together, against the same by other means."""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from torch import Tensor, nn

from esper.envs.base import MultiDiscreteActions, VectorEnv
from esper.envs.growth.blueprints import BLUEPRINTS
from esper.envs.growth.network import Seeds, host_layout, planted
from esper.envs.growth.settings import config_of
from esper.envs.growth.stages import Action, Host, Operation, Slot, Stage, can
from esper.envs.growth.vector import GrowthVectorEnv
from esper.envs.growth.weights import count
from esper.envs.make import make_env
from esper.settings.options import ConfigError

SMALL = {"dataset": "growth_probes:bright", "channels": [4, 4], "epoch_steps": 2, "epochs": 12, "min_gain": 0}
WAIT = np.zeros(4, dtype=np.int64)
CONV = Action(operation=Operation.GERMINATE, slot=0, blueprint=4)


def made(num_envs: int = 1, **settings: Any) -> GrowthVectorEnv:
    return GrowthVectorEnv(config_of({**SMALL, **settings}), num_envs)


def random_actions(env: VectorEnv, generator: np.random.Generator) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Allowed ones."""
    assert isinstance(env.spec.actions, MultiDiscreteActions)
    assert env.action_masks is not None
    ends = np.cumsum(env.spec.actions.nvec)[:-1]
    rows = [[generator.choice(np.flatnonzero(part)) for part in np.split(mask, ends)] for mask in env.action_masks]
    return np.array(rows)


def test_parameters_are_as_many_as_documented() -> None:
    assert count(host_layout((8, 16, 32), 3, 10)) == 6418
    assert [count(blueprint.layout(16)) for blueprint in BLUEPRINTS.values()] == [33, 128, 432, 2336]


def test_a_training_seed_learns_and_changes_nothing() -> None:
    from growth_probes import mirror

    features = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(2, 2, 1, 1, 1).requires_grad_()  # two images, two hosts
    factor = torch.tensor([[3.0], [3.0]], requires_grad=True)
    column = (2, 1, 1, 1)
    seeds = Seeds(
        blueprint=mirror,
        weights={"factor": factor},
        rows=torch.tensor([0, 1]),
        alpha=torch.tensor([0.0, 0.5]).view(column),
        training=torch.tensor([True, False]).view(column),
    )
    grown = planted(seeds, features, training=True)
    # The first host's features are unchanged; the second's are half of x and half of 3x, 2x.
    assert grown.flatten().tolist() == [1, 4, 3, 8]
    grown.sum().backward()
    assert features.grad is not None
    assert factor.grad is not None
    # Through the seed of the first host nothing reaches its features: 1, not 1 + 3. The second's is 0.5 + 0.5 * 3.
    assert features.grad.flatten().tolist() == [1, 2, 1, 2]
    # The first seed learns as with the share 1, from 1 + 3; the second from half of 2 + 4.
    assert factor.grad.flatten().tolist() == [4, 3]


class Plain(nn.Module):
    """One host of `SMALL`, in layers of torch, with the weights that an environment has."""

    def __init__(self, weights: dict[str, Any]) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for block in range(2):
            convolution = nn.Conv2d(weights[f"weight.{block}.kernels"].shape[2], 4, 3, padding=1, bias=False)
            convolution.weight.data = torch.tensor(weights[f"weight.{block}.kernels"][0])
            blocks += [convolution, nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)]
        head = nn.Linear(4, 2)
        head.weight.data, head.bias.data = (torch.tensor(weights[f"weight.{name}"][0]) for name in ("head", "bias"))
        self.layers = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)

    def forward(self, images: Tensor) -> Tensor:
        outputs: Tensor = self.layers(images)
        return outputs


def test_a_host_learns_as_a_network_of_torch() -> None:
    from growth_probes import bright

    env = made(epoch_steps=5)
    env.reset(3)
    state: Any = copy.deepcopy(env.state_dict())
    network = Plain(state["weights"]["hosts"])
    generator = np.random.default_rng()
    generator.bit_generator.state = state["generators"]["0"]
    order = generator.permutation(128)[: 5 * 16].reshape(5, 16)
    x_train, y_train, x_val, y_val = map(torch.from_numpy, bright())
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    for chosen in order:
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x_train[chosen]), y_train[chosen]).backward()
        optimizer.step()
    network.eval()
    loss = nn.functional.cross_entropy(network(x_val), y_val).item()

    env.step(WAIT[None])
    assert env.hosts[0].val_loss == pytest.approx(loss, rel=1e-5)
    after: Any = env.state_dict()["weights"]["hosts"]
    np.testing.assert_allclose(after["weight.1.kernels"][0], network.layers[4].weight.detach(), rtol=1e-4, atol=1e-6)  # type: ignore[operator]


def test_hosts_together_are_what_each_is_alone() -> None:
    env, generator = made(5), np.random.default_rng(1)
    env.reset(1)
    for _ in range(4):
        env.step(random_actions(env, generator))
    alone = [made() for _ in range(5)]
    whole: Any = env.state_dict()
    for index, single in enumerate(alone):
        weights = {
            stack: {name: array[index : index + 1] for name, array in arrays.items()}
            for stack, arrays in whole["weights"].items()
        }
        rest = {part: {"0": whole[part][str(index)]} for part in ("hosts", "generators")}
        single.load_state_dict({"weights": weights, **rest})
    for _ in range(3):
        actions = random_actions(env, generator)
        together = env.step(actions)
        for index, single in enumerate(alone):
            step = single.step(actions[index : index + 1])
            np.testing.assert_allclose(step.obs[0], together.obs[index], rtol=1e-3, atol=1e-3)
    assert len({slot.stage for host in env.hosts for slot in host.slots}) > 2


def test_a_contribution_is_what_is_lost_without_the_seed() -> None:
    env = made(2, host_lr=0.1, noise=0)
    env.reset(0)
    for _ in range(9):
        actions = [CONV if host.slots[0].stage is Stage.DORMANT else Action() for host in env.hosts]
        env.step(np.array([action.numbers for action in actions]))
    for index, host in enumerate(env.hosts):
        assert host.slots[0].stage in (Stage.BLENDING, Stage.HOLDING)
        removed = env._grown.validate([[Slot(), Slot()]] * 2)
        contribution = env.epochs[index].after.slots[0].contribution
        assert contribution == pytest.approx(host.val_accuracy - removed.accuracy[index])


def test_the_state_is_exact() -> None:
    env, again = made(3), made(3)
    generator = np.random.default_rng(0)
    env.reset(5)
    for _ in range(7):
        env.step(random_actions(env, generator))
    again.reset(0)
    again.load_state_dict(copy.deepcopy(env.state_dict()))
    np.testing.assert_array_equal(again.action_masks, env.action_masks)
    for _ in range(8):  # over the end of the episode
        actions = random_actions(env, generator)
        ours, theirs = env.step(actions), again.step(actions)
        np.testing.assert_array_equal(ours.obs, theirs.obs)
        np.testing.assert_array_equal(ours.reward, theirs.reward)


def test_a_state_of_other_hosts_is_refused() -> None:
    state = made(2).state_dict()
    for other in (made(3), made(2, channels=[4, 8]), made(2, blueprints=["norm"])):
        with pytest.raises(ValueError, match=r"no state of 3 hosts|are not those of"):
            other.load_state_dict(state)


def test_a_seed_decides_all() -> None:
    def run(seed: int) -> Any:
        env, generator = made(2), np.random.default_rng(0)
        first = env.reset(seed)
        return np.stack([first, *[env.step(random_actions(env, generator)).obs for _ in range(5)]])

    np.testing.assert_array_equal(run(1), run(1))
    assert not np.array_equal(run(1), run(2))
    assert not np.array_equal(run(1)[:, 0], run(1)[:, 1])


def test_an_episode_ends_after_its_epochs() -> None:
    env = made(2, epochs=3)
    env.reset(0)
    steps = [env.step(np.array([WAIT, WAIT])) for _ in range(4)]
    assert [step.terminated.tolist() for step in steps] == [[False] * 2] * 2 + [[True] * 2, [False] * 2]
    assert not any(step.truncated.any() for step in steps)
    assert steps[2].final_obs is not None
    # The share of the episode that is over, of the last epoch and of the new host.
    assert (steps[2].final_obs[0, 0], steps[2].obs[0, 0]) == (1, 0)
    assert env.spec.max_episode_steps == 3


def test_a_time_limit_truncates() -> None:
    env = make_env("esper/Growth-v0", num_envs=2, env_kwargs=SMALL, max_episode_steps=2)
    env.reset(0)
    steps = [env.step(np.array([WAIT, WAIT])) for _ in range(2)]
    assert [step.truncated.tolist() for step in steps] == [[False] * 2, [True] * 2]
    assert not steps[1].terminated.any()
    np.testing.assert_array_equal([step.success for step in steps], [[np.nan] * 2, [1, 1]])


def test_a_host_that_diverges_ends_its_episode_alone(caplog: pytest.LogCaptureFixture) -> None:
    sound, broken = made(3), made(3)
    for env in (sound, broken):
        env.reset(2)
    state: Any = copy.deepcopy(broken.state_dict())
    state["weights"]["hosts"]["weight.0.kernels"][1] = np.inf
    broken.load_state_dict(state)
    with caplog.at_level(logging.WARNING):
        step, others = broken.step(np.array([WAIT] * 3)), sound.step(np.array([WAIT] * 3))
    assert step.terminated.tolist() == [False, True, False]
    assert np.isfinite(step.obs).all()
    assert step.final_obs is not None
    assert np.isfinite(step.final_obs).all()
    assert broken.epochs[1].after.diverged
    assert "environment 1: its host diverged in epoch 1" in caplog.text
    np.testing.assert_array_equal(step.success, [np.nan, 0, np.nan])
    np.testing.assert_array_equal(step.obs[[0, 2]], others.obs[[0, 2]])
    assert not broken.step(np.array([WAIT] * 3)).terminated.any()


def test_gymnasium_accepts_it() -> None:
    env = gymnasium.make("esper/Growth-v0", **SMALL)  # type: ignore[arg-type]
    check_env(env.unwrapped, skip_render_check=True)
    _, info = env.reset(seed=0)
    assert info["action_mask"].sum() == 2 + 4 + 3 + 2  # slots, blueprints, blends, operations
    *_, info = env.step(np.array(CONV.numbers))
    assert set(info) == {"action_mask", "accuracy", "diverged", "reward"}
    obs, _ = env.reset()
    assert obs[0] == 0


def test_it_can_be_stepped_one_by_one() -> None:
    env = make_env("esper/Growth-v0", num_envs=2, env_kwargs=SMALL, vector="sync")
    assert env.spec.masked
    env.reset(0)
    step = env.step(np.array([CONV.numbers, WAIT]))
    state = copy.deepcopy(env.state_dict())
    assert state is not None
    first = env.step(np.array([WAIT, WAIT]))
    again = make_env("esper/Growth-v0", num_envs=2, env_kwargs=SMALL, vector="sync")
    again.reset(0)
    again.load_state_dict(state)
    np.testing.assert_array_equal(again.step(np.array([WAIT, WAIT])).obs, first.obs)
    assert not np.array_equal(step.obs, first.obs)


Rule = Callable[[Host, GrowthVectorEnv], Action]


def followed(rule: Rule, env: GrowthVectorEnv, seed: int) -> list[Host]:
    """The last hosts of an episode by `rule`."""
    env.reset(seed)
    while True:
        step = env.step(np.array([rule(host, env).numbers for host in env.hosts]))
        if step.terminated.all():
            return [epoch.after for epoch in env.epochs]


def keeps_what_helps(host: Host, env: GrowthVectorEnv) -> Action:
    """Plants the first blueprint once, culls it below -2 points, fossilizes it where the gate is open."""
    slot, contribution = host.slots[0], host.slots[0].contribution
    if contribution is not None and contribution < -2 and can(Operation.CULL, slot, env.config):
        return Action(operation=Operation.CULL)
    if can(Operation.FOSSILIZE, slot, env.config):
        return Action(operation=Operation.FOSSILIZE)
    if host.epoch == 1:
        return Action(operation=Operation.GERMINATE, blueprint=1)
    return Action()


PROBE = {"channels": [4], "epoch_steps": 16, "host_lr": 0.1, "min_gain": 0, "min_gradient": 0, "epochs": 25}


def test_a_blueprint_that_is_needed_is_kept() -> None:
    settings = {**PROBE, "dataset": "growth_probes:pairs", "blueprints": ["conv"]}
    env = made(4, **settings)
    alone = [host.val_accuracy for host in followed(lambda *_: Action(), env, 0)]
    grown = followed(keeps_what_helps, env, 0)
    assert max(alone) < 65
    assert all(host.slots[0].stage is Stage.FOSSILIZED for host in grown)
    assert min(host.val_accuracy for host in grown) > 80


def test_a_blueprint_that_harms_is_culled() -> None:
    env = made(4, **{**PROBE, "dataset": "growth_probes:bright", "blueprints": ["growth_probes:spoiler"]})
    stages: list[Sequence[Stage]] = []

    def rule(host: Host, env: GrowthVectorEnv) -> Action:
        stages.append([slot.stage for slot in host.slots])
        return keeps_what_helps(host, env)

    last = followed(rule, env, 0)
    assert [Stage.BLENDING] in stages
    assert [Stage.CULLED] in stages
    assert [Stage.FOSSILIZED] not in stages
    assert all(host.slots[0].stage is Stage.DORMANT for host in last)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"blueprints": ["norm", "covn"]}, "did you mean 'conv'"),
        ({"blueprints": ["growth_probes:absent"]}, "cannot be imported"),
        ({"blueprints": ["growth_probes:bright"]}, "must be a Blueprint"),
        ({"dataset": "cifar"}, "must be digits or module:function"),
        ({"dataset": "growth_probes:flat"}, r"x_train must be numbers \[N, channels, height, width\], not float32"),
        ({"dataset": "growth_probes:short"}, r"y_train must be classes from 0, integers \[128\]"),
        ({"dataset": "growth_probes:halves"}, "y_train must be classes from 0"),
        ({"dataset": "growth_probes:three_arrays"}, "must return four arrays: x_train, y_train, x_val, y_val"),
        ({"channels": [4, 4, 4]}, r"its images are \[4, 4\], and 3 blocks halve them to nothing"),
        ({"batch_size": 500}, "must be at most the 128 images"),
        ({"device": "cuda:99"}, "cannot be used here"),
    ],
)
def test_bad_input_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make_env("esper/Growth-v0", env_kwargs={**SMALL, **settings})


def test_without_scikit_learn_an_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ConfigError, match=r"pip install 'esper-simic\[growth\]'"):
        make_env("esper/Growth-v0")


def test_digits_are_split_by_their_seed() -> None:
    pytest.importorskip("sklearn")
    first, again, other = (GrowthVectorEnv(config_of({"data_seed": seed}), 1)._grown._data for seed in (0, 0, 1))
    assert (len(first.x_train), len(first.x_val), first.classes) == (1437, 360, 10)
    assert first.x_train.shape[1:] == (1, 8, 8)
    assert torch.equal(first.x_val, again.x_val)
    assert not torch.equal(first.y_val, other.y_val)
