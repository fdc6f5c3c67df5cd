"""What computes is what was asked for, or what there is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import probes
from esper.envs.base import DiscreteActions, Images
from esper.settings.options import ConfigError
from esper.simic import losses, metrics
from esper.simic.config import NetworkConfig, PPOConfig, RuntimeConfig
from esper.simic.engines import choice as engine
from esper.simic.engines.compilers import missing_to_compile
from esper.simic.engines.native import library
from esper.simic.engines.native.engine import NativeEngine
from esper.simic.nets.activations import ACTIVATIONS
from esper.simic.ppo import PPOAgent

LONG = 10**7


class Screen(probes.Probe):
    observations = Images(shape=(2, 40, 40))


class Small(probes.Probe):
    observations = Images(shape=(2, 10, 10))


def convolution(shape: tuple[int, ...]) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Conv2d(shape[0], 16, 3), torch.nn.ReLU(), torch.nn.Flatten())


def chosen(
    mode: str, *, timesteps: int = LONG, network: NetworkConfig | None = None, probe: type[probes.Probe] = probes.Probe
) -> str:
    config = PPOConfig(
        total_timesteps=timesteps,
        network=network or NetworkConfig(),
        runtime=RuntimeConfig(compile=mode),  # type: ignore[arg-type]
    )
    return PPOAgent(config, probe().spec).updater.engine_name


@pytest.mark.parametrize("mode", ["auto", "native"])
def test_the_kernels_wherever_they_can(mode: str) -> None:
    assert chosen(mode, timesteps=1024) == "native"


@pytest.mark.parametrize(
    "network",
    [
        NetworkConfig(shared_trunk=True),
        NetworkConfig(layer_norm=True),
        *(NetworkConfig(activation=name) for name in ACTIVATIONS),
        NetworkConfig(rnn="lstm"),
        NetworkConfig(rnn="gru"),
    ],
)
def test_the_kernels_know_networks_of_all_settings(network: NetworkConfig) -> None:
    assert chosen("native", network=network) == "native"


def test_the_kernels_know_convolutions_of_small_images() -> None:
    assert chosen("native", network=NetworkConfig(encoder="small"), probe=Small) == "native"
    with pytest.raises(ConfigError, match="convolutions of images of more than 35 pixels a side"):
        chosen("native", network=NetworkConfig(encoder="small"), probe=Screen)


def test_what_the_kernels_cannot_do_is_compiled_by_torch_when_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ACTIVATIONS, "tanh", "torch.nn:Mish")
    assert chosen("auto") == "torch"
    assert chosen("auto", timesteps=1024) == "eager"
    with pytest.raises(ConfigError, match=r"compile = native: is not available: Mish; use auto, torch or off"):
        chosen("native")


@pytest.mark.parametrize("probe", [probes.RewardByEachChoice, probes.Trapdoors])
def test_the_kernels_know_several_choices_and_masks(probe: type[probes.Probe]) -> None:
    assert chosen("native", probe=probe) == "native"


class TestWhatTheKernelsDoNotDeclare:
    """It is torch's, and nothing else had to be told of it."""

    def test_a_loss_term(self, monkeypatch: pytest.MonkeyPatch) -> None:
        term = losses.LossTerm("log_ratio_penalty", lambda inputs: inputs.ratio.log().square().mean())
        monkeypatch.setattr(losses, "LOSS_TERMS", (*losses.LOSS_TERMS, term))
        self.steps_aside("loss term log_ratio_penalty")

    def test_a_metric(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(metrics, "COLUMNS", (*metrics.COLUMNS, "advantage_mean"))
        self.steps_aside("metric advantage_mean")

    def test_an_encoder_with_other_layers(self) -> None:
        self.steps_aside("an encoder with MaxPool2d", network=NetworkConfig(encoder="impala"), probe=Screen)

    def test_an_encoder_from_python(self) -> None:
        self.steps_aside("an encoder from Python", network=NetworkConfig(encoder=convolution), probe=Screen)

    @pytest.mark.parametrize(
        ("layer", "why"),
        [
            (torch.nn.Conv2d(2, 16, 3, padding=1), "Conv2d(2, 16, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))"),
            (torch.nn.Conv2d(2, 16, (3, 2)), "Conv2d(2, 16, kernel_size=(3, 2), stride=(1, 1))"),
            (torch.nn.Conv2d(2, 16, 3, bias=False), "bias=False"),
            (torch.nn.Conv2d(2, 12, 3), "12 filters of a convolution, which are no multiple of 16"),
        ],
    )
    def test_a_convolution_of_another_form(self, layer: torch.nn.Module, why: str) -> None:
        network = NetworkConfig(encoder="small")
        agent = PPOAgent(PPOConfig(network=network, runtime=RuntimeConfig(compile="off")), Small().spec)
        actor: Any = agent.network.actor
        actor[0].layers[0] = layer
        assert why in str(NativeEngine.missing(agent.updater.workload))

    def test_a_kind_of_actions(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Levels(DiscreteActions):
            pass

        class Probe(probes.Probe):
            actions = Levels(n=2)

        self.steps_aside("Levels", probe=Probe)

    @pytest.mark.parametrize(
        ("layers", "why"),
        [
            ([torch.nn.Tanh(), torch.nn.Linear(1, 2)], "activations that follow no layer with weights"),
            ([torch.nn.Linear(1, 2), torch.nn.Tanh(), torch.nn.ReLU()], "activations that follow no layer"),
            ([torch.nn.Linear(1, 2), torch.nn.Tanh()], "an actor that does not end in a linear layer"),
            ([torch.nn.Linear(1, 2, bias=False)], "Linear(in_features=1, out_features=2, bias=False)"),
            ([torch.nn.Linear(1, 2), torch.nn.ELU(0.5), torch.nn.Linear(2, 2)], "ELU(alpha=0.5)"),
            (
                [torch.nn.Linear(1, 2), torch.nn.GELU(approximate="tanh"), torch.nn.Linear(2, 2)],
                "GELU(approximate='tanh')",
            ),
            ([torch.nn.LayerNorm(1, eps=0.1), torch.nn.Linear(1, 2)], "LayerNorm((1,), eps=0.1, "),
        ],
    )
    def test_layers_in_another_order_or_of_another_form(self, layers: list[torch.nn.Module], why: str) -> None:
        agent = PPOAgent(PPOConfig(runtime=RuntimeConfig(compile="off")), probes.Probe().spec)
        agent.network.actor = torch.nn.Sequential(*layers)
        assert why in str(NativeEngine.missing(agent.updater.workload))

    @staticmethod
    def steps_aside(what: str, network: NetworkConfig | None = None, probe: type[probes.Probe] = probes.Probe) -> None:
        assert chosen("auto", timesteps=1024, network=network, probe=probe) == "eager"
        with pytest.raises(ConfigError, match=f"is not available: {what}; use auto, torch or off"):
            chosen("native", network=network, probe=probe)


def test_auto_says_once_what_the_kernels_do_not_compute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ACTIVATIONS, "tanh", "torch.nn:Mish")
    engine._say_once.cache_clear()
    caplog.set_level("INFO", "esper")
    for _ in range(2):
        assert chosen("auto", timesteps=1024) == "eager"
    assert [record.getMessage() for record in caplog.records] == [
        "updates run in torch: the C++ kernels do not compute Mish"
    ]


def test_off() -> None:
    assert chosen("off") == "eager"


class TestWithoutACompiler:
    @pytest.fixture(autouse=True)
    def _nothing_on_path(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "")
        monkeypatch.delenv("CXX", raising=False)
        engine._say_once.cache_clear()

    def test_auto_says_so_once_and_goes_on(self, caplog: pytest.LogCaptureFixture) -> None:
        assert chosen("auto") == chosen("auto") == "eager"
        assert [record.getMessage() for record in caplog.records if record.name.startswith("esper")] == [
            "a C++ compiler (g++ or clang++ on PATH, or CXX) not found: updates run several times slower"
        ]

    @pytest.mark.parametrize("mode", ["native", "torch"])
    def test_what_was_asked_for_by_name_is_an_error(self, mode: str) -> None:
        with pytest.raises(ConfigError, match=rf"compile = {mode}: .*a C\+\+ compiler \(g\+\+ or clang"):
            chosen(mode)


class TestTriton:
    """What torch compiles with for a GPU, on a card and with a Triton that are pretended."""

    CUDA = torch.device("cuda", 1)

    @pytest.fixture(autouse=True)
    def _a_card(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, device.index - 1))
        for name in ("gcc", "cl"):
            (tmp_path / name).touch(mode=0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.delenv("CC", raising=False)
        self.compiler = tmp_path / "gcc"

    def test_all_is_there(self) -> None:
        assert missing_to_compile(self.CUDA) is None

    def test_no_c_compiler(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.compiler.unlink()
        assert missing_to_compile(self.CUDA) == "a C compiler (gcc or clang on PATH, or CC)"
        monkeypatch.setenv("CC", "cl")
        assert missing_to_compile(self.CUDA) is None

    def test_cc_names_one_that_is_not_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CC", "icc")
        assert missing_to_compile(self.CUDA) == "a C compiler (gcc or clang on PATH, or CC)"

    def test_no_triton(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        assert missing_to_compile(self.CUDA) == "Triton (pip install triton)"

    def test_an_old_card(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 1))
        assert missing_to_compile(self.CUDA) == "a card of compute capability 7.0 or more, not 6.1"

    def test_no_headers(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr("esper.simic.engines.compilers.sysconfig.get_path", lambda name: str(tmp_path))
        assert missing_to_compile(self.CUDA) == "Python's C headers (Debian: python3-dev)"

    def test_auto_goes_on_uncompiled_with_one_line(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setitem(ACTIVATIONS, "tanh", "torch.nn:Mish")
        monkeypatch.setattr(engine, "missing_to_compile", lambda device: "a C compiler")
        engine._say_once.cache_clear()
        assert chosen("auto") == chosen("auto") == "eager"
        warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert warnings == ["torch.compile needs a C compiler: updates run several times slower"]
        with pytest.raises(ConfigError, match="compile = torch: needs a C compiler; use auto or off without"):
            chosen("torch")


def test_graphs_need_a_card() -> None:
    with pytest.raises(ConfigError, match="compile = graphs: needs a CUDA device, not cpu; use auto, native, torch"):
        chosen("graphs")


def test_torch_needs_pythons_headers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("esper.simic.engines.compilers.sysconfig.get_path", lambda name: str(tmp_path))
    with pytest.raises(ConfigError, match="needs Python's C headers"):
        chosen("torch")


class TestLibrary:
    @pytest.fixture
    def cache(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        # The compiler's optimisation is most of the time it takes, and nothing is computed here.
        quick = tuple("-O0" if flag == "-O3" else flag for flag in library._FLAGS)
        monkeypatch.setattr(library, "_FLAGS", quick)
        library._load.cache_clear()
        yield tmp_path / "esper"
        library._load.cache_clear()

    def test_is_compiled_once_and_kept(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        library.load_library()
        (kept,) = cache.iterdir()
        library._load.cache_clear()
        monkeypatch.setattr(library, "_compile", pytest.fail)
        library.load_library()
        assert [kept] == list(cache.iterdir())

    def test_a_compiler_that_fails_is_named_with_its_reason(
        self, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        compiler = tmp_path / "cxx"
        compiler.write_text("#!/bin/sh\ncase $* in *-E*) ;; *) echo out of luck >&2; exit 1;; esac\n")
        compiler.chmod(0o755)
        monkeypatch.setenv("CXX", str(compiler))
        with pytest.raises(library.BuildError, match=r"cxx failed: out of luck"):
            library.load_library()
        assert not list(cache.iterdir())

    def test_without_a_place_to_keep_it_it_is_there_for_this_run(
        self, cache: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        cache.write_text("a file, where the folder should be")
        library.load_library()
        assert "compiled for this run alone" in caplog.text
