"""How small pruned weights are on disk, and how fast they come back, against the entropy bound.

    python benchmarks/bitmask_storage.py
    python benchmarks/bitmask_storage.py --dtype bfloat16 --rounds 9

A file of random masks over BERT-base's 768 x 3072 matrices is saved and loaded per density; sizes
are of the whole file, header included. The bound is n H(d) / 8 + n d times the bytes of a weight, H
the binary entropy in bits at the density found. Densities take turns, in an order that is shuffled
every round. One core; MB are of dense weights, from and to the page cache. On a machine that is
shared, seconds of the processor say more than those of the clock, so that decoding has both. Last
comes a dense safetensors file, its tensors copied out. That what is loaded is what was saved, bit
for bit, is asserted every time.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file, save_file

from multiprune.export.bitmask import load_bitmask, save_bitmask

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

DENSITIES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)


@dataclass
class Contestant:
    """Tensors, the file that they are saved to, and how long saving and loading took."""

    tensors: dict[str, Tensor]
    file: Path
    save: Callable[[dict[str, Tensor], Path], None]
    load: Callable[[Path], dict[str, Tensor]]
    saving: list[float] = field(default_factory=list)
    loading: list[float] = field(default_factory=list)
    loading_processor: list[float] = field(default_factory=list)

    def turn(self) -> None:
        """Save and load once, and time both."""
        start = time.perf_counter()
        self.save(self.tensors, self.file)
        saved, spent = time.perf_counter(), time.process_time()
        loaded = self.load(self.file)
        self.loading.append(time.perf_counter() - saved)
        self.loading_processor.append(time.process_time() - spent)
        self.saving.append(saved - start)
        assert loaded.keys() == self.tensors.keys()
        for name, tensor in self.tensors.items():
            assert torch.equal(loaded[name].view(torch.uint8), tensor.view(torch.uint8))

    def bytes(self) -> int:
        """Return how many bytes the dense weights take."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def bound(self) -> float:
        """Return n H(d) / 8 + n d times the bytes of a weight."""
        size = sum(tensor.numel() for tensor in self.tensors.values())
        count = sum(int(tensor.count_nonzero()) for tensor in self.tensors.values())
        entropy = -sum(p * math.log2(p) for p in (count / size, 1 - count / size) if p)
        return size * entropy / 8 + self.bytes() * count / size


def pruned(density: float, matrices: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return random weights of which ``density`` are kept, at random places."""
    return {
        f"layer.{number}.weight": torch.randn(768, 3072)
        .masked_fill_(torch.rand(768, 3072) >= density, 0.0)
        .to(dtype)
        for number in range(matrices)
    }


def load_dense(file: Path) -> dict[str, Tensor]:
    """Load a dense file, and copy what it maps, so that every byte is read."""
    return {name: tensor.clone() for name, tensor in load_file(file).items()}


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], default="float32")
    parser.add_argument("--matrices", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    dtype = getattr(torch, options.dtype)
    with tempfile.TemporaryDirectory() as folder:
        contestants = entrants(Path(folder), options.matrices, dtype)
        turns = list(contestants.values())
        for number in range(options.rounds + 1):
            random.Random(number).shuffle(turns)
            for one in turns:
                one.turn()
        report(contestants)


def entrants(folder: Path, matrices: int, dtype: torch.dtype) -> dict[str, Contestant]:
    """Return one contestant a density, and a dense file."""
    sparse = {
        f"{density}": Contestant(
            pruned(density, matrices, dtype),
            folder / f"{density}.safetensors",
            save_bitmask,
            load_bitmask,
        )
        for density in DENSITIES
    }
    dense = Contestant(
        pruned(1.0, matrices, dtype), folder / "dense.safetensors", save_file, load_dense
    )
    return sparse | {"dense file": dense}


def report(contestants: dict[str, Contestant]) -> None:
    """Print sizes and medians, leaving out the first round, which warms up."""
    table = Table("density")
    sizes = ("MB", "bound MB", "ratio", "of dense")
    for column in (*sizes, "encode MB/s", "decode MB/s", "decode MB/CPU s"):
        table.add_column(column, justify="right")
    for name, one in contestants.items():
        size, bound, dense = one.file.stat().st_size, one.bound(), one.bytes()
        measured = (one.saving, one.loading, one.loading_processor)
        table.add_row(
            name,
            f"{size / 1e6:.3f}",
            f"{bound / 1e6:.3f}",
            f"{size / bound:.4f}",
            f"{size / dense:.3f}",
            *(f"{dense / 1e6 / statistics.median(seconds[1:]):.0f}" for seconds in measured),
        )
    Console().print(table)


if __name__ == "__main__":
    main()
