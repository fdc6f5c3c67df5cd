"""Writes the tables of docs/performance.md, and draws its pictures, from docs/performance.json."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import throughput
from marked import fill, grid
from matplotlib import pyplot as plt

DOCS = Path(__file__).resolve().parent.parent / "docs"
TITLES = {
    "cartpole": "CartPole-v1, 8 environments",
    "cartpole-64": "CartPole-v1, 64 environments",
    "cartpole-512": "CartPole-v1, 512 environments",
    "halfcheetah": "HalfCheetah-v4, 1 environment",
    "lstm": "CartPole-v1 with an LSTM of 64, 16 environments x 32 steps",
    "masks": "20 actions with masks, 8 environments",
    "discrete-20": "20 actions, 8 environments",
    "multidiscrete": "Three choices of 3, 4 and 5, 8 environments",
    "minatar-breakout": "MinAtar Breakout, MLP, 64 environments",
    "minatar-space-invaders": "MinAtar SpaceInvaders, MLP, 64 environments",
    "minatar-breakout-conv": "MinAtar Breakout, convolutions, 64 environments",
    "minatar-space-invaders-conv": "MinAtar SpaceInvaders, convolutions, 64 environments",
}


def policies(results: dict[str, Any]) -> str:
    """Of a run of `throughput.py` by itself, with other kinds of policies."""
    if "policies" not in results:
        return "Not measured yet."
    measured = results["policies"]["results"].items()
    return "\n".join(
        _section(workload, rounds, "sb3-contrib" if workload in throughput.CONTRIB else "sb3")
        for workload, rounds in measured
    )


def peers(results: dict[str, Any]) -> str:
    measured = results["throughput"]["results"].items()
    return "\n".join(_section(workload, rounds, "sb3") + _ratio_to_rejax(rounds) for workload, rounds in measured)


def jax(results: dict[str, Any]) -> str:
    """Of a run of `throughput.py` by itself, beside programs in JAX."""
    if "jax" not in results:
        return "Not measured yet."
    measured = results["jax"]["results"].items()
    return "\n".join(_section(workload, rounds, "purejax") + _ratio_to_rejax(rounds) for workload, rounds in measured)


def _section(workload: str, rounds: list[dict[str, Any]], baseline: str) -> str:
    table = throughput.table(rounds, baseline)
    return f"**{TITLES[workload]}** (`{throughput.WORKLOADS[workload]}`)\n\n{table}\n"


def _ratio_to_rejax(rounds: list[dict[str, Any]]) -> str:
    ratios = [
        entry["esper-torch"]["steady_steps_per_second"] / entry["rejax"]["steady_steps_per_second"]
        for entry in rounds
        if all("steady_steps_per_second" in entry.get(name, {}) for name in ("esper-torch", "rejax"))
    ]
    if not ratios:
        return ""
    return f"\nesper-torch to rejax: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})\n"


def limits(results: dict[str, Any]) -> str:
    return _points(results["scaling"]["environments"], "num_envs", "environments")


def widths(results: dict[str, Any]) -> str:
    return _points(results["scaling"]["width"], "width", "width")


def _points(points: list[dict[str, Any]], key: str, title: str) -> str:
    return grid(
        f"{title} | threads | training, steps/s | update alone, steps/s | matrix product, GFLOP/s | update of it "
        "| training of it",
        (
            (
                str(point[key]),
                str(point["threads"]),
                f"{point['train_steps_per_second']:,.0f}",
                f"{point['update_steps_per_second']:,.0f}",
                f"{point['matrix_product_gflops']:.0f}",
                f"{point['update_share_of_matrix_product']:.0%}",
                f"{point['train_share_of_matrix_product']:.0%}",
            )
            for point in points
        ),
    )


def engines(results: dict[str, Any]) -> str:
    return grid(
        "environments | engine | training, steps/s | update alone, steps/s",
        (
            (
                str(point["num_envs"]),
                point["engine"],
                f"{point['train_steps_per_second']:,.0f}",
                f"{point['update_steps_per_second']:,.0f}",
            )
            for point in results["scaling"]["engine"]
        ),
    )


def environments(results: dict[str, Any]) -> str:
    names = ("CartPole-v1", "torch/CartPole-v1")
    return grid(
        "environments | Gymnasium's CartPole-v1 | torch/CartPole-v1, uncompiled",
        (
            (number, *(f"{speeds[name]:,.0f}" for name in names))
            for number, speeds in results["scaling"]["environment_only"].items()
        ),
    )


def hosts(results: dict[str, Any]) -> str:
    found = results["host_environments"]
    names = list(dict.fromkeys(name for entry in found for name in entry["microseconds"]))
    return grid(
        f"environment | number | {' | '.join(names)}",
        (
            (
                f"`{entry['env']}`",
                str(entry["num_envs"]),
                *(_wall_and_cpu(entry["microseconds"].get(name)) for name in names),
            )
            for entry in found
        ),
    )


def _wall_and_cpu(us: dict[str, float] | None) -> str:
    return "-" if us is None else f"{us['wall']:,.0f} ({us['cpu']:,.0f})"


def schedules(results: dict[str, Any]) -> str:
    found = dict(results["schedule_overhead"])
    count = found.pop("recompilations")
    rows = (
        (
            engine,
            str(len(entry["ratios"])),
            f"{entry['median_ratio']:.3f}",
            f"{min(entry['ratios']):.3f}, {max(entry['ratios']):.3f}",
        )
        for engine, entry in found.items()
    )
    said = f"Graphs that torch compiled in {count['updates']:,} updates after the first: {count['graphs']}."
    return grid("engine | pairs | median ratio | lowest, highest", rows) + f"\n\n{said}"


def start(results: dict[str, Any]) -> str:
    found = dict(results["startup"])
    said = f"`esper ppo --help`: {found.pop('help_seconds'):.2f} s."
    rows = ((engine, *(f"{value:,.1f}" for value in entry.values())) for engine, entry in found.items())
    header = "engine | first update, cold s | warm s | peak memory, cold MiB | warm MiB"
    return f"{said}\n\n{grid(header, rows)}"


def machine(results: dict[str, Any]) -> str:
    record = results["throughput"]
    has = record["machine"]
    versions = {}
    for rounds in record["results"].values():
        for entry in rounds[0].values():
            if "version" in entry:
                versions[entry["system"]] = entry["version"]
                versions.update(entry["versions"])
    listed = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    return f"{has['cpu']}, {has['cores']} cores, {has['memory_gib']} GiB, {has['os']}; {listed}."


def gpu(found: dict[str, Any] | None) -> str:
    """What benchmarks/gpu.py found, if it ever ran."""
    if found is None:
        return "Not run yet."
    entries = [(part, entry) for part, result in found["parts"].items() for entry in result["found"]]
    checks = [(part, entry) for part, entry in entries if "passed" in entry and entry.get("end") != "skipped"]
    failed = [f"{part}, {entry['name']}" for part, entry in checks if not entry["passed"]]
    has = found["environment"]
    cards = ", ".join(card["name"] for card in has.get("cards", ())) or found["device"]
    incomplete = [f"{part}: {result['end']}" for part, result in found["parts"].items() if result["end"] != "completed"]
    said = (
        f"{cards}, torch {has.get('torch')}, {found['date'][:10]}. {len(checks) - len(failed)} of {len(checks)} checks"
    )
    said += " and tests passed" + "".join(f"; failed: {name}" for name in failed) + "."
    said += "".join(f" {line}." for line in incomplete)
    rows = []
    for part, entry in entries:
        speed = entry.get("steps_per_second") or entry.get("steady_steps_per_second")
        if speed:
            first = entry.get("first_update_seconds") or entry["start_to_first_update_seconds"]
            name, engine = (entry["name"], entry["compile"]) if "compile" in entry else (part, entry["system"])
            # JAX's default on a GPU.
            rows.append((name, engine, entry.get("precision", "TF32"), f"{speed:,.0f}", f"{first:.1f}"))
    return f"{said}\n\n{grid('workload | engine | precision | steps/s | first update s', rows)}"


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "peers": peers,
    "policies": policies,
    "jax": jax,
    "limits": limits,
    "widths": widths,
    "engines": engines,
    "environments": environments,
    "hosts": hosts,
    "schedules": schedules,
    "start": start,
    "machine": machine,
}


def draw_peers(results: dict[str, Any], path: Path) -> None:
    workloads = results["throughput"]["results"]
    figure, axes = plt.subplots(1, len(workloads), figsize=(4 * len(workloads), 3.2), layout="constrained")
    for axis, (workload, rounds) in zip(axes, workloads.items(), strict=True):
        speeds = {}
        for name in rounds[0]:
            found = [entry[name].get("steady_steps_per_second") for entry in rounds]
            if all(found):
                speeds[name] = statistics.median(found)
        colours = ["#c44e52" if name.startswith("esper") else "#8c8c8c" for name in speeds]
        bars = axis.barh(list(speeds), list(speeds.values()), color=colours)
        axis.bar_label(bars, [f"{speed:,.0f}" for speed in speeds.values()], padding=3, fontsize=8)
        axis.set(title=TITLES[workload], xlabel="environment steps per second", xlim=(0, 1.25 * max(speeds.values())))
        axis.title.set_fontsize(9)
        axis.locator_params(axis="x", nbins=4)
        axis.invert_yaxis()
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def draw_scaling(results: dict[str, Any], path: Path) -> None:
    points, alone = results["scaling"]["environments"], results["scaling"]["environment_only"]
    figure, axis = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for threads, colour in zip(sorted({point["threads"] for point in points}), ("#dd8452", "#c44e52"), strict=False):
        mine = [point for point in points if point["threads"] == threads]
        envs = [point["num_envs"] for point in mine]
        train = [point["train_steps_per_second"] for point in mine]
        limit = [point["train_steps_per_second"] / point["train_share_of_matrix_product"] for point in mine]
        label = f"{threads} thread{'s' * (threads > 1)}"
        axis.plot(envs, train, "o-", color=colour, label=f"training, {label}")
        axis.plot(envs, limit, "--", color=colour, label=f"arithmetic limit, {label}")
    axis.plot(
        [int(number) for number in alone],
        [speeds["CartPole-v1"] for speeds in alone.values()],
        ":",
        color="#4c72b0",
        label="Gymnasium's CartPole alone, nothing learned",
    )
    axis.set(xscale="log", yscale="log", xlabel="environments", ylabel="environment steps per second")
    axis.set_title("torch/CartPole-v1, 128 steps, 4 epochs x 4 minibatches, two networks of 64x64", fontsize=10)
    axis.grid(alpha=0.3, which="both")
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    matplotlib.use("Agg")
    results = json.loads((DOCS / "performance.json").read_text())
    on_gpu = DOCS / "performance-gpu.json"
    tables = {name: table(results) for name, table in TABLES.items()}
    tables["gpu"] = gpu(json.loads(on_gpu.read_text()) if on_gpu.exists() else None)
    fill(DOCS / "performance.md", tables)
    draw_peers(results, DOCS / "images" / "performance-peers.png")
    draw_scaling(results, DOCS / "images" / "performance-scaling.png")


if __name__ == "__main__":
    main()
