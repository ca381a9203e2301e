"""What a training step takes by how OpenMP's threads wait, on a quiet machine and on a shared one.

    python benchmarks/waiting_threads.py                    # nothing else runs
    python benchmarks/waiting_threads.py --busy 2           # two other processes compute, too

What is not an option goes to train.py. Settings take turns, a run of its own each, so that a
machine whose speed drifts does not favour one.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TRAIN = Path(__file__).parents[1] / "train.py"

#: What the environment of a run holds; iterations of a waiting thread before it sleeps, if any.
SETTINGS = {
    "spinning (libgomp's own choice)": {"GOMP_SPINCOUNT": "300000"},
    "spinning 10,000 times": {"GOMP_SPINCOUNT": "10000"},
    "spinning 1,000 times": {"GOMP_SPINCOUNT": "1000"},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"},
    "one thread": {"OMP_NUM_THREADS": "1"},
    "as train.py chooses": {},
}


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--busy", type=int, default=0, help="processes that compute meanwhile")
    options, overrides = parser.parse_known_args()
    overrides += [f"trainer.max_steps={options.steps}", "trainer.max_epochs=-1", "trainer=cpu"]
    seconds: dict[str, list[float]] = {name: [] for name in SETTINGS}
    with others(options.busy):
        for _ in range(options.rounds):
            for name, environment in SETTINGS.items():
                seconds[name].append(seconds_per_step(environment, overrides))
    table = Table("threads that wait", "median ms a step", "lowest", "highest", "of the first")
    first = statistics.median(next(iter(seconds.values())))
    for name, found in seconds.items():
        median = statistics.median(found)
        numbers = (f"{1000 * one:.1f}" for one in (median, min(found), max(found)))
        table.add_row(name, *numbers, f"{median / first:.2f}")
    Console().print(table)


def seconds_per_step(environment: dict[str, str], overrides: Sequence[str]) -> float:
    """Return what ``results.json`` of one run says."""
    chosen = {name for setting in SETTINGS.values() for name in setting} | {"OMP_WAIT_POLICY"}
    inherited = {name: value for name, value in os.environ.items() if name not in chosen}
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, str(TRAIN), f"hydra.run.dir={folder}/run", *overrides],
            env=inherited | environment,
            stdout=subprocess.DEVNULL,
            check=True,
        )
        results = json.loads((Path(folder) / "run" / "results.json").read_text())
    return float(results["seconds_per_step"])


@contextmanager
def others(count: int) -> Iterator[None]:
    """Keep so many other processes computing."""
    with ExitStack() as stack:
        for _ in range(count):
            process = subprocess.Popen([sys.executable, "-c", "while True: sum(range(10**6))"])
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield


if __name__ == "__main__":
    main()
