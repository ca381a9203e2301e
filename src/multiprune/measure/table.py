"""The tables of a benchmark."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from multiprune.measure.speed_up import allowed_speed_up, speed_ups

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from multiprune.measure.contestant import Cost
    from multiprune.measure.latency import Latency
    from multiprune.measure.speed_up import SpeedUp

#: What tables take where no terminal says how much there is.
WIDTH = 100

#: Marks a speed-up that is above what is allowed.
DISTURBED = "*"

#: The fraction of zeros below which they are chance, such as the row of the padding token.
FEW_ZEROS = 0.01


def print_machine(machine: Mapping[str, Any]) -> None:
    """Print what was measured on."""
    gpu = f"; {machine['gpu']}" if machine["gpu"] else ""
    _sentence(
        f"{machine['processor']}, {machine['threads']} threads{gpu}; torch {machine['torch']}, "
        f"transformers {machine['transformers']}. Encoders only, without heads and tokenizer."
    )


def print_costs(costs: Sequence[Cost], batch: int, length: int) -> None:
    """Print size and memory; and plainly what element-wise zeros are not worth."""
    table = Table(title=f"size, and peak memory at batch {batch}, length {length}")
    table.add_column("model", overflow="fold")
    devices = list(costs[0].peak_bytes)
    peaks = [f"peak MB, {device}" for device in devices]
    counts = ("parameters", "without\nembeddings", "non-zero")
    for column in (*counts, "MB on disk", *peaks):
        table.add_column(column, justify="right")
    for cost in costs:
        table.add_row(
            escape(cost.model),
            f"{cost.parameters:,}",
            f"{cost.without_embeddings:,}",
            f"{cost.nonzero:,}",
            _megabytes(cost.bytes),
            *(_megabytes(cost.peak_bytes[device]) for device in devices),
        )
    _console().print(table)
    for cost in costs:
        if cost.zero_fraction > FEW_ZEROS:
            _sentence(
                f"element-wise zeros do not speed up dense kernels: {cost.zero_fraction:.0%} of "
                f"the parameters of {cost.model} are zero, and take as long as any other"
            )


def print_latencies(costs: Sequence[Cost], latencies: Sequence[Latency]) -> None:
    """Print the times by one backend, and the speed-up beside that of counted multiply-adds."""
    table = Table("batch x\nlength", title=latencies[0].backend)
    table.add_column("model", overflow="fold")
    columns = ("multiply-\nadds, G", "median\nms", "p90\nms", "examples\nper s")
    for column in (*columns, "speed-up", "allowed"):
        table.add_column(column, justify="right")
    by_name, ratios = {cost.model: cost for cost in costs}, speed_ups(costs, latencies)
    for size, group in groupby(latencies, lambda one: one.size):
        for one in group:
            cost = by_name[one.model]
            table.add_row(
                f"{size.batch} x {size.length}",
                escape(one.model),
                f"{cost.multiply_adds[size] / 1e9:.4g}",
                *_times(one, ratios.get(one)),
                f"{allowed_speed_up(cost, by_name[cost.dense], size):.2f}",
            )
        table.add_section()
    _console().print(table)
    if any(one.is_disturbed for one in ratios.values()):
        _sentence(
            f"{DISTURBED} more than multiply-adds and bytes of weights allow: another process "
            "disturbed the dense model, or only the smaller one fits into a cache; measure again"
        )
    failures = {(one.model, one.failure): one for one in latencies if one.failure}
    for one in failures.values():
        _sentence(f"{one.backend} failed with {one.model}: {one.failure}")


def _times(latency: Latency, ratio: SpeedUp | None) -> list[str]:
    if latency.failure:
        return ["failed", "", "", ""]
    return [
        f"{1e3 * latency.median:.2f}",
        f"{1e3 * latency.p90:.2f}",
        f"{latency.examples_per_second:.1f}",
        "" if ratio is None else f"{ratio.measured:.2f}{DISTURBED * ratio.is_disturbed}",
    ]


def _megabytes(count: int | None) -> str:
    return "not measured" if count is None else f"{count / 1e6:.1f}"


def _console() -> Console:
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, WIDTH)
    return console


def _sentence(text: str) -> None:
    _console().print(text, soft_wrap=True, markup=False, highlight=False)
