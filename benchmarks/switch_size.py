"""How long a model of many sizes takes to change its size, beside its forward passes.

    OMP_NUM_THREADS=1 python benchmarks/switch_size.py runs/every-size/sizes --clock process

The sizes take turns, in an order that is shuffled every round. Random tokens without padding;
prints medians.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from pathlib import Path

import torch

from multiprune.export.loading import load_sizes
from multiprune.measure.cost import tokens

CLOCKS = {"wall": time.perf_counter, "process": time.process_time}


@torch.no_grad()
def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sizes", type=Path, help="folder of a run, or its folder of sizes")
    parser.add_argument("--densities", type=float, nargs="+", default=[1.0, 0.8, 0.6, 0.4, 0.2])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="process: one thread only")
    options = parser.parse_args()
    model, clock = load_sizes(options.sizes), CLOCKS[options.clock]
    inputs = tokens(model.encoder.config, options.batch, options.length)
    switches: list[float] = []
    passes: dict[float, list[float]] = {density: [] for density in options.densities}
    turns = list(options.densities)
    for number in range(options.rounds):
        random.Random(number).shuffle(turns)
        for density in turns:
            start = clock()
            model.set_density(density)
            switched = clock()
            model.encoder(**inputs)
            switches.append(switched - start)
            passes[density].append(clock() - switched)
    print(f"changing the size: {1e3 * statistics.median(switches):.2f} ms")
    for density, times in passes.items():
        print(f"forward pass at {density}: {1e3 * statistics.median(times):.1f} ms")


if __name__ == "__main__":
    main()
