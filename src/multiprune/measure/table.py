"""The tables of a benchmark."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from multiprune.measure.contestant import Cost
    from multiprune.measure.latency import Latency, Size


def print_machine(machine: Mapping[str, Any]) -> None:
    """Print what was measured on."""
    gpu = f"; {machine['gpu']}" if machine["gpu"] else ""
    Console().print(
        f"{machine['processor']}, {machine['threads']} threads{gpu}; torch {machine['torch']}, "
        f"transformers {machine['transformers']}. Encoders only, without heads and tokenizer.",
        highlight=False,
    )


def print_costs(costs: Sequence[Cost], batch: int, length: int) -> None:
    """Print size and memory; and plainly what element-wise zeros are not worth."""
    console = Console()
    table = Table("model", title=f"peak memory at batch {batch}, length {length}")
    devices = list(costs[0].peak_bytes)
    peaks = ["peak MB" if device == "cpu" else f"peak MB {device}" for device in devices]
    for column in ("parameters", "non-zero", "MB on disk", *peaks):
        table.add_column(column, justify="right")
    for cost in costs:
        table.add_row(
            escape(cost.model),
            f"{cost.parameters:,}",
            f"{cost.nonzero:,}",
            _megabytes(cost.bytes),
            *(_megabytes(cost.peak_bytes[device]) for device in devices),
        )
    console.print(table)
    for cost in costs:
        if cost.zeros_in_dense_shapes:
            console.print(
                f"element-wise zeros do not speed up dense kernels: {cost.model} runs as fast as "
                "the dense model",
                soft_wrap=True,
                markup=False,
                highlight=False,
            )


def print_latencies(costs: Sequence[Cost], latencies: Sequence[Latency], size: Size) -> None:
    """Print the times of one size, and the speed-up beside that of counted multiply-adds."""
    console = Console()
    table = Table("backend", "model", title=f"batch {size.batch}, length {size.length}")
    columns = ("G multiply-adds", "median ms", "p90 ms", "examples/s", "speed-up", "allowed")
    for column in columns:
        table.add_column(column, justify="right")
    by_name = {cost.model: cost for cost in costs}
    times = {(one.backend, one.model): one for one in latencies}
    for one in latencies:
        cost = by_name[one.model]
        dense = times[one.backend, cost.dense]
        counted = cost.multiply_adds[size]
        allowed = by_name[cost.dense].multiply_adds[size] / counted
        table.add_row(
            one.backend,
            escape(one.model),
            f"{counted / 1e9:.4g}",
            *_times(one, dense),
            f"{allowed:.2f}",
        )
    console.print(table)
    for one in latencies:
        if one.failure:
            console.print(
                f"{one.backend} failed with {one.model}: {one.failure}",
                soft_wrap=True,
                markup=False,
                highlight=False,
            )


def _times(latency: Latency, dense: Latency) -> list[str]:
    if latency.failure:
        return ["failed", "", "", ""]
    return [
        f"{1e3 * latency.median:.2f}",
        f"{1e3 * latency.p90:.2f}",
        f"{latency.examples_per_second:.1f}",
        "" if dense.failure else f"{dense.median / latency.median:.2f}",
    ]


def _megabytes(count: int | None) -> str:
    return "not measured" if count is None else f"{count / 1e6:.1f}"
