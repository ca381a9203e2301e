"""What a sweep of short jobs costs beyond the jobs: ``hydra/launcher=gpus`` beside the ideal.

    python benchmarks/sweep_overhead.py                          # jobs that sleep
    python benchmarks/sweep_overhead.py --train --workers 2      # tiny runs of train.py

The ideal is the time that the same jobs would take if each worker began its next one at once, and
everything were imported and composed beforehand. Beside it stands a new interpreter for each job,
so many at a time, as ``xargs -P`` would start them.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

TRAIN = Path(__file__).parents[1] / "train.py"

SLEEPER = """
import json, time
from pathlib import Path
import hydra
from hydra.core.hydra_config import HydraConfig

@hydra.main(version_base="1.3", config_path=None)
def main(config):
    start = time.time()
    time.sleep(config.seconds)
    folder = Path(HydraConfig.get().runtime.output_dir)
    (folder / "seconds.json").write_text(json.dumps(time.time() - start))

if __name__ == "__main__":
    main()
"""

SMALL = (
    *("task=agreement", "trainer=cpu", "trainer.enable_progress_bar=false"),
    "encoder=from_scratch",
    *("encoder.layers=1", "encoder.hidden=16", "encoder.heads=2", "encoder.intermediate=32"),
)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=16)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=5.0, help="that a job sleeps")
    parser.add_argument("--train", action="store_true", help="runs of train.py instead")
    parser.add_argument("--steps", type=int, default=300, help="of a run of train.py")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.train:
            command = [sys.executable, str(TRAIN), *SMALL, f"trainer.max_steps={options.steps}"]
            swept, preload = "seed", []
        else:
            (folder / "sleeper.py").write_text(SLEEPER)
            command = [sys.executable, str(folder / "sleeper.py"), f"+seconds={options.seconds}"]
            swept, preload = "+number", ["hydra.launcher.preload=[]"]
        launcher = ("hydra/launcher=gpus", f"hydra.launcher.workers={options.workers}", *preload)
        each = ",".join(map(str, range(options.jobs)))
        start = time.perf_counter()
        sweep = [*launcher, "hydra.mode=MULTIRUN", f"hydra.sweep.dir={folder}/sweep"]
        subprocess.run([*command, *sweep, f"{swept}={each}"], check=True, stdout=subprocess.DEVNULL)
        launched = time.perf_counter()
        separately(command, swept, folder / "alone", options)
        ended = time.perf_counter()
        ideal = packed(durations(folder / "sweep"), options.workers)
        ideal_alone = packed(durations(folder / "alone"), options.workers)
    table = Table(f"{options.jobs} jobs, {options.workers} at a time", "seconds", "ideal", "ratio")
    for label, seconds, best in (
        ("hydra/launcher=gpus", launched - start, ideal),
        ("an interpreter each", ended - launched, ideal_alone),
    ):
        table.add_row(label, f"{seconds:.1f}", f"{best:.1f}", f"{seconds / best:.3f}")
    Console().print(table)


def separately(command: list[str], swept: str, folder: Path, options: argparse.Namespace) -> None:
    """Run every job by a command of its own."""

    def run(number: int) -> None:
        own = [f"{swept}={number}", f"hydra.run.dir={folder}/{number}"]
        subprocess.run([*command, *own], check=True, stdout=subprocess.DEVNULL)

    with ThreadPoolExecutor(options.workers) as pool:
        list(pool.map(run, range(options.jobs)))


def durations(folder: Path) -> list[float]:
    """Return how long each job took by its own clock, in the order of their numbers."""
    jobs = sorted((one for one in folder.iterdir() if one.is_dir()), key=lambda one: int(one.name))
    return [duration(job) for job in jobs]


def duration(job: Path) -> float:
    """Return the seconds between a job's beginning and end, start-up not included."""
    if (job / "seconds.json").exists():
        return float(json.loads((job / "seconds.json").read_text()))
    status = json.loads((job / "status.json").read_text())
    started, ended = (datetime.fromisoformat(status[key]) for key in ("started", "updated"))
    return (ended - started).total_seconds()


def packed(seconds: list[float], workers: int) -> float:
    """Return when the last job ends if the next one always begins where one has ended."""
    busy_until = [0.0] * workers
    for one in seconds:
        heapq.heapreplace(busy_until, busy_until[0] + one)
    return max(busy_until)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
