"""The games in tensors against the package MinAtar, step by step on the same random numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from esper.envs.base import DeviceEnv, VectorEnv
from esper.envs.device.minatar import MINATAR
from esper.envs.device.vector import DeviceVectorEnv, begin
from esper.envs.make import make_env

NAMES, GAMES = list(MINATAR), 16
# Scores after which a game has shown all that it has.
FAR = {
    "MinAtar/Breakout-v1": 31,  # bricks come back
    "MinAtar/SpaceInvaders-v1": 25,  # a second wave
    "MinAtar/Asterix-v1": 10,
    "MinAtar/Freeway-v1": 3,  # cars change their speeds
    "MinAtar/Seaquest-v1": 12,  # six divers at the surface
}


class Handed:
    """A `RandomState` that hands out given numbers, float32 in [0, 1), in order."""

    def __init__(self) -> None:
        self.numbers = np.zeros(0, dtype=np.float32)

    def rand(self, size: int | None = None) -> Any:
        taken, self.numbers = np.split(self.numbers, [size or 1])
        assert len(taken) == (size or 1)
        return taken if size else taken[0]

    def randint(self, low: int, high: int | None = None, size: int | None = None) -> Any:
        low, high = (0, low) if high is None else (low, high)
        return (np.float32(high - low) * self.rand(size)).astype(np.int64) + low


class Theirs:
    """A game of the package, with the numbers that a game in tensors draws in a step and in a begin."""

    def __init__(self, name: str) -> None:
        import minatar

        game = "".join(f"_{c.lower()}" if c.isupper() else c for c in name[len("MinAtar/") : -len("-v1")])[1:]
        self.env = minatar.Environment(game)
        self.random = self.env.random = self.env.env.random = Handed()
        self.actions = self.env.minimal_action_set()

    def begin(self, uniform: NDArray[np.float32]) -> NDArray[np.bool_]:
        self.random.numbers = uniform
        self.env.reset()
        return self.obs()

    def step(self, action: int, uniform: NDArray[np.float32]) -> tuple[float, bool]:
        game = self.env.env
        if hasattr(game, "e_spawn_timer") and game.e_spawn_timer:
            # Seaquest draws for a diver what it would have drawn for an enemy.
            uniform = np.delete(uniform, slice(1, 4))
        self.random.numbers = uniform
        reward, terminated = self.env.act(self.actions[action])
        return float(reward), bool(terminated)

    def any_action(self, random: np.random.Generator) -> int:
        return int(random.integers(len(self.actions)))

    def obs(self) -> NDArray[np.bool_]:
        return np.moveaxis(self.env.state(), -1, 0)


def skilled(name: str, theirs: Theirs, random: np.random.Generator) -> int:
    """An action, mostly random, of a player who gets far enough to see all of a game."""
    game: Any = theirs.env.env
    if name == "MinAtar/Breakout-v1" and random.random() < 0.97:
        # To where the ball comes down next.
        x, y = game.ball_x, game.ball_y
        right = 1 if game.ball_dir in (1, 2) else -1
        column = x + (right * (8 - y) if game.ball_dir in (2, 3) else 0)
        column = -column - 1 if column < 0 else 19 - column if column > 9 else column
        return 0 if column == game.pos else 1 if column < game.pos else 2
    if name == "MinAtar/Freeway-v1":
        return 1 if random.random() < 0.9 else 2
    if name == "MinAtar/Asterix-v1" and random.random() < 0.9:
        # Away from enemies that are near, in the lane of gold.
        lanes = [entity for entity in game.entities if entity is not None]
        gold = [(abs(y - game.player_y) * 10 + abs(x - game.player_x), x, y) for x, y, _, is_gold in lanes if is_gold]
        if any(not g and y == game.player_y and abs(x - game.player_x) < 3 for x, y, _, g in lanes):
            return int(random.choice((2, 4)))
        if not gold:
            return 0
        _, x, y = min(gold)
        return 2 if y < game.player_y else 4 if y > game.player_y else 1 if x < game.player_x else 3
    if name == "MinAtar/Seaquest-v1" and random.random() < 0.95:
        return rescue(game, random)
    if name == "MinAtar/SpaceInvaders-v1" and random.random() < 0.9:
        if game.e_bullet_map[6:, game.pos].any():
            return int(random.choice((1, 2)))
        return 3 if game.shot_timer == 0 else 0
    return theirs.any_action(random)


def rescue(game: Any, random: np.random.Generator) -> int:
    """Away from what is near, to divers, and to the surface with six of them or without air."""
    here = game.sub_x, game.sub_y
    threats = [
        (x + (ahead if right else -ahead), y)
        for x, y, right, *_ in game.e_fish + game.e_subs + game.e_bullets
        for ahead in range(3)
    ]
    if game.shot_timer == 0 and random.random() < 0.3 and any(y == here[1] for _, y in threats):
        return 5
    surfaces = not game.surface and (not 0 <= game.diver_count < 6 or (game.diver_count and game.oxygen < 60))

    def cost(move: tuple[int, int]) -> float:
        x, y = min(max(here[0] + move[0], 0), 9), min(max(here[1] + move[1], 0), 8)
        drowns = y == 0 and not game.surface and game.diver_count == 0
        away: int = min((abs(x - at[0]) + abs(y - at[1]) for at in game.divers), default=abs(y - 4))
        return 10 * threats.count((x, y)) + 100 * drowns + (y if surfaces else away) + random.random() / 10

    return int(np.argmin([cost(move) for move in ((0, 0), (-1, 0), (0, -1), (1, 0), (0, 1))]))


def play(name: str, steps: int, *, skill: bool) -> float:
    """Plays games side by side, and returns the highest score."""
    env, theirs, random = (
        DeviceVectorEnv(name, num_envs=GAMES),
        [Theirs(name) for _ in range(GAMES)],
        np.random.default_rng(0),
    )
    dynamics, ends, most, scores = env.dynamics, 0, 0.0, np.zeros(GAMES)
    split = dynamics.step_draws
    draws = random.random((steps + 1, GAMES, split + dynamics.begin_draws), dtype=np.float32)
    env.states = begin(dynamics, torch.from_numpy(draws[0]))
    for game, uniform in zip(theirs, draws[0], strict=True):
        game.begin(uniform[split:])
    if name == "MinAtar/Freeway-v1":
        # A game ends after 2,500 steps: these are nearly there.
        for i, game in enumerate(theirs):
            game.env.env.terminate_timer = 10 * i
            env.states.state[i, 3] = 10 * i
    for uniform in draws[1:]:
        np.testing.assert_array_equal(env.observe(env.states).numpy(), [game.obs() for game in theirs])
        actions = [skilled(name, game, random) if skill else game.any_action(random) for game in theirs]
        env.states, *ours, final_obs = env.advance(env.states, torch.tensor(actions), torch.from_numpy(uniform))
        reward, terminated, truncated = (field.numpy() for field in ours)
        expected = [game.step(a, u[:split]) for game, a, u in zip(theirs, actions, uniform, strict=True)]
        np.testing.assert_array_equal(np.stack((reward, terminated), -1), expected)
        np.testing.assert_array_equal(final_obs.numpy(), [game.obs() for game in theirs])
        assert dynamics.is_possible(env.states.state)
        scores += reward
        most = max(most, scores.max())
        for i in np.flatnonzero(terminated | truncated).tolist():
            theirs[i].begin(uniform[i, split:])
            ends, scores[i] = ends + 1, 0
    assert ends
    return most


@pytest.mark.parametrize("name", NAMES)
class TestAgainstThePackage:
    @pytest.fixture(autouse=True)
    def needs(self) -> None:
        pytest.importorskip("minatar")

    def test_every_step_of_random_play(self, name: str) -> None:
        play(name, 600, skill=False)

    def test_every_step_of_a_player_who_gets_far(self, name: str) -> None:
        assert play(name, 1_000, skill=True) >= FAR[name]

    def test_sizes_are_those_of_the_package(self, name: str) -> None:
        ours, theirs = (make_env(env, num_envs=3) for env in (f"torch/{name}", name))
        assert ours.spec == theirs.spec


@pytest.mark.parametrize("name", NAMES)
class TestVectorEnv:
    def test_goes_on_to_the_last_bit(self, name: str) -> None:
        env, other = (make_env(f"torch/{name}", num_envs=3) for _ in range(2))
        env.reset(0)
        walk(env, 50)
        other.reset(1)
        other.load_state_dict(env.state_dict() or {})
        assert walk(other, 100) == walk(env, 100)

    def test_a_state_that_no_game_has_is_refused(self, name: str) -> None:
        env = make_env(f"torch/{name}", num_envs=2)
        state = dict(env.state_dict() or {})
        for number in (0.5, -7.0, 1e9, float("nan")):
            wrong = state["state"].copy()
            wrong[1, 1] = number
            with pytest.raises(ValueError, match=f"state is none of torch/{name}"):
                env.load_state_dict({**state, "state": wrong})

    def test_the_version_may_be_left_out(self, name: str) -> None:
        env = make_env(f"torch/{name.removesuffix('-v1')}", num_envs=2)
        assert isinstance(env, DeviceEnv)
        assert env.name == name


def walk(env: VectorEnv, steps: int) -> list[list[str]]:
    random = np.random.default_rng(0)
    actions = random.integers(env.spec.actions.outputs, size=(steps, env.spec.num_envs))
    return [[str(part) for part in env.step(action)] for action in actions]
