"""How long the best allocation takes: 10 tasks, 20 sizes each, one budget.

    python benchmarks/allocation.py
    python benchmarks/allocation.py --tasks 20 --sizes 30

Sizes are arbitrary numbers up to that of BERT-base's linear weights. ``rising``: noisy curves that
flatten, as scores against size do. ``unordered``: scores at random. ``proportional``: scores
proportional to sizes, where no combination beats another, the worst case. The median and the
slowest of so many draws.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
from rich.console import Console
from rich.table import Table

from multiprune.budget.allocation import Option, best_split

LARGEST = 84_934_656


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", type=int, default=10)
    parser.add_argument("--sizes", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    table = Table("curves", "seconds (median)", "slowest")
    for kind in ("rising", "unordered", "proportional"):
        seconds = []
        for seed in range(options.rounds):
            curves = drawn(kind, options.tasks, options.sizes, seed)
            start = time.perf_counter()
            chosen = best_split(curves, LARGEST * options.tasks // 3)
            seconds.append(time.perf_counter() - start)
            assert sum(one.size for one in chosen.values()) <= LARGEST * options.tasks // 3
        table.add_row(kind, f"{statistics.median(seconds):.4f}", f"{max(seconds):.4f}")
    Console().print(table)


def drawn(kind: str, tasks: int, sizes: int, seed: int) -> dict[str, list[Option]]:
    """Draw the trained sizes and scores of each task."""
    generator = np.random.default_rng(seed)
    curves = {}
    for task in range(tasks):
        size = np.sort(generator.integers(1, LARGEST, sizes))
        score = {
            "rising": 1 - np.exp(-4 * size / LARGEST) / 2 + generator.normal(0, 0.01, sizes),
            "unordered": generator.random(sizes),
            "proportional": size / LARGEST,
        }[kind]
        curves[f"task{task}"] = [Option(int(s), float(v)) for s, v in zip(size, score, strict=True)]
    return curves


if __name__ == "__main__":
    main()
