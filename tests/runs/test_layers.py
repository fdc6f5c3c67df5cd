"""Settings from flags, files and presets: who wins, what is refused, and that a recorded config can be fed back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from esper.runs.config import RunConfig
from esper.runs.kinds import KINDS
from esper.runs.layers import (
    Layer,
    Origin,
    Settings,
    SettingsError,
    file_layer,
    recorded,
    recorded_layer,
    resolve,
)
from esper.runs.presets import load_presets, with_preset
from esper.schedules import ScheduleConfig
from esper.settings.layers import common_names, with_common_names
from esper.settings.options import flatten, settings_of
from esper.settings.values import parse


def settings(*layers: dict[str, Any]) -> Settings:
    return resolve([Layer(source=f"layer {index}", values=values) for index, values in enumerate(layers)])


class TestLayers:
    def test_nothing_given_is_constant_and_the_default(self) -> None:
        assert settings().config == RunConfig()
        assert settings().config.ppo.policy_lr == settings().config.ppo.value_lr == ScheduleConfig(peak=3e-4)

    def test_common_names_set_both_and_a_components_own_beats_them_in_either_order(self) -> None:
        for given in ({"lr": 1e-3, "value_lr": 2e-3}, {"value_lr": 2e-3, "lr": 1e-3}):
            ppo = settings(given).config.ppo
            assert (ppo.policy_lr.peak, ppo.value_lr.peak) == (1e-3, 2e-3)

    def test_every_lr_parameter_but_delay_has_a_common_name(self) -> None:
        parameters = {name.removeprefix("policy_lr") for name in settings_of(RunConfig) if name.startswith("policy_lr")}
        assert {name.removeprefix("lr") for name in common_names(settings_of(RunConfig))} == parameters - {"_delay"}

    def test_a_stronger_layer_wins_even_by_a_common_name(self) -> None:
        assert settings({"policy_lr": 1e-3}, {"lr": 5e-4}).config.ppo.policy_lr.peak == 5e-4

    def test_an_older_name_stands_for_several_settings(self) -> None:
        def network(*layers: dict[str, Any]) -> tuple[str | None, int | None]:
            made = settings(*layers).config.ppo.network
            return made.rnn, made.rnn_size

        assert network({"lstm_size": "5"}) == ("lstm", 5)
        assert network({"rnn": "gru", "rnn_size": 7}, {"lstm_size": 5}) == ("lstm", 5)
        assert network({"lstm_size": 5}, {"rnn": "gru"}) == ("gru", 5)
        assert network({"rnn": "gru", "rnn_size": 7}, {"lstm_size": "none"}) == (None, None)
        with pytest.raises(SettingsError, match="lstm_size = 5: is given beside rnn, which it sets"):
            settings({"lstm_size": 5, "rnn": "gru"})
        with pytest.raises(SettingsError, match="must be at least 1") as refused:
            settings({"lstm_size": 0})
        assert refused.value.origin is not None
        assert refused.value.origin.name == "lstm_size"

    def test_a_record_with_an_older_name_is_one_with_todays(self) -> None:
        for older, today in ((None, (None, None)), (5, ("lstm", 5))):
            values = recorded_layer({"lstm_size": older, "num_envs": 3}, "record").values
            assert "lstm_size" not in values
            assert (values["rnn"], values["rnn_size"]) == today
            assert values["num_envs"] == 3

    def test_a_new_warmup_replaces_the_old_one_in_its_other_unit(self) -> None:
        schedule = settings({"lr_warmup_frac": 0.1}, {"lr_warmup_timesteps": 70}).config.ppo.policy_lr
        assert (schedule.warmup_frac, schedule.warmup_timesteps) == (None, 70)
        decay = {"lr_decay": "linear", "lr_decay_steps": 4}
        schedule = settings(decay, {"lr_decay_timesteps": 4000}).config.ppo.policy_lr
        assert (schedule.decay_steps, schedule.decay_timesteps) == (None, 4000)
        schedule = settings({"lr_warmup_frac": 0.1}, {"lr_warmup_steps": 7}).config.ppo.policy_lr
        assert (schedule.warmup_steps, schedule.warmup_frac) == (7, None)

    def test_a_new_shape_replaces_the_parameters_it_does_not_use(self) -> None:
        weaker = {"lr_decay": "step", "lr_step_size": 5, "lr_gamma": 0.5, "lr_min_ratio": 0.1}
        assert settings(weaker, {"lr_decay": "cosine"}).config.ppo.value_lr == ScheduleConfig(
            peak=3e-4, decay="cosine", min_ratio=0.1
        )

    POINTS = {"lr_decay": "piecewise", "lr_points": [[0, 2e-3], [5, 1e-4]]}  # noqa: RUF012

    @pytest.mark.parametrize(
        "layers",
        [
            ({"lr": 5e-4}, POINTS),
            ({"policy_lr": 5e-4, "value_lr": 1e-5}, POINTS),
            ({"lr": 5e-4, "lr_decay": "linear"}, POINTS),
            ({"lr": 5e-4}, {"lr_points": POINTS["lr_points"]}, {"lr_decay": "piecewise"}),
            ({"lr_points": POINTS["lr_points"]}, {"lr": 5e-4}, {"lr_decay": "piecewise"}),
            ({"lr": 5e-4} | POINTS, POINTS),
            (POINTS | {"lr_points": [[0, 1.0]], "lr": 1.0}, {"lr_points": POINTS["lr_points"]}),
            ({"lr": 2e-3} | POINTS,),
            (POINTS, {"lr": 2e-3}),
        ],
        ids=str,
    )
    def test_points_replace_a_weaker_base_rate(self, layers: tuple[dict[str, Any], ...]) -> None:
        ppo = settings(*layers).config.ppo
        assert ppo.policy_lr == ppo.value_lr
        assert (ppo.policy_lr.peak, ppo.policy_lr.points) == (2e-3, ((0, 2e-3), (5, 1e-4)))

    @pytest.mark.parametrize(
        ("layers", "layer", "name"),
        [
            (({"lr": 5e-4} | POINTS,), "layer 0", "lr"),
            ((POINTS, {"lr": 5e-4}), "layer 1", "lr"),
            ((POINTS, {"value_lr": 5e-4}), "layer 1", "value_lr"),
            (({"lr": 1e-3}, POINTS | {"policy_lr": 5e-4}), "layer 1", "policy_lr"),
            (
                ({"lr": 5e-4, "lr_decay": "piecewise", "policy_lr_points": [[0, 1.0]], "value_lr_points": [[0, 1.0]]},),
                *("layer 0", "lr"),
            ),
        ],
        ids=str,
    )
    def test_a_base_rate_beside_points_is_an_error_that_names_it(
        self, layers: tuple[dict[str, Any], ...], layer: str, name: str
    ) -> None:
        with pytest.raises(SettingsError, match="give no base rate") as error:
            settings(*layers)
        assert error.value.origin == Origin(source=layer, name=name)

    def test_a_common_base_rate_is_for_the_component_without_points(self) -> None:
        ppo = settings(
            {"lr": 5e-4, "policy_lr_decay": "piecewise", "policy_lr_points": [[0, 2e-3], [5, 1e-4]]}
        ).config.ppo
        assert (ppo.policy_lr.peak, ppo.value_lr) == (2e-3, ScheduleConfig(peak=5e-4))

    @pytest.mark.parametrize(
        "layers",
        [
            (POINTS, {"lr_decay": "linear"}),
            (POINTS, {"lr_decay": "constant", "lr_points": None}),
            (POINTS, {"lr_points": "none"}, {"lr_decay": "linear"}),
            ({"lr": 5e-4}, POINTS, {"policy_lr_decay": "linear", "value_lr_decay": "cosine"}),
            (POINTS | {"lr_points": "0:2e-3,5:1e-4"}, {"lr_decay": "linear"}),
            ({"lr_points": [[0, 1.0]]}, POINTS, {"lr_decay": "linear"}),
        ],
        ids=str,
    )
    def test_the_rate_of_the_first_point_stays_the_base_rate_without_points(
        self, layers: tuple[dict[str, Any], ...]
    ) -> None:
        resolved = settings(*layers)
        ppo = resolved.config.ppo
        assert (ppo.policy_lr.peak, ppo.policy_lr.points) == (ppo.value_lr.peak, ppo.value_lr.points) == (2e-3, None)
        assert resolved.origins["policy_lr"].name == "lr_points"

    def test_but_not_beside_a_base_rate(self) -> None:
        ppo = settings(self.POINTS, {"lr": 5e-4, "lr_decay": "linear"}).config.ppo
        assert (ppo.policy_lr.peak, ppo.value_lr.peak) == (5e-4, 5e-4)

    def test_points_that_cannot_be_read_are_named_where_they_were_given(self) -> None:
        with pytest.raises(SettingsError, match="must be an update:rate pair") as error:
            settings(self.POINTS | {"lr_points": [[0]]}, {"lr_decay": "linear"})
        assert error.value.origin == Origin(source="layer 0", name="lr_points")
        assert settings(self.POINTS | {"lr_points": []}, {"lr_decay": "linear"}).config.ppo.policy_lr.peak == 3e-4

    def test_points_replace_the_default_of_a_coefficient(self) -> None:
        ppo = settings({"clip_coef_decay": "piecewise", "clip_coef_points": [[0, 0.3], [5, 0.1]]}).config.ppo
        assert ppo.clip_coef.peak == 0.3

    @pytest.mark.parametrize(
        ("given", "name"),
        [
            ({"lr_decay": "step"}, "lr_step_size"),
            ({"policy_lr_decay": "step"}, "policy_lr_step_size"),
            ({"lr_decay": "linear", "value_lr_decay": "exponential"}, "value_lr_min_ratio"),
            ({"lr_decay": "cosine_restarts", "policy_lr_cycles": 2}, "lr_cycles"),
            ({"entropy_coef_decay": "wsd"}, "entropy_coef_decay_frac"),
        ],
    )
    def test_a_missing_parameter_is_named_as_its_decay_was(self, given: dict[str, Any], name: str) -> None:
        with pytest.raises(SettingsError, match="needs it") as error:
            settings({"seed": 3}, given)
        assert error.value.origin == Origin(source="layer 1", name=name)

    def test_a_component_can_have_a_shape_of_its_own(self) -> None:
        given = {"lr_decay": "step", "lr_step_size": 5, "lr_gamma": 0.5, "lr_warmup_frac": 0.1}
        ppo = settings(given | {"value_lr_decay": "linear", "value_lr_warmup_steps": 3}).config.ppo
        assert ppo.value_lr == ScheduleConfig(peak=3e-4, decay="linear", warmup_steps=3)
        assert (ppo.policy_lr.decay, ppo.policy_lr.warmup_frac) == ("step", 0.1)

    def test_the_same_in_one_layer_is_an_error(self) -> None:
        with pytest.raises(SettingsError, match="not both"):
            settings({"lr_warmup_frac": 0.1, "lr_warmup_steps": 7})

    def test_origins_name_the_layer_and_the_name_used_there(self) -> None:
        origins = settings({"lr": 1e-3}, {"value_lr": 2e-3}).origins
        assert (origins["policy_lr"].source, origins["policy_lr"].name) == ("layer 0", "lr")
        assert (origins["value_lr"].source, origins["value_lr"].name) == ("layer 1", "value_lr")
        assert "gamma" not in origins

    def test_an_error_carries_its_origin(self) -> None:
        with pytest.raises(SettingsError) as error:
            settings({"lr_warmup_frac": 1.5})
        assert error.value.origin is not None
        assert error.value.origin.name == "lr_warmup_frac"

    @pytest.mark.parametrize(
        ("name", "nearest"),
        [("lr_warmup_step", "lr_warmup_steps"), ("num_env", "num_envs"), ("hidden_size", "hidden_sizes")],
    )
    def test_an_unknown_name_gets_the_nearest(self, name: str, nearest: str) -> None:
        with pytest.raises(SettingsError, match=f"did you mean '{nearest}'"):
            settings({name: 1})


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.toml").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(SettingsError, match="at most 1,048,576 are read"):
        file_layer(tmp_path / "huge.toml")


class TestRecord:
    FULL = {  # noqa: RUF012
        "env": "Acrobot-v1",
        "env_kwargs": {"render_mode": None},
        "lr_decay": "piecewise",
        "lr_points": [[0, 1e-3], [50, 1e-4]],
        "value_lr_decay": "multistep",
        "value_lr_milestones": [10, 20],
        "value_lr_gamma": 0.5,
        "hidden_sizes": [32, 16],
        "target_kl": 0.02,
        "entropy_coef": 0.01,
        "entropy_coef_decay": "linear",
    }

    def test_fed_back_gives_the_same_run(self, tmp_path: Path) -> None:
        config = settings(self.FULL).config
        path = tmp_path / "config.json"
        path.write_text(json.dumps(recorded(config)))
        assert resolve([file_layer(path)]).config == config
        assert json.loads(path.read_text())["policy_lr"] == 1e-3

    def test_a_recorded_none_beats_a_preset(self, tmp_path: Path) -> None:
        path = tmp_path / "config.json"
        path.write_text(json.dumps(recorded(settings().config)))
        preset = Layer(source="preset", values={"target_kl": 0.5, "lr_decay": "linear", "lr_min_ratio": 0.5})
        assert resolve([preset, file_layer(path)]).config == RunConfig()

    def test_what_only_shows_the_run_is_not_recorded(self) -> None:
        assert set(flatten(RunConfig())) - set(recorded(RunConfig())) == {"run_dir", "quiet", "max_minutes"}


def test_what_both_components_share_has_a_common_name_but_for_the_base_rate() -> None:
    given = {"lr": 1e-3, "lr_decay": "cosine", "lr_warmup_steps": 5, "value_lr_min_ratio": 0.1}
    values = flatten(settings(given).config)
    named = with_common_names(values, settings_of(RunConfig))
    assert (named["lr_decay"], named["lr_warmup_steps"]) == ("cosine", 5)
    assert (named["policy_lr"], named["value_lr"], named["value_lr_min_ratio"]) == (1e-3, 1e-3, 0.1)
    assert not {"lr", "lr_min_ratio", "policy_lr_decay", "value_lr_decay"} & set(named)
    assert settings(named).config == settings(values).config


@pytest.mark.parametrize(
    "given",
    [
        {"lr_decay": "piecewise", "lr_points": [[0, 2e-3], [5, 1e-4]]},
        {"lr_decay": "piecewise", "policy_lr_points": [[0, 2e-3]], "value_lr_points": [[0, 2e-3], [5, 1e-4]]},
        {"policy_lr_decay": "piecewise", "policy_lr_points": [[0, 3e-4]]},
        {"policy_lr_decay": "step", "policy_lr_step_size": 5, "policy_lr_gamma": 0.5, "value_lr_decay": "linear"},
        {"lr_warmup_frac": 0.1, "value_lr_warmup_steps": 7, "lr_min_ratio": 0.1, "lr_decay": "linear"},
    ],
    ids=str,
)
def test_common_names_mean_the_same(given: dict[str, Any]) -> None:
    config = settings({}, {key: value for key, value in given.items() if not key.startswith("value_lr")}, given).config
    assert settings(with_common_names(flatten(config), settings_of(RunConfig))).config == config


class TestFiles:
    @pytest.mark.parametrize("points", ['"0:2e-3,5:1e-4"', "[[0, 2e-3], [5, 1e-4]]"])
    @pytest.mark.parametrize("sizes", ['"32,16"', "[32, 16]"])
    def test_lists_are_lists_or_text_as_flags_have_it(self, tmp_path: Path, points: str, sizes: str) -> None:
        path = tmp_path / "run.toml"
        path.write_text(f'lr_decay = "piecewise"\nlr_points = {points}\nhidden_sizes = {sizes}\n')
        ppo = resolve([file_layer(path)]).config.ppo
        assert ppo.value_lr.points == ((0, 2e-3), (5, 1e-4))
        assert ppo.network.hidden_sizes == (32, 16)

    def test_toml(self, tmp_path: Path) -> None:
        path = tmp_path / "run.toml"
        path.write_text('total_timesteps = 1_000\nlr_decay = "linear"\nlr_min_ratio = 0.1\ntarget_kl = "none"\n')
        config = resolve([file_layer(path)]).config
        assert config.ppo.total_timesteps == 1000
        assert config.ppo.value_lr.min_ratio == 0.1

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("a.toml", b"lr = ", "not TOML"),
            ("a.json", b"{", "not JSON"),
            ("a.json", b"[1]", "must hold one table"),
            ("a.toml", b"\xff\xfe", "not TOML"),
            ("a.json", b"[" * 100_000, "not JSON"),
        ],
    )
    def test_broken(self, tmp_path: Path, name: str, content: bytes, message: str) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SettingsError, match=message):
            file_layer(tmp_path / name)

    @pytest.mark.parametrize(
        "values",
        [{"lr_decay": ["a"]}, {"env": {"a": 1}}, {"gamma": 10**400}, {"num_minibatches": 10**400}, {"seed": []}],
    )
    def test_values_of_no_sense_are_refused_as_any_other(self, tmp_path: Path, values: dict[str, Any]) -> None:
        (tmp_path / "a.json").write_text(json.dumps(values))
        with pytest.raises(SettingsError):
            resolve([file_layer(tmp_path / "a.json")])

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match="No such file"):
            file_layer(tmp_path / "none.toml")


class TestPresets:
    def test_all_resolve_and_none_switches_a_learning_rate_schedule_on(self) -> None:
        for name, values in load_presets().items():
            config = resolve(with_preset(name, [])).config
            names_none = name in KINDS or set("*?[") & set(name)
            assert config.environment.env == (RunConfig().environment.env if names_none else values.get("env", name))
            for schedule in (config.ppo.policy_lr, config.ppo.value_lr):
                assert schedule == ScheduleConfig(peak=schedule.peak)

    def test_auto_goes_by_environment(self) -> None:
        flags = Layer(source="flag", values={"env": "Acrobot-v1"})
        preset, last = with_preset("auto", [flags])
        assert (preset.source, last) == ("preset Acrobot-v1", flags)
        assert with_preset("none", [flags]) == [flags]

    def test_an_environment_that_cannot_be_made_is_left_to_the_run(self) -> None:
        flags = Layer(source="flag", values={"env": "Some-v0"})
        assert with_preset("auto", [flags]) == [flags]

    @pytest.mark.parametrize(
        ("env", "pattern"),
        [
            ("ALE/Pong-v5", "ALE/*"),
            ("MinAtar/SpaceInvaders-v1", "MinAtar/*"),
            ("MiniGrid-Empty-5x5-v0", "MiniGrid-*"),
            ("HalfCheetah-v4", "HalfCheetah-v[45]"),
            ("HalfCheetah-v5", "HalfCheetah-v[45]"),
            ("Ant-v5", "Ant-v[45]"),  # one of several patterns of one preset
        ],
    )
    @pytest.mark.parametrize("chosen", ["by environment", "by name"])
    def test_a_pattern_is_for_every_environment_that_fits_it(self, env: str, pattern: str, chosen: str) -> None:
        flags = Layer(source="flag", values={"env": env})
        layer = with_preset("auto", [flags])[0] if chosen == "by environment" else with_preset(env, [])[0]
        assert layer.source == f"preset {pattern}"
        assert layer.values == {"env": env, **load_presets()[pattern]}

    def test_a_pattern_by_its_name_leaves_the_environment_open(self) -> None:
        config = resolve(with_preset("ALE/*", [Layer(source="flag", values={"env": "Mine-v0"})])).config
        assert (config.environment.env, config.ppo.network.hidden_sizes) == ("Mine-v0", (512,))

    def test_an_exact_name_comes_before_a_pattern(self, monkeypatch: pytest.MonkeyPatch) -> None:
        presets = {"Mine-*": {"lr": 1e-3}, "Mine-v1": {"lr": 2e-3}}
        monkeypatch.setattr("esper.runs.presets.load_presets", lambda: presets)
        for env, lr in (("Mine-v0", 1e-3), ("Mine-v1", 2e-3)):
            layer, _ = with_preset("auto", [Layer(source="flag", values={"env": env})])
            assert layer.values == {"env": env, "lr": lr}

    def test_unknown(self) -> None:
        with pytest.raises(SettingsError, match="did you mean 'Acrobot-v1'"):
            with_preset("Acrobat-v1", [])


class TestKinds:
    """General settings where no preset is for the environment."""

    @pytest.mark.parametrize(
        ("settings", "kind"),
        [
            ({"env": "Pendulum-v2"}, None),  # there is no such environment
            ({"env": "kinds_env:Box-v0"}, "continuous"),
            ({"env": "kinds_env:Choice-v0"}, "discrete"),
            ({"env": "kinds_env:Dict-v0"}, "discrete"),
            ({"env": "kinds_env:Place-v0"}, "one-hot"),
            ({"env": "kinds_env:Picture-v0"}, "images"),
            ({"env": "kinds_env:Box-v0", "rnn": "gru"}, "memory"),
            ({"env": "kinds_env:Box-v0", "lstm_size": 8}, "memory"),
        ],
    )
    def test_they_go_by_the_spaces(self, settings: dict[str, Any], kind: str | None) -> None:
        preset = with_preset("auto", [Layer(source="flag", values=settings)])[:-1]
        expected = [] if kind is None else [f"preset {kind} (by the spaces of {settings['env']})"]
        assert [layer.source for layer in preset] == expected

    @pytest.mark.parametrize("kind", KINDS)
    def test_each_resolves_by_itself_and_below_flags(self, kind: str) -> None:
        settings = resolve(with_preset(kind, [Layer(source="flag", values={"gamma": 0.5})]))
        assert settings.config.ppo.gamma == 0.5
        assert settings.origins["normalize_rewards"].source == f"preset {kind}"

    @pytest.mark.parametrize(
        ("sizes", "num_minibatches"),
        [
            ({}, 16),  # of 8 x 128
            ({"num_envs": 5, "num_steps": 33}, 15),  # 165 = 3 x 5 x 11
            ({"num_envs": 1, "num_steps": 16}, 8),  # two rows each, for the deviation of advantages
            ({"num_envs": 17, "num_steps": 17}, 17),
            ({"num_envs": 6, "rnn": "lstm"}, 3),  # divides the environments; 4 does not
            ({"num_envs": 5, "num_steps": 33, "num_minibatches": 3}, 3),
        ],
    )
    def test_the_number_of_minibatches_fits_the_rollout(self, sizes: dict[str, Any], num_minibatches: int) -> None:
        layers = with_preset("auto", [Layer(source="flag", values={"env": "kinds_env:Box-v0", **sizes})])
        assert resolve(layers).config.ppo.num_minibatches == num_minibatches

    def test_a_number_that_does_not_fit_is_still_an_error_where_it_is_given(self) -> None:
        values = {"env": "kinds_env:Box-v0", "num_minibatches": 7}
        with pytest.raises(SettingsError, match="num_minibatches = 7: must divide") as raised:
            resolve(with_preset("auto", [Layer(source="flag", values=values)]))
        assert raised.value.origin == Origin(source="flag", name="num_minibatches")


class TestParsing:
    @pytest.mark.parametrize(
        ("name", "text", "value"),
        [
            ("total_timesteps", "1e6", 1_000_000),
            ("total_timesteps", "1_000", 1000),
            ("seed", "12345678901234567891", 12345678901234567891),
            ("policy_lr", "3e-4", 3e-4),
            ("hidden_sizes", "64, 32", (64, 32)),
            ("hidden_sizes", "", ()),
            ("target_kl", "none", None),
            ("policy_lr_points", "0:3e-4,100:1e-4", ((0, 3e-4), (100, 1e-4))),
            ("policy_lr_milestones", "1,2", (1, 2)),
            ("env_kwargs", '{"a": 1}', {"a": 1}),
            ("vector", "async", "async"),
        ],
    )
    def test_as_typed(self, name: str, text: str, value: object) -> None:
        assert parse(name, text, settings_of(RunConfig)[name].type) == value

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("total_timesteps", "1.5"),
            ("total_timesteps", "inf"),
            ("total_timesteps", "many"),
            ("policy_lr", "fast"),
            ("hidden_sizes", "64,x"),
            ("policy_lr_points", "0-1"),
            ("policy_lr_points", "0:1e-3,5"),
            ("env_kwargs", "{"),
            ("env_kwargs", "[1]"),
            ("env_kwargs", '{"a": ' + "9" * 5000 + "}"),
            ("vector", "parallel"),
            ("num_envs", "none"),
        ],
    )
    def test_refused(self, name: str, text: str) -> None:
        with pytest.raises(ValueError, match=f"{name} = "):
            parse(name, text, settings_of(RunConfig)[name].type)
