"""Replaying minibatch steps, with a capture that is pretended: a GPU's is tested where there is one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import probes
from esper.envs.make import make_env
from esper.schedules import LimitConfig, ScheduleConfig
from esper.simic.collect import Collector
from esper.simic.config import NetworkConfig, PPOConfig, RuntimeConfig
from esper.simic.engines import graphs
from esper.simic.engines.graphs import Replayed, Work
from esper.simic.engines.torch import TorchEngine
from esper.simic.losses import Minibatch
from esper.simic.ppo import PPOAgent
from esper.simic.rollout import Rollout
from esper.simic.vectorized import Training
from esper.telemetry.events import UpdateCompleted

CPU = torch.device("cpu")


def pretended(work: Work, device: torch.device) -> Work:
    """Runs the work once, as a warm-up does, and replays it on the tensors that it knew then."""
    work()
    return work


def batch(value: float) -> Minibatch:
    return Minibatch(*(torch.full((4,), value) for _ in Minibatch._fields))


class Summing:
    """Steps that add a rate times the rows to a total."""

    def __init__(self) -> None:
        self.total, self.rate = torch.zeros(()), torch.ones(())

    def __call__(self, batch: Minibatch, indices: Tensor, metrics: Tensor) -> None:
        for rows, row in zip(indices, metrics, strict=True):
            self.total.add_(self.rate * batch.obs[rows].sum())
            row.fill_(self.total)


def test_sees_the_batch_and_the_rate_of_each_call_and_nothing_of_the_warm_up() -> None:
    steps, indices, metrics = Summing(), torch.tensor([[0, 1], [2, 3]]), torch.zeros(2)
    replayed = Replayed(steps, [steps.total], pretended)
    replayed(batch(1.0), indices, metrics)
    assert metrics.tolist() == [2.0, 4.0]
    steps.rate.fill_(10.0)
    replayed(batch(5.0), torch.tensor([[0, 0], [0, 1]]), metrics)
    # 4 from before, and twice two rows of 5 at a rate of 10.
    assert metrics.tolist() == [104.0, 204.0]
    assert steps.total == 204.0


def test_batches_with_other_fields_have_graphs_of_their_own() -> None:
    captures: list[torch.device] = []

    def counted(work: Work, device: torch.device) -> Work:
        captures.append(device)
        return pretended(work, device)

    steps, indices, metrics = Summing(), torch.tensor([[0, 1]]), torch.zeros(1)
    replayed = Replayed(steps, [steps.total], counted)
    for given in (batch(1.0), batch(2.0)._replace(selected=None), batch(3.0), batch(4.0)._replace(selected=None)):
        replayed(given, indices, metrics)
    assert captures == [CPU, CPU]
    # Two rows of each.
    assert steps.total == 2 * (1 + 2 + 3 + 4)


def test_many_steps_are_several_replays_of_one_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "MAX_STEPS_PER_GRAPH", 4)
    steps, metrics = Summing(), torch.zeros(6)
    captured: list[int] = []

    def counted(work: Work, device: torch.device) -> Work:
        before = steps.total.item()
        work()
        captured.append(int(steps.total.item() - before))
        return work

    replayed = Replayed(steps, [steps.total], counted)
    replayed(batch(1.0), torch.arange(4).repeat(3).view(6, 2), metrics)
    # Three steps on two rows are the largest part of six.
    assert captured == [6]
    assert metrics.tolist() == [2.0, 4.0, 6.0, 8.0, 10.0, 12.0]


class TestCapture:
    @pytest.fixture
    def calls(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """What a pretended `torch.cuda` was asked for, with the device and the stream that were current."""
        said: list[str] = []
        current = {"device": "cuda:0", "stream": "the default"}

        class Stream:
            def __init__(self) -> None:
                self.name = f"a stream of {current['device']}"

            def wait_stream(self, other: Any) -> None: ...

        class Graph:
            def replay(self) -> None:
                said.append("replay")

        @contextlib.contextmanager
        def made_current(kind: str, name: str) -> Iterator[None]:
            before, current[kind] = current[kind], name
            yield
            current[kind] = before

        @contextlib.contextmanager
        def graph(graph: Graph, *, stream: Stream | None = None) -> Iterator[None]:
            said.append("capture")
            with made_current("stream", "torch's own" if stream is None else stream.name):
                yield

        for name, replacement in {
            "device": lambda device: made_current("device", str(device)),
            "stream": lambda stream: made_current("stream", stream.name),
            "current_stream": Stream,
            "Stream": Stream,
            "CUDAGraph": Graph,
            "graph": graph,
        }.items():
            monkeypatch.setattr(torch.cuda, name, replacement)
        said.append("")
        self.work: Callable[[], None] = lambda: said.append(f"work on {current['stream']}")
        return said

    def test_warm_up_and_capture_are_on_one_stream_of_the_device(self, calls: list[str]) -> None:
        replay = graphs.capture(self.work, torch.device("cuda:1"))
        replay()
        work = "work on a stream of cuda:1"
        assert calls[1:] == [work, "capture", work, "replay"]


def use_whole_graphs(agent: PPOAgent) -> None:
    agent.updater.engine = TorchEngine(agent.updater.workload, compiled=False, replayed=True, whole=True)


class TestLstm:
    @pytest.fixture(params=[False, True], ids=["all steps", "steps that reset ignored"])
    def agents(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[PPOAgent]:
        """The same agent twice, the steps of one replayed."""
        monkeypatch.setattr(graphs, "capture", pretended)
        self.env = probes.Cue(resets_in_a_step=request.param)
        config = PPOConfig(
            num_envs=probes.NUM_ENVS,
            num_steps=8,
            num_minibatches=2,
            network=NetworkConfig(hidden_sizes=(4,), rnn="lstm", rnn_size=4),
            runtime=RuntimeConfig(compile="off"),
        )
        eager, replayed = (PPOAgent(config, self.env.spec) for _ in range(2))
        replayed.updater.engine = TorchEngine(replayed.updater.workload, compiled=False, replayed=True)
        return [eager, replayed]

    def test_replayed_steps_are_the_same_to_the_last_bit(self, agents: list[PPOAgent]) -> None:
        for _ in range(3):
            for agent in agents:
                rollout = agent.allocate_rollout()
                memory = torch.zeros(probes.NUM_ENVS, agent.network.state_size)
                Collector(self.env, 0, recurrent_state=memory).collect(
                    agent.network, rollout, agent.generators["actions"]
                )
                assert agent.update(rollout).fault is None
        eager, replayed = (agent.optimizer.tensors() for agent in agents)
        assert all(ours.equal(theirs) for ours, theirs in zip(eager, replayed, strict=True))


class TestWhole:
    @pytest.fixture
    def trainings(self, monkeypatch: pytest.MonkeyPatch) -> list[Training]:
        """The same training twice, the rollouts and updates of one replayed."""
        monkeypatch.setattr(graphs, "capture", pretended)
        made = []
        for replayed in (False, True):
            env = make_env("torch/CartPole-v1", num_envs=4, max_episode_steps=7)
            config = PPOConfig(
                num_envs=4,
                num_steps=10,
                policy_lr=ScheduleConfig(warmup_steps=2, decay="cosine"),
                target_kl=LimitConfig(peak=0.02),
                normalize_rewards=True,
                metrics_after=True,
                network=NetworkConfig(hidden_sizes=(8,), normalize_observations=True),
                runtime=RuntimeConfig(compile="off"),
            )
            agent = PPOAgent(config, env.spec)
            if replayed:
                use_whole_graphs(agent)
            made.append(Training(agent, env, env_seed=1))
        return made

    def test_are_the_same_to_the_last_bit_before_and_after_a_load(self, trainings: list[Training]) -> None:
        for _ in range(3):
            assert same_tensors(*(self.trained(training) for training in trainings))
        # The states are other tensors now than those that were captured.
        for training in trainings:
            training.load_state_dict(training.state_dict(), env_seed=1)
        assert same_tensors(*(self.trained(training) for training in trainings))

    def test_an_update_is_captured_once(self, trainings: list[Training], monkeypatch: pytest.MonkeyPatch) -> None:
        _, training = trainings
        computed, compute = [], training.agent.updater._compute

        def counted(rollout: Rollout, orders: Tensor) -> Tensor:
            computed.append(rollout)
            return compute(rollout, orders)

        monkeypatch.setattr(training.agent.updater, "_compute", counted)
        events = [training.update() for _ in range(3)]
        # The first call is the warm-up, as it is pretended here; the graph replays what was captured after it.
        assert len(computed) == 1 + 3
        assert len({tuple(event.lr.items()) for event in events if isinstance(event, UpdateCompleted)}) == 3

    def test_rollouts_that_change_are_captured_once_more_and_copied(self, trainings: list[Training]) -> None:
        captures: list[torch.device] = []

        def counted(work: Work, device: torch.device) -> Work:
            captures.append(device)
            return pretended(work, device)

        eager, replayed = (training.agent for training in trainings)
        assert isinstance(replayed.updater.engine, TorchEngine)
        assert replayed.updater.engine._updates is not None
        replayed.updater.engine._updates._capture = counted
        for _ in range(4):
            rollout = eager.allocate_rollout()
            trainings[0]._collector.collect(eager.network, rollout, eager.generators["actions"])
            before = rollout.rewards.clone()
            results = [agent.update(rollout) for agent in (eager, replayed)]
            assert results[0].metrics == results[1].metrics
            assert rollout.rewards.equal(before)
        assert len(captures) == 2
        assert same_tensors(*(list(agent.optimizer.tensors()) for agent in (eager, replayed)))

    def test_another_rollout_is_captured_anew(self, trainings: list[Training]) -> None:
        _, training = trainings
        rollouts = [training.agent.allocate_rollout() for _ in range(2)]
        for rollout in rollouts:
            training._collector.collect(training.agent.network, rollout, training.agent.generators["actions"])
        assert all(rollout.obs[1:].any() for rollout in rollouts)
        assert not rollouts[0].obs.equal(rollouts[1].obs)

    @staticmethod
    def trained(training: Training) -> list[Tensor]:
        event = training.update()
        assert isinstance(event, UpdateCompleted)
        numbers = [event.value_loss, event.approx_kl_after or 0.0, event.optimizer_steps, *event.grad_norm.values()]
        return [torch.tensor(numbers), *training.agent.optimizer.tensors(), *training._rollout.tensors()]


def same_tensors(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return all(a.equal(b) for a, b in zip(ours, theirs, strict=True))
