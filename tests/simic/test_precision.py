"""What torch multiplies with."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import probes
from esper.envs.base import ContinuousActions
from esper.settings.options import ConfigError
from esper.simic.collect import Collector
from esper.simic.config import NetworkConfig, PPOConfig, RuntimeConfig
from esper.simic.ppo import PPOAgent
from esper.simic.precision import float32_products

CUDA = torch.device("cuda")


def in_force() -> tuple[str, bool]:
    """Of products of matrices, and whether convolutions are of TF32."""
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


class TestOnACard:
    """Torch takes the settings without one, too."""

    @pytest.mark.parametrize(
        ("precision", "within"),
        [("float32", ("highest", False)), ("tf32", ("high", True)), ("bf16", ("highest", False))],
    )
    @pytest.mark.parametrize("outside", ["highest", "medium"])
    def test_is_what_the_setting_says_whatever_it_was_and_then_as_before(
        self, precision: Any, within: tuple[str, bool], outside: str
    ) -> None:
        at_first = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(outside)
        before = in_force()
        try:
            with pytest.raises(ZeroDivisionError):
                self.fail_within(precision, within)
            assert in_force() == before
        finally:
            torch.set_float32_matmul_precision(at_first)

    @staticmethod
    def fail_within(precision: Any, within: tuple[str, bool]) -> None:
        with float32_products(precision, CUDA):
            assert in_force() == within
            raise ZeroDivisionError

    def test_elsewhere_nothing_changes(self) -> None:
        before = in_force()
        with float32_products("bf16", torch.device("cpu")):
            assert in_force() == before


def agent(probe: type[probes.Probe], precision: Any, **network: Any) -> PPOAgent:
    config = PPOConfig(
        num_envs=probes.NUM_ENVS,
        num_steps=16,
        network=NetworkConfig(hidden_sizes=(16,), **network),
        runtime=RuntimeConfig(compile="off", precision=precision),
    )
    return PPOAgent(config, probe().spec)


class Numbers(probes.RewardByObservation):
    actions = ContinuousActions(size=2)


class TestBf16:
    @pytest.mark.parametrize(
        ("probe", "network"),
        [
            (probes.RewardByObservation, {}),
            (Numbers, {"shared_trunk": True, "layer_norm": True}),
            (probes.RewardByEachChoice, {}),
            (probes.RewardByImage, {"encoder": "small"}),
        ],
    )
    def test_layers_round_and_nothing_else(self, probe: type[probes.Probe], network: dict[str, Any]) -> None:
        exact, rounded = (agent(probe, precision, **network) for precision in ("float32", "bf16"))
        env = probe()
        rollout = exact.allocate_rollout()
        Collector(env, 0).collect(exact.network, rollout, exact.generators["actions"])
        batches = [each.updater.prepare(rollout) for each in (exact, rounded)]
        for name in ("log_probs", "values"):
            ours, theirs = (getattr(batch, name) for batch in batches)
            assert theirs.dtype == torch.float32
            assert not ours.equal(theirs)
            # bfloat16 has 8 digits.
            torch.testing.assert_close(ours, theirs, rtol=2**-5, atol=2**-5)
        before = [flat.clone() for flat in rounded.optimizer.parameters]
        results = [each.update(rollout) for each in (exact, rounded)]
        assert rounded.optimizer.parameters[0].dtype == torch.float32
        assert not any(flat.equal(old) for flat, old in zip(rounded.optimizer.parameters, before, strict=True))
        losses = [result.metrics["value_loss"] for result in results]
        assert losses[0] == pytest.approx(losses[1], rel=0.05)

    def test_the_kernels_step_aside(self) -> None:
        assert self.chosen("auto") == "eager"
        with pytest.raises(ConfigError, match="compile = native: is not available: bf16; use auto, torch or off"):
            self.chosen("native")

    @staticmethod
    def chosen(compile: Any) -> str:
        config = PPOConfig(runtime=RuntimeConfig(compile=compile, precision="bf16"), total_timesteps=1024)
        return PPOAgent(config, probes.Probe().spec).updater.engine_name

    def test_memory_has_none(self) -> None:
        with pytest.raises(ConfigError, match="precision = bf16: has no gradients of a recurrent network; use float32"):
            agent(probes.Cue, "bf16", rnn="lstm")


def test_tf32_is_of_cards() -> None:
    with pytest.raises(ConfigError, match="precision = tf32: needs a CUDA device, not cpu; use float32"):
        RuntimeConfig(precision="tf32")
