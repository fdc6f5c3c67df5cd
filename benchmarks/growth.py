"""Host epochs per second of `esper/Growth-v0`, beside one host after the other in plain PyTorch.

    python benchmarks/growth.py --hosts 1 4 16 64 --output growth.json

Both train the same network on the same digits, with SGD, and validate it after each epoch; nothing is planted. They
take turns within one process, `--rounds` times; the ratio is of the medians, with the lowest and highest of a round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from esper.envs.growth.config import GrowthConfig
from esper.envs.growth.data import load
from esper.envs.growth.hosts import Hosts
from esper.envs.growth.stages import Slot

CONFIG = GrowthConfig()


def plain_host(image_channels: int, classes: int) -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in zip((image_channels, *CONFIG.channels), CONFIG.channels, strict=False):
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CONFIG.channels[-1], classes))


class OneByOne:
    """Hosts as anybody writes them: a module, an optimizer and an epoch each."""

    def __init__(self, number: int) -> None:
        self._data = load(CONFIG, torch.device("cpu"))
        shape, classes = self._data.x_train.shape, self._data.classes
        self._hosts = [plain_host(shape[1], classes) for _ in range(number)]
        self._optimizers = [
            torch.optim.SGD(host.parameters(), lr=CONFIG.host_lr, momentum=CONFIG.host_momentum) for host in self._hosts
        ]

    def epoch(self) -> float:
        """Train and validate all; the mean accuracy."""
        return statistics.fmean(map(self._epoch, self._hosts, self._optimizers))

    def _epoch(self, host: nn.Module, optimizer: torch.optim.Optimizer) -> float:
        host.train()
        order = torch.randperm(len(self._data.x_train))[: CONFIG.epoch_steps * CONFIG.batch_size]
        for rows in order.view(CONFIG.epoch_steps, -1):
            loss = nn.functional.cross_entropy(host(self._data.x_train[rows]), self._data.y_train[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        host.eval()
        with torch.no_grad():
            logits: Tensor = host(self._data.x_val)
        return 100 * float((logits.argmax(-1) == self._data.y_val).float().mean())


class Together:
    """The hosts of a vector environment."""

    def __init__(self, number: int) -> None:
        self._generators = [np.random.default_rng(index) for index in range(number)]
        self._hosts = Hosts(CONFIG, number)
        for index, generator in enumerate(self._generators):
            self._hosts.begin(index, generator)
        self._slots = [(Slot(),) * len(CONFIG.channels)] * number

    def epoch(self) -> float:
        self._hosts.train(self._slots, [self._hosts.draw_order(generator) for generator in self._generators])
        return float(self._hosts.validate(self._slots).accuracy.mean())


def seconds(epoch: Callable[[], float], at_least: float) -> float:
    """Of one epoch."""
    count, started = 0, time.perf_counter()
    while count == 0 or time.perf_counter() - started < at_least:
        epoch()
        count += 1
    return (time.perf_counter() - started) / count


def measure(number: int, rounds: int, at_least: float) -> dict[str, Any]:
    plain, together = OneByOne(number), Together(number)
    # Both learn: at the end of an episode's epochs they are about as good.
    accuracies = [[system.epoch() for _ in range(CONFIG.epochs)][-1] for system in (plain, together)]
    times = [[seconds(system.epoch, at_least) for system in (plain, together)] for _ in range(rounds)]
    ratios = [one / other for one, other in times]
    return {
        "hosts": number,
        "plain_epochs_per_second": number / statistics.median(one for one, _ in times),
        "epochs_per_second": number / statistics.median(other for _, other in times),
        "ratio": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
        "accuracies": accuracies,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", nargs="+", type=int, default=[1, 4, 16, 64])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    found = []
    for number in args.hosts:
        found.append(measure(number, args.rounds, args.seconds))
        print(
            {name: round(value, 2) for name, value in found[-1].items() if isinstance(value, float | int)}, flush=True
        )
    if args.output is not None:
        args.output.write_text(json.dumps({"threads": args.threads, "results": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
