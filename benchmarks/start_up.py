"""How long a run takes from the start of its process to its first step.

    python benchmarks/start_up.py                                # the embedded tasks
    python benchmarks/start_up.py --rounds 5 experiment=glue_core_minilm data.mirror=…

What is not an option goes to train.py. A round before those that count tokenizes the texts, unless
an earlier run has done so. Each process is killed when it has said in status.json how many steps it
will take.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from multiprune.runs.status import read_status

TRAIN = Path(__file__).parents[1] / "train.py"


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    options, overrides = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as name:
        rounds = [
            started(Path(name) / str(number), overrides) for number in range(options.rounds + 1)
        ]
    table = Table("to the first step", "median s", "lowest", "highest")
    for number, label in enumerate(("wall time", "processor time")):
        seconds = [one[number] for one in rounds[1:]]
        numbers = (statistics.median(seconds), min(seconds), max(seconds))
        table.add_row(label, *(f"{one:.1f}" for one in numbers))
    Console().print(table)


def started(folder: Path, overrides: list[str]) -> tuple[float, float]:
    """Return wall and processor time until a run in ``folder`` begins to train, and end it."""
    start = time.perf_counter()
    command = [sys.executable, str(TRAIN), f"hydra.run.dir={folder}", *overrides]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while not has_begun(folder):
            if process.poll() is not None:
                raise SystemExit(f"The run must train, but ended with {process.returncode}.")
            time.sleep(0.02)
        seconds = time.perf_counter() - start
        process.kill()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return seconds, usage.ru_utime + usage.ru_stime


def has_begun(folder: Path) -> bool:
    """Whether the run in ``folder`` knows how many steps it will take."""
    status = read_status(folder)
    return status is not None and status.total_steps is not None


if __name__ == "__main__":
    main()
