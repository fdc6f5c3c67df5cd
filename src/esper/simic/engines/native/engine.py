"""The C++ engine as seen from Python: what it can do, what it is given of the network, and tensors by address."""

from __future__ import annotations

import ctypes
import weakref
from ctypes import c_double, c_float, c_int32, c_int64, c_void_p

import torch
from torch import Tensor, nn

from esper.envs.base import (
    Actions,
    ContinuousActions,
    DeviceEnv,
    DiscreteActions,
    EnvStates,
    MultiDiscreteActions,
    scaled_to,
)
from esper.schedules import FeedbackConfig
from esper.simic.collect import Act
from esper.simic.device_collect import Fill, Unrolled
from esper.simic.engines.capabilities import Capabilities
from esper.simic.engines.native import layout
from esper.simic.engines.native.networks import (
    ACTIVATIONS,
    ENCODER_LAYERS,
    LAYERS,
    byte_values,
    irregular,
    network_configs,
)
from esper.simic.engines.protocol import Update, Workload
from esper.simic.losses import Minibatch
from esper.simic.metrics import LEAST_DEVIATION, RATIO_QUANTILES
from esper.simic.nets.actor_critic import ActorCritic
from esper.simic.optimizers import Adam
from esper.simic.rollout import Rollout

_CAPABILITIES = Capabilities(
    devices=frozenset({"cpu"}),
    actions=frozenset({DiscreteActions, MultiDiscreteActions, ContinuousActions}),
    layers=frozenset({*LAYERS, *ACTIVATIONS}),
    encoder_layers=frozenset({*ENCODER_LAYERS, *ACTIVATIONS, nn.Flatten}),
    loss_terms=frozenset({"policy_loss", "value_loss", "entropy"}),
    metrics=layout.METRICS,
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
        self._library, self.variant, self._environments = layout.load_kernels()
        state, groups = optimizer.state, layout.EACH
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
        return _CAPABILITIES.missing(workload) or irregular(workload.network)

    def normalize(self, rollout: Rollout) -> Rollout:
        return rollout if self._byte_values() is not None else rollout.normalized(self._network.normalize)

    def optimize(self, batch: Minibatch, indices: Tensor, metrics: Tensor) -> None:
        fields = _batch(**batch._asdict(), byte_values=self._byte_values())
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

    def whole_update(self, update: Update, rollout: Rollout, orders: Tensor) -> Tensor:
        return update(rollout, orders)

    def evaluate(self, obs: Tensor, actions: Tensor, masks: Tensor | None = None) -> tuple[Tensor, Tensor]:
        batch = _batch(obs=obs, byte_values=self._byte_values(), actions=actions, masks=masks)
        log_probs, values = torch.empty(len(obs)), torch.empty(len(obs))
        self._pack()
        self._library.esper_evaluate(
            self._handle,
            ctypes.byref(batch),
            c_int64(len(values)),
            _address(log_probs),
            _address(values),
            self._threads,
        )
        return log_probs, values

    def evaluate_rollout(self, rollout: Rollout) -> tuple[Tensor, Tensor, Tensor]:
        batch = _batch(
            obs=rollout.obs,
            byte_values=self._byte_values(),
            actions=rollout.actions,
            masks=rollout.masks,
            recurrent_state=rollout.recurrent_state,
            begins=torch.from_numpy(rollout.begins),
        )
        finals = rollout.final_obs.contiguous()
        ends = layout.Ends(_pointer(finals), _pointer(rollout.terminated), _pointer(rollout.truncated))
        evaluated = tuple(torch.empty_like(rollout.rewards) for _ in range(3))
        self._pack()
        self._library.esper_evaluate_rollout(
            self._handle,
            ctypes.byref(batch),
            ctypes.byref(ends),
            *map(c_int64, rollout.rewards.shape),
            *map(_address, evaluated),
            self._threads,
        )
        log_probs, values, next_values = evaluated
        return log_probs, values, next_values

    def inputs_are_finite(self, rollout: Rollout) -> Tensor:
        def floats(tensor: Tensor) -> int | None:
            return tensor.data_ptr() if tensor.is_floating_point() else None

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

    def explained_variance(self, returns: Tensor, values: Tensor) -> Tensor:
        fields, explained = [field.contiguous() for field in (returns, values)], torch.empty(())
        self._library.esper_explained_variance(
            *map(_address, fields), c_int64(returns.numel()), c_double(LEAST_DEVIATION), _address(explained)
        )
        return explained

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
            are_bytes = obs.dtype == torch.uint8
            if not are_bytes:
                obs = obs.float()
            # Bare integers are C ints to ctypes, too short for an address.
            call(
                handle,
                ctypes.byref(normalizer),
                c_void_p(obs.data_ptr()),
                c_int32(are_bytes),
                c_int64(len(obs)),
                c_void_p(noise.data_ptr()),
                c_void_p(None if masks is None else masks.data_ptr()),
                c_void_p(actions.data_ptr()),
                c_void_p(None if recurrent_state is None else recurrent_state.data_ptr()),
            )

        return act

    def fill(self, env: DeviceEnv) -> Fill | None:
        if env.name not in self._environments or scaled_to(env.spec.actions):
            return None if self._network.state_size else Unrolled(env, compiled=False)

        def fill(
            network: ActorCritic,
            states: EnvStates,
            noise: Tensor,
            uniform: Tensor,
            rollout: Rollout,
            recurrent_state: Tensor | None = None,
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
                recurrent_state=_pointer(recurrent_state),
                begins=rollout.begins.ctypes.data,
                recurrent_resets=rollout.recurrent_resets.ctypes.data,
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

    def _byte_values(self) -> Tensor | None:
        return byte_values(self._network)

    def _normalizer(self) -> layout.Normalizer:
        values, normalizer = self._byte_values(), self._network.normalizer
        if values is not None:
            return layout.Normalizer(byte_values=values.data_ptr(), keep=values)
        if normalizer is None:
            return layout.Normalizer()
        mean, deviation = normalizer.mean.float(), normalizer.deviation()
        return layout.Normalizer(mean.data_ptr(), deviation.data_ptr(), normalizer.limit, keep=(mean, deviation))


def _describe(workload: Workload) -> layout.LearnerConfig:
    network, optimizer, config = workload.network, workload.optimizer, workload.config
    offsets, groups = optimizer.offsets(), len(layout.GROUPS)
    choices = _choices(network.actions)
    return layout.LearnerConfig(
        networks=(layout.NetworkConfig * groups)(*network_configs(network, offsets)),
        parameters=(c_int64 * groups)(*map(len, optimizer.parameters)),
        log_std=offsets.get("log_std", -1),
        groups=len(optimizer.group_names),
        normalize_advantages=config.normalize_advantages,
        sequence_steps=config.num_steps if network.state_size else 0,
        choices=len(choices),
        choice_sizes=(c_int32 * len(choices))(*choices),
        max_grad_norm=_limit(config.max_grad_norm),
        max_grad_norm_over_group=config.max_grad_norm_over == "group",
        adam_eps=config.adam_eps,
        feedback=(layout.Feedback * groups)(*map(_feedback, workload.feedback.configs)),
        quantile_count=len(RATIO_QUANTILES) if workload.debug else 0,
        quantiles=(c_float * len(RATIO_QUANTILES))(*RATIO_QUANTILES.values()),
    )


def _choices(actions: Actions) -> tuple[int, ...]:
    """The sizes of the choices of an action; none if it is numbers."""
    match actions:
        case MultiDiscreteActions(nvec=nvec):
            return nvec
        case DiscreteActions(n=n):
            return (n,)
    return ()


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


def _batch(**fields: Tensor | None) -> layout.Batch:
    """The fields of a batch, which it keeps."""
    kept = {name: field.contiguous() for name, field in fields.items() if field is not None}
    batch = layout.Batch(**{name: field.data_ptr() for name, field in kept.items()})
    batch.keep = kept
    return batch


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _address(tensor: Tensor | None) -> c_void_p:
    return c_void_p(_pointer(tensor))
