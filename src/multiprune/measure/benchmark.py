"""Benchmark pruned models against their dense models."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import version
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console

from multiprune.arguments import check_number
from multiprune.measure.contestant import contestants, cost_of
from multiprune.measure.latency import Size, time_models
from multiprune.measure.speed_up import speed_ups
from multiprune.measure.table import print_costs, print_latencies, print_machine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multiprune.measure.backends import Backend
    from multiprune.measure.contestant import Contestant, Cost
    from multiprune.measure.latency import Latency
    from multiprune.models.encoder import Encoder


@dataclass(frozen=True)
class Benchmark:
    """What came out; costs and latencies name their models."""

    machine: dict[str, Any]
    costs: list[Cost]
    latencies: list[Latency]

    def as_json(self) -> dict[str, Any]:
        """Return all of it for ``benchmark.json``, with every single time."""
        speed = {
            latency: {
                "speed_up": one.measured,
                "allowed": one.allowed,
                "disturbed": one.is_disturbed,
            }
            for latency, one in speed_ups(self.costs, self.latencies).items()
        }
        return {
            "machine": self.machine,
            "models": [_cost_as_json(cost) for cost in self.costs],
            "latencies": [_latency_as_json(one) | speed.get(one, {}) for one in self.latencies],
        }


def report(
    paths: Sequence[Path],
    *,
    batches: Sequence[int],
    lengths: Sequence[int],
    rounds: int,
    backends: Sequence[Backend],
    json: Path | None,
) -> None:
    """Measure encoders of shipped models beside their dense ones; print tables, write ``json``.

    ``paths`` are folders of finished runs or of exported models.

    Raises:
        FileNotFoundError: if a folder has no model in it, or ``json`` has no folder.
        ValueError: if there is nothing to measure, or a length exceeds a model's positions.
    """
    _check(paths, batches, lengths, rounds, backends)
    if json is not None and not json.parent.is_dir():
        raise FileNotFoundError(f"The folder of {json} does not exist.")
    sizes = [Size(batch, length) for batch in batches for length in lengths]
    measured = benchmark(paths, sizes, rounds, backends)
    print_machine(measured.machine)
    print_costs(measured.costs, max(batches), max(lengths))
    for backend in backends:
        if by_it := [one for one in measured.latencies if one.backend == backend.name]:
            print_latencies(measured.costs, by_it)
    if json is not None:
        json.write_text(dumps(measured.as_json(), indent=2) + "\n")


def benchmark(
    paths: Sequence[Path], sizes: Sequence[Size], rounds: int, backends: Sequence[Backend]
) -> Benchmark:
    """Measure shipped models, and the dense model of each configuration."""
    compared = contestants(paths, sizes)
    devices = sorted({backend.device for backend in backends})
    console = Console(stderr=True)
    console.print(f"Counting {len(compared)} models, and measuring their memory.")
    costs = [cost_of(one, sizes, devices) for one in compared]
    latencies: list[Latency] = []
    for backend in backends:
        encoders = _run_by(backend, compared)
        if not encoders:
            console.print(f"Skipping {backend.name}, which cannot run ONNX files.")
            continue
        console.print(f"Timing {backend.name}: rounds: {rounds}, sizes: {len(sizes)}.")
        latencies += time_models(encoders, backend, sizes, rounds)
    return Benchmark(machine(), costs, latencies)


def _run_by(backend: Backend, compared: Sequence[Contestant]) -> dict[str, Encoder]:
    """Return the models that a backend runs, and the dense model of each."""
    run = [one for one in compared if one.folder is not None and backend.runs(one.encoder)]
    named = {name for one in run for name in (one.name, one.dense)}
    return {one.name: one.encoder for one in compared if one.name in named}


def machine() -> dict[str, Any]:
    """Describe what was measured on."""
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "transformers": version("transformers"),
    }


def _check(
    paths: Sequence[Path],
    batches: Sequence[int],
    lengths: Sequence[int],
    rounds: int,
    backends: Sequence[Backend],
) -> None:
    for name, values in (("paths", paths), ("backends", backends)):
        if not values:
            raise ValueError(f"`{name}` must name at least one, but is empty.")
    if len({str(path) for path in paths}) < len(paths):
        raise ValueError(f"The paths are not distinct: {', '.join(map(str, paths))}.")
    for name, numbers in (("batches", batches), ("lengths", lengths), ("rounds", [rounds])):
        if not numbers:
            raise ValueError(f"`{name}` must name at least one, but is empty.")
        for number in numbers:
            check_number(name, number, at_least=1, whole=True)


def _processor() -> str:
    description = Path("/proc/cpuinfo")
    lines = description.read_text().splitlines() if description.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _cost_as_json(cost: Cost) -> dict[str, Any]:
    counts = [
        {"batch": size.batch, "length": size.length, "multiply_adds": count}
        for size, count in cost.multiply_adds.items()
    ]
    return vars(cost) | {"multiply_adds": counts}


def _latency_as_json(latency: Latency) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "model": latency.model,
        "backend": latency.backend,
        "batch": latency.size.batch,
        "length": latency.size.length,
    }
    if latency.failure:
        return shown | {"failure": latency.failure}
    return shown | {
        "median_ms": 1e3 * latency.median,
        "p90_ms": 1e3 * latency.p90,
        "examples_per_second": latency.examples_per_second,
        "seconds": list(latency.seconds),
    }
