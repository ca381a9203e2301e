"""How long exact ranking takes: 85 M scores in BERT-base's shapes, keeping a tenth.

    python benchmarks/ranking.py
    python benchmarks/ranking.py --device cuda

``keep_largest`` (masks for all tensors) beside what it does without: ``torch.kthvalue``, a full
sort, and ``torch.nn.utils.prune``'s way, ``topk`` of all scores in one tensor. Medians of
interleaved runs; the same threshold from each is asserted.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import TYPE_CHECKING

import torch
from rich.console import Console
from rich.table import Table

from multiprune.pruning.select import keep_largest, kth_largest

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.manual_seed(0)
    shapes = [(768, 768)] * 48 + [(768, 3072)] * 24
    scores = [torch.randn(shape, device=options.device) for shape in shapes]
    count = sum(score.numel() for score in scores) // 10
    ways = contenders(scores, count)
    check(scores, count)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds + 1):
        for name, way in ways.items():
            start = now(options.device)
            way()
            times[name].append(now(options.device) - start)
    table = Table("way", "seconds (median)", "slowest")
    for name, seconds in times.items():
        table.add_row(name, f"{statistics.median(seconds[1:]):.3f}", f"{max(seconds[1:]):.3f}")
    Console().print(table)


def contenders(scores: list[Tensor], count: int) -> dict[str, Callable[[], object]]:
    """Return the ways to rank, ours first."""

    def flat() -> Tensor:
        return torch.cat([score.flatten() for score in scores])

    return {
        "keep_largest": lambda: keep_largest(scores, count),
        "torch.kthvalue": lambda: flat().kthvalue(flat().numel() - count + 1),
        "torch.topk": lambda: flat().topk(count),
        "torch.sort": lambda: flat().sort(descending=True),
    }


def check(scores: list[Tensor], count: int) -> None:
    """Assert that our threshold is that of a full sort, and that the masks keep ``count``."""
    flat = torch.cat([score.flatten() for score in scores])
    expected = flat.sort(descending=True).values[count - 1]
    assert torch.equal(kth_largest(scores, count), expected)
    assert sum(int(mask.count_nonzero()) for mask in keep_largest(scores, count)) == count


def now(device: str) -> float:
    """Return the time once the device has done what it was asked for."""
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
