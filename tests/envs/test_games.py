"""Atari, MinAtar, MiniGrid and POPGym: what the learner sees of them, where episodes end, and what they score."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from esper.envs.base import DiscreteActions, Images, Step, VectorEnv, Vectors
from esper.envs.config import EnvConfig
from esper.envs.make import make_env, make_for_training, make_from_config, make_rendered, make_shown
from esper.scripts.train import main
from esper.settings.options import ConfigError
from esper.storage.tree import merge, split, with_arrays

# Channels and actions of each.
MINATAR = [("Asterix", 4, 5), ("Breakout", 4, 3), ("Freeway", 7, 3), ("Seaquest", 10, 6), ("SpaceInvaders", 6, 4)]


def walk(env: VectorEnv, steps: int, seed: int = 0) -> list[Step]:
    generator = np.random.default_rng(seed)
    assert isinstance(env.spec.actions, DiscreteActions)
    actions = generator.integers(env.spec.actions.n, size=(steps, env.spec.num_envs))
    return [copied(env.step(action)) for action in actions]


def copied(step: Step) -> Step:
    return Step(*(None if part is None else np.array(part) for part in step))  # type: ignore[arg-type]


def repeat(env: VectorEnv, action: int, steps: int) -> list[Step]:
    return [copied(env.step(np.full(env.spec.num_envs, action))) for _ in range(steps)]


def train_two_updates(folder: Path, env: str, *flags: str) -> list[dict[str, Any]]:
    sizes = ("--num-envs", "2", "--num-steps", "8", "--num-minibatches", "2", "--total-timesteps", "32")
    network = ("--hidden-sizes", "8", "--compile", "off", "--quiet", "--no-tensorboard", "--no-picture")
    assert main(["ppo", "--env", env, "--run-dir", str(folder), *sizes, *network, *flags]) == 0
    records = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [record for record in records if record["event"] == "update_completed"]


@pytest.mark.parametrize(
    ("env", "package", "extra"),
    [
        ("ALE/Pong-v5", "ale_py", "atari"),
        ("MinAtar/Breakout-v1", "minatar", "minatar"),
        ("MiniGrid-Empty-5x5-v0", "minigrid", "minigrid"),
        ("popgym-RepeatFirstEasy-v0", "popgym", "popgym"),
    ],
)
def test_a_missing_package(env: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=f"needs the extra '{extra}': pip install 'esper-simic\\[{extra}\\]'"):
        make_env(env, num_envs=2)


class TestAtari:
    @pytest.fixture(autouse=True)
    def needs(self) -> None:
        pytest.importorskip("ale_py")

    def both(self, env: str, **env_kwargs: Any) -> list[VectorEnv]:
        config = EnvConfig(env=env, env_kwargs=env_kwargs)
        return [make_for_training(config, 1), make_from_config(config, 1)]

    def test_is_seen_as_four_grey_frames(self) -> None:
        env = make_env("ALE/Pong-v5", num_envs=2)
        assert env.spec.observations == Images(shape=(4, 84, 84), highest=255)
        assert env.spec.actions == DiscreteActions(n=6)
        assert env.reset(0).dtype == np.uint8
        env.close()

    def test_a_lost_life_ends_an_episode_in_training_and_the_game_goes_on(self) -> None:
        training, scored = self.both("ALE/Breakout-v5")
        first = [env.reset(0).tobytes() for env in (training, scored)]
        assert first[0] == first[1]
        # Who only fires leaves the paddle where it is, and soon misses every ball.
        ours, games = repeat(training, 1, 170), repeat(scored, 1, 170)
        # The same game to the last pixel, though training has more ends in it: one for each of Breakout's five lives.
        assert all((a.obs == b.obs).all() for a, b in zip(ours, games, strict=True))
        ends = [step for step, outcome in enumerate(games) if outcome.terminated[0]]
        assert ends
        assert sum(outcome.terminated[0] for outcome in ours[: ends[0] + 1]) == 5
        assert ours[ends[0]].terminated[0]
        assert all(outcome.ignored is None for outcome in ours + games)

    def test_rewards_are_clipped_in_training_and_the_games_own_in_scores(self) -> None:
        for env_kwargs, clipped in (({}, True), ({"reward_clipping": False}, False)):
            training, scored = self.both("ALE/SpaceInvaders-v5", **env_kwargs)
            training.reset(0)
            scored.reset(0)
            learned, real = ([step.reward[0] for step in walk(env, 100)] for env in (training, scored))
            assert max(real) >= 5  # an invader
            assert learned == (np.clip(real, -1, 1).tolist() if clipped else real)

    def test_a_cut_episode_has_its_last_frames_and_the_next_one_begins(self) -> None:
        env = make_env("ALE/Pong-v5", num_envs=2, env_kwargs={"max_num_frames_per_episode": 20})
        env.reset(0)
        steps = walk(env, 10)
        # Frames are skipped by four.
        assert [step.truncated.tolist() for step in steps] == [[k in (4, 9)] * 2 for k in range(10)]
        last, before = steps[4], steps[3]
        assert not last.terminated.any()
        assert last.ignored is None
        assert last.final_obs is not None
        np.testing.assert_array_equal(last.final_obs[:, :3], before.obs[:, 1:])
        # A game begins with one frame and none before it.
        assert not last.obs[:, :3].any()
        assert last.obs[:, 3].any(axis=(1, 2)).all()

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"vector": "sync"}, "vector = sync: ALE/Pong-v5 is preprocessed only by its vector version"),
            ({"env_kwargs": {"autoreset_mode": "NextStep"}}, "autoreset_mode: decided by the run's own settings"),
            ({"env_kwargs": {"frame_skip": 2}}, "ALE/Pong-v5 refuses them: TypeError.*frame_skip"),
            ({"env": "ALE/Pung-v5"}, "did you mean 'ALE/Pong-v5'"),
        ],
    )
    def test_bad_input(self, settings: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            make_for_training(EnvConfig(**{"env": "ALE/Pong-v5", **settings}), 2)

    def test_is_drawn_as_the_player_sees_it(self) -> None:
        env = make_rendered(EnvConfig(env="ALE/Pong-v5"))
        obs = env.reset(0)
        np.testing.assert_array_equal(env.render()[::4, ::4, 1], obs[0, -1])
        assert env.render_fps == 15
        with pytest.raises(ConfigError, match="cannot be shown in a window; esper evaluate --record"):
            make_shown(EnvConfig(env="ALE/Pong-v5"), None)

    def test_trains(self, tmp_path: Path) -> None:
        updates = train_two_updates(tmp_path / "run", "ALE/Pong-v5")
        assert [np.isfinite(update["policy_loss"]) for update in updates] == [True, True]


class TestMinAtar:
    @pytest.fixture(autouse=True)
    def needs(self) -> None:
        pytest.importorskip("minatar")

    @pytest.mark.parametrize(("game", "channels", "actions"), MINATAR)
    def test_is_seen_by_channels_and_goes_on_to_the_last_bit(self, game: str, channels: int, actions: int) -> None:
        env, other = (make_env(f"MinAtar/{game}-v1", num_envs=2) for _ in range(2))
        assert env.spec.observations == Images(shape=(channels, 10, 10), highest=1)
        assert env.spec.actions == DiscreteActions(n=actions)
        env.reset(3)
        walk(env, 150)
        tensors, rest = split(env.state_dict() or {})
        other.reset(4)
        walk(other, 20, seed=1)
        other.load_state_dict(with_arrays(merge(tensors, json.loads(json.dumps(rest)))))
        for ours, theirs in zip(walk(env, 300), walk(other, 300), strict=True):
            for a, b in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(a, b)

    def test_episodes_end_with_the_game_and_at_the_limit(self) -> None:
        env = make_env("MinAtar/Breakout-v1", num_envs=1)
        env.reset(0)
        end = next(step for step in walk(env, 200) if step.terminated[0])
        assert end.final_obs is not None
        # The ball (channel 1) has reached the bottom row; in the next game it is at its start, in row 3.
        assert end.final_obs[0, 1, 9].any()
        assert end.obs[0, 1, 3].any()
        env = make_env("MinAtar/Breakout-v1", num_envs=1, env_kwargs={"max_episode_steps": 4})
        env.reset(0)
        assert [step.truncated[0] for step in walk(env, 4)] == [False, False, False, True]

    def test_actions_stick(self) -> None:
        env = make_env("MinAtar/Breakout-v1", num_envs=1, env_kwargs={"sticky_action_prob": 1.0})
        start = env.reset(0)[0, 0].tolist()
        # The paddle (channel 0) never leaves its place: the first action, none, is repeated for ever.
        assert env.step(np.array([1])).obs[0, 0].tolist() == start

    def test_is_drawn(self) -> None:
        env = make_rendered(EnvConfig(env="MinAtar/Seaquest-v1"))
        obs = env.reset(0)
        picture = env.render()
        assert picture.shape == (160, 160, 3)
        np.testing.assert_array_equal(picture[::16, ::16].any(-1), obs[0].any(0))

    @pytest.mark.parametrize("flags", [(), ("--encoder", "small", "--shared-trunk", "--normalize-observations")])
    def test_trains_and_scores(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...]
    ) -> None:
        assert len(train_two_updates(tmp_path / "run", "MinAtar/Breakout-v1", *flags)) == 2
        assert main(["evaluate", str(tmp_path / "run"), "--episodes", "2"]) == 0
        assert "2 episodes" in capsys.readouterr().out


class TestMiniGrid:
    ENV = "MiniGrid-LavaGapS5-v0"

    @pytest.fixture(autouse=True)
    def needs(self) -> None:
        pytest.importorskip("minigrid")

    def test_is_seen_as_minigrids_own_one_hot_view(self) -> None:
        from minigrid.wrappers import OneHotPartialObsWrapper

        env = make_env(self.ENV, num_envs=1)
        assert env.spec.observations == Images(shape=(20, 7, 7), highest=1)
        theirs = OneHotPartialObsWrapper(gymnasium.make(self.ENV, disable_env_checker=True))
        obs = env.reset(5)
        view = theirs.reset(seed=5)[0]["image"]
        for action in (1, 2, 0, 2):
            np.testing.assert_array_equal(obs[0], np.moveaxis(view, -1, 0))
            obs, view = env.step(np.array([action])).obs, theirs.step(action)[0]["image"]

    def test_episodes_end_at_the_limit(self) -> None:
        env = make_env("MiniGrid-Empty-5x5-v0", num_envs=2, env_kwargs={"max_steps": 3})
        env.reset(0)
        steps = repeat(env, 0, 3)
        assert [step.truncated.tolist() for step in steps] == [[False] * 2, [False] * 2, [True] * 2]
        assert steps[2].final_obs is not None
        assert (steps[2].final_obs != steps[2].obs).any()

    def test_trains(self, tmp_path: Path) -> None:
        assert len(train_two_updates(tmp_path / "run", self.ENV)) == 2


class TestPopgym:
    @pytest.fixture(autouse=True)
    def needs(self) -> None:
        pytest.importorskip("popgym")

    def test_the_first_card_is_seen_once_and_asked_for_to_the_end(self) -> None:
        env = make_env("popgym-RepeatFirstEasy-v0", num_envs=1)
        assert env.spec.observations == Vectors(size=4)
        first = env.reset(0)[0].argmax()
        steps = repeat(env, int(first), 51)
        assert sum(step.reward[0] for step in steps) == pytest.approx(1.0)
        assert [bool(step.terminated[0]) for step in steps] == [False] * 50 + [True]

    def test_trains(self, tmp_path: Path) -> None:
        assert len(train_two_updates(tmp_path / "run", "popgym-RepeatPreviousEasy-v0")) == 2
