"""The C++ engine as seen from Python: what it can do, what it is given of the network, and tensors by address."""

from __future__ import annotations

import ctypes
import weakref
from ctypes import c_float, c_int32, c_int64, c_void_p

import torch
from torch import Tensor, nn

from esper.envs.base import ContinuousActions, DeviceEnv, DiscreteActions, EnvStates, scaled_to
from esper.schedules import FeedbackConfig
from esper.simic.collect import Act
from esper.simic.device_collect import Fill, Unrolled
from esper.simic.engines.capabilities import Capabilities
from esper.simic.engines.native import layout
from esper.simic.engines.protocol import Workload
from esper.simic.losses import Minibatch
from esper.simic.metrics import RATIO_QUANTILES
from esper.simic.nets.actor_critic import ActorCritic
from esper.simic.optimizers import Adam
from esper.simic.rollout import Rollout

_ACTIVATIONS: dict[type[nn.Module], str] = {nn.Tanh: "tanh", nn.ReLU: "relu"}
_CAPABILITIES = Capabilities(
    devices=frozenset({"cpu"}),
    actions=frozenset({DiscreteActions, ContinuousActions}),
    layers=frozenset({nn.Linear, *_ACTIVATIONS}),
    loss_terms=frozenset({"policy_loss", "value_loss", "entropy"}),
    metrics=layout.METRICS,
    action_masks=False,
    shared_trunk=False,
)


class NativeEngine:
    """Minibatch steps and evaluation in one call each, for a `workload` that has nothing `missing` here.

    What comes out does not depend on the number of `threads`.

    Raises:
        BuildError: when the kernels cannot be had on this machine.
    """

    def __init__(self, workload: Workload, threads: int) -> None:
        network, optimizer = workload.network, workload.optimizer
        assert isinstance(optimizer, Adam)
        coefficients, config = workload.coefficients, workload.config
        self._library, self._environments = layout.load_kernels()
        state, groups = optimizer.state, c_void_p * len(optimizer.group_names)
        self._parameters = groups(*map(_pointer, state.parameters))
        # These tensors are written in place and never replaced, so their addresses hold.
        self._state = layout.State(
            parameters=self._parameters,
            exp_avg=groups(*map(_pointer, state.exp_avg)),
            exp_avg_sq=groups(*map(_pointer, state.exp_avg_sq)),
            step=_pointer(state.step),
            learning_rates=groups(*map(_pointer, optimizer.learning_rates)),
            clip_coef=_pointer(coefficients.clip_coef),
            entropy_coef=_pointer(coefficients.entropy_coef),
            value_coef=_pointer(coefficients.value_coef),
            value_clip_coef=None if config.value_clip_coef.is_off else _pointer(coefficients.value_clip_coef),
            target_kl=None if config.target_kl.is_off else _pointer(coefficients.target_kl),
            stepping=_pointer(workload.skip.stepping),
            finite=_pointer(workload.skip.finite),
            factors=groups(*map(_pointer, workload.feedback.factors)),
        )
        self._workload = workload  # keeps the tensors
        self._network, self._config, self._threads = network, workload.config, c_int32(threads)
        create = self._library.esper_learner
        create.restype = c_void_p
        self._handle = c_void_p(create(ctypes.byref(_describe(workload))))
        weakref.finalize(self, self._library.esper_learner_delete, self._handle)

    @staticmethod
    def missing(workload: Workload) -> str | None:
        """What the kernels cannot compute of `workload`, or None."""
        return _CAPABILITIES.missing(workload) or _irregular(workload.network)

    def optimize(self, batch: Minibatch, indices: Tensor, metrics: Tensor) -> None:
        batch = batch.map(Tensor.contiguous)
        fields = layout.Batch(
            obs=_pointer(batch.obs),
            actions=_pointer(batch.actions),
            log_probs=_pointer(batch.log_probs),
            values=_pointer(batch.values),
            advantages=_pointer(batch.advantages),
            returns=_pointer(batch.returns),
        )
        steps, rows = indices.shape
        self._library.esper_optimize(
            self._handle,
            ctypes.byref(fields),
            ctypes.byref(self._state),
            _address(indices),
            c_int64(steps),
            c_int64(rows),
            _address(metrics),
            self._threads,
        )

    def evaluate(self, obs: Tensor, actions: Tensor, masks: Tensor | None = None) -> tuple[Tensor, Tensor]:
        assert masks is None
        log_probs, values = torch.empty(len(obs)), torch.empty(len(obs))
        self._evaluate(obs, actions, log_probs, values)
        return log_probs, values

    def value(self, obs: Tensor) -> Tensor:
        values = torch.empty(len(obs))
        self._evaluate(obs, None, None, values)
        return values

    def _evaluate(self, obs: Tensor, actions: Tensor | None, log_probs: Tensor | None, values: Tensor) -> None:
        obs = obs.contiguous()
        self._pack()
        self._library.esper_evaluate(
            self._handle,
            _address(obs),
            _address(actions),
            c_int64(len(obs)),
            _address(log_probs),
            _address(values),
            self._threads,
        )

    def inputs_are_finite(self, rollout: Rollout) -> Tensor:
        def floats(tensor: Tensor) -> int | None:
            return _pointer(tensor) if tensor.is_floating_point() else None

        inputs = layout.Inputs(
            obs=floats(rollout.obs),
            final_obs=floats(rollout.final_obs),
            rewards=_pointer(rollout.rewards),
            actions=floats(rollout.actions),
            terminated=_pointer(rollout.terminated),
            truncated=_pointer(rollout.truncated),
        )
        finite = self._library.esper_inputs_are_finite(
            ctypes.byref(inputs),
            *map(c_int64, rollout.rewards.shape),
            c_int64(rollout.obs[0, 0].numel()),
            c_int64(rollout.actions[0, 0].numel()),
        )
        return torch.tensor(bool(finite))

    def advantages(
        self, rewards: Tensor, values: Tensor, next_values: Tensor, terminated: Tensor, truncated: Tensor
    ) -> tuple[Tensor, Tensor]:
        fields = [field.contiguous() for field in (rewards, values, next_values, terminated, truncated)]
        advantages, returns = torch.empty_like(fields[1]), torch.empty_like(fields[1])
        self._library.esper_advantages(
            *map(_address, fields),
            *map(c_int64, rewards.shape),
            c_float(self._config.gamma),
            c_float(self._config.gae_lambda),
            _address(advantages),
            _address(returns),
        )
        return advantages, returns

    def actor(self, network: ActorCritic) -> Act:
        self._pack()
        call, handle, normalizer = self._library.esper_act, self._handle, self._normalizer()

        def act(
            obs: Tensor,
            noise: Tensor,
            actions: Tensor,
            masks: Tensor | None = None,
            recurrent_state: Tensor | None = None,
        ) -> None:
            assert masks is None
            assert recurrent_state is None
            obs = obs.float()  # as the kernels read images in a row
            # Bare integers are C ints to ctypes, too short for an address.
            call(
                handle,
                ctypes.byref(normalizer),
                c_void_p(obs.data_ptr()),
                c_int64(len(obs)),
                c_void_p(noise.data_ptr()),
                c_void_p(actions.data_ptr()),
            )

        return act

    def fill(self, env: DeviceEnv) -> Fill:
        if env.name not in self._environments or scaled_to(env.spec.actions):
            return Unrolled(env, compiled=False)

        def fill(
            network: ActorCritic, states: EnvStates, noise: Tensor, uniform: Tensor, rollout: Rollout
        ) -> EnvStates:
            self._pack()
            moved = EnvStates(*(tensor.clone() for tensor in states))
            num_steps, num_envs = noise.shape[:2]
            target = layout.Rollout(
                obs=_pointer(rollout.obs),
                actions=_pointer(rollout.actions),
                rewards=_pointer(rollout.rewards),
                terminated=_pointer(rollout.terminated),
                truncated=_pointer(rollout.truncated),
                final_obs=_pointer(rollout.final_obs),
                state=_pointer(moved.state),
                steps=_pointer(moved.steps),
                noise=_pointer(noise),
                uniform=_pointer(uniform),
            )
            self._library.esper_roll_out(
                self._handle,
                ctypes.byref(self._normalizer()),
                c_int32(self._environments[env.name]),
                ctypes.byref(target),
                c_int64(num_steps),
                c_int64(num_envs),
                c_int64(env.max_episode_steps),
                self._threads,
            )
            return moved

        return fill

    def _pack(self) -> None:
        """Let C++ see the parameters as they are: its own layout of them holds until someone else writes them."""
        self._library.esper_pack(self._handle, self._parameters)

    def _normalizer(self) -> layout.Normalizer:
        normalizer = self._network.normalizer
        if normalizer is None:
            return layout.Normalizer(None, None, 0.0)
        mean, deviation = normalizer.mean.float(), normalizer.deviation()
        described = layout.Normalizer(mean.data_ptr(), deviation.data_ptr(), normalizer.limit)
        described.keep = mean, deviation
        return described


def _describe(workload: Workload) -> layout.LearnerConfig:
    network, optimizer, config = workload.network, workload.optimizer, workload.config
    offsets = optimizer.offsets()
    discrete = network.log_std is None
    hidden = [*network.actor][1::2] + [*network.critic][1::2]
    activation = type(hidden[0]) if hidden else nn.Tanh
    return layout.LearnerConfig(
        networks=(layout.NetworkConfig * 2)(
            _layers("actor", network.actor, offsets), _layers("critic", network.critic, offsets)
        ),
        parameters=(c_int64 * 2)(*(len(flat) for flat in optimizer.parameters)),
        log_std=-1 if discrete else offsets["log_std"],
        activation=layout.ACTIVATIONS.index(_ACTIVATIONS[activation]),
        discrete=discrete,
        action_size=network.action_size,
        normalize_advantages=config.normalize_advantages,
        max_grad_norm=_limit(config.max_grad_norm),
        adam_eps=config.adam_eps,
        feedback=(layout.Feedback * 2)(*map(_feedback, workload.feedback.configs)),
        quantile_count=len(RATIO_QUANTILES) if workload.debug else 0,
        quantiles=(c_float * len(RATIO_QUANTILES))(*RATIO_QUANTILES.values()),
    )


def _irregular(network: ActorCritic) -> str | None:
    """Known layers in another order than linear ones with the same activation in between, or without a bias."""
    actor, critic = list(network.actor), list(network.critic)
    linear, activations = actor[::2] + critic[::2], actor[1::2] + critic[1::2]
    kinds = {type(layer) for layer in activations}
    regular = (
        len(linear) == len(activations) + 2
        and all(isinstance(layer, nn.Linear) and layer.bias is not None for layer in linear)
        and len(kinds - {nn.Linear}) == len(kinds) <= 1
    )
    return None if regular else "layers other than linear ones with one activation in between"


def _layers(name: str, module: nn.Sequential, offsets: dict[str, int]) -> layout.NetworkConfig:
    layers = [(f"{name}.{index}", layer) for index, layer in enumerate(module) if isinstance(layer, nn.Linear)]
    sizes = [layers[0][1].in_features, *(layer.out_features for _, layer in layers)]
    return layout.NetworkConfig(
        count=len(sizes),
        sizes=(c_int32 * len(sizes))(*sizes),
        weights=(c_int64 * len(layers))(*(offsets[f"{layer}.weight"] for layer, _ in layers)),
        biases=(c_int64 * len(layers))(*(offsets[f"{layer}.bias"] for layer, _ in layers)),
    )


def _feedback(config: FeedbackConfig) -> layout.Feedback:
    return layout.Feedback(
        target=config.target or 0.0,
        min_factor=config.min_factor,
        max_factor=config.max_factor,
        step=config.step,
        every_minibatch=config.is_on and config.every == "minibatch",
    )


def _limit(value: float | None) -> float:
    return -1.0 if value is None else value


def _pointer(tensor: Tensor) -> int:
    return tensor.data_ptr()


def _address(tensor: Tensor | None) -> c_void_p:
    return c_void_p(None if tensor is None else tensor.data_ptr())
