"""Whether long runs stay as they began: memory, open files, threads, disk space and speed.

    python benchmarks/soak.py                                    # every pruner, one after another
    python benchmarks/soak.py --steps 2000 --pruners movement structured

One ``train.py`` a pruner, of a very small encoder on the embedded tasks. Its process and its folder
are looked at from outside each time that ``status.json`` is written anew. Figures are written as
soon as a pruner has finished; one that has good figures of as many steps is left out the next time.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from small_runs import (
    FIXED,
    MASKS_FROM,
    QUIET,
    RESULTS,
    TRAIN,
    pruned_by,
    pruners,
    rows,
    write_results,
)

from multiprune.runs.status import read_status

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: Of what the budget counts, so that of two heads one stays.
FRACTION = 0.3

#: Megabytes by which memory may grow between a quarter of a run and its end.
MAY_GROW = 16.0

TINY = (
    *QUIET,
    *("encoder=from_scratch", "encoder.layers=1", "encoder.hidden=16", "encoder.heads=2"),
    *("encoder.intermediate=32", "data.batch_size=8", "data.max_length=32"),
    *("trainer.max_epochs=-1", "trainer.check_val_every_n_epoch=10"),
    *rows(train=400, validation=32, test=32),
)


#: By pruner: whole layers are dropped where there are others.
FURTHER = {"structured_l0": ("encoder.layers=2",)}


@dataclass(frozen=True)
class Sample:
    """What a run takes at one moment."""

    seconds: float
    step: int
    memory_mb: float
    open_files: int
    threads: int
    folder_mb: float
    folder_files: int


def main() -> None:
    """Measure, print the table, and end with 1 if something does not stay as it was."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--pruners", nargs="+", choices=pruners(), default=pruners())
    parser.add_argument("--json", type=Path, default=RESULTS / "soak.json")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    found = earlier(options.json, options.steps)
    for name in options.pruners:
        if name not in found:
            with tempfile.TemporaryDirectory() as folder:
                found[name] = soaked(name, options.steps, Path(folder))
            write_results(options.json, {"steps": options.steps, "pruners": found})
            Console().print(f"{name}: {', '.join(found[name]['wrong']) or 'as it began'}")
    Console(width=120).print(table({name: found[name] for name in options.pruners}))
    raise SystemExit(any(found[name]["wrong"] for name in options.pruners))


def earlier(file: Path, steps: int) -> dict[str, Any]:
    """Return the good figures that an earlier call with as many steps has left, by pruner."""
    content = json.loads(file.read_text()) if file.exists() else {}
    found: dict[str, Any] = content["pruners"] if content.get("steps") == steps else {}
    return {name: figures for name, figures in found.items() if not figures["wrong"]}


def soaked(name: str, steps: int, folder: Path) -> dict[str, Any]:
    """Run one pruner; return its samples, its figures, and what is wrong with them."""
    masks_from = folder / "masks"
    if name == FIXED:
        short = ["trainer.max_steps=200", *pruned_by(MASKS_FROM, masks_from, fraction=FRACTION)]
        subprocess.run(command(masks_from, short), check=True, stdout=subprocess.DEVNULL)
    run = folder / name
    long = [f"trainer.max_steps={steps}", *pruned_by(name, masks_from, fraction=FRACTION)]
    long += FURTHER.get(name, ())
    started = time.perf_counter()
    with subprocess.Popen(command(run, long), stdout=subprocess.DEVNULL) as process:
        samples = list(sampled(process, run))
    if process.returncode != 0:
        return {"wrong": [f"exit status {process.returncode}"]}
    figures = figures_of(samples, steps) | {"seconds": round(time.perf_counter() - started, 1)}
    budget = json.loads((run / "results.json").read_text())["budget"]
    wrong = [*what_grew(figures), *what_is_not_finite(run)]
    if budget["kept"] > budget["asked"]:
        wrong.append(f"kept {budget['kept']:,}, asked for {budget['asked']:,}")
    series = [asdict(sample) for sample in samples]
    return {"wrong": wrong, **figures, "budget": budget, "samples": series}


def command(run: Path, settings: Sequence[str]) -> list[str]:
    """Return the command of a run of the very small encoder."""
    return [sys.executable, str(TRAIN), f"hydra.run.dir={run}", *TINY, *settings]


def sampled(process: subprocess.Popen[bytes], run: Path) -> Iterator[Sample]:
    """Look at a run whenever it has told anew how far it is, once it trains."""
    started, updated = None, ""
    while process.poll() is None:
        time.sleep(0.2)
        status = read_status(run)
        if status is None or status.updated == updated or not status.step:
            continue
        updated = status.updated
        at = datetime.fromisoformat(updated)
        started = started or at
        try:
            yield sample(process.pid, run, (at - started).total_seconds(), status.step)
        except FileNotFoundError:
            # It ends, or a checkpoint takes the place of another: the next look sees more.
            continue


def sample(pid: int, run: Path, seconds: float, step: int) -> Sample:
    """Return what a process and its folder take now, as Linux counts it."""
    proc = Path("/proc") / str(pid)
    lines = (line.split() for line in (proc / "status").read_text().splitlines())
    told = {name.rstrip(":"): values for name, *values in lines}
    if "RssAnon" not in told:
        raise FileNotFoundError(f"{proc} must be of a living process.")
    sizes = [file.stat().st_size for file in run.rglob("*") if file.is_file()]
    return Sample(
        seconds=round(seconds, 2),
        step=step,
        # Without what is mapped from files, of which the system takes back what it needs.
        memory_mb=round((int(told["RssAnon"][0]) + int(told["VmSwap"][0])) / 1024, 1),
        open_files=len(list((proc / "fd").iterdir())),
        threads=int(told["Threads"][0]),
        folder_mb=round(sum(sizes) / 1e6, 3),
        folder_files=len(sizes),
    )


def figures_of(samples: Sequence[Sample], steps: int) -> dict[str, float]:
    """Return how memory grows after a quarter of a run, and what differs in its last quarter.

    By then the schedule has come to its end, and the best weights have got a file. What is written
    once the last step is done is left out.
    """
    training = [one for one in samples if steps / 4 <= one.step < steps]
    early = [one for one in training if 0.75 * steps <= one.step < 0.85 * steps]
    late = [one for one in training if 0.9 * steps <= one.step]
    if len(early) < 2 or len(late) < 2:
        raise SystemExit("A run must be looked at twice in a tenth of it: raise --steps.")
    steps_done, memory = zip(*((one.step, one.memory_mb) for one in training), strict=True)
    slope, _ = statistics.linear_regression(steps_done, memory)
    return {
        "memory_mb": late[-1].memory_mb,
        "memory_mb_per_1000_steps": round(1000 * slope, 3),
        "memory_growth_mb": round(slope * 0.75 * steps, 2),
        **{
            f"{name}_{when}": statistics.median(getattr(one, name) for one in those)
            for name in ("open_files", "threads", "folder_files", "folder_mb")
            for when, those in (("early", early), ("late", late))
        },
        "steps_per_second_early": speed(early),
        "steps_per_second_late": speed(late),
    }


def speed(samples: Sequence[Sample]) -> float:
    """Return steps a second between the first and the last sample."""
    first, last = samples[0], samples[-1]
    return round((last.step - first.step) / (last.seconds - first.seconds), 1)


def what_grew(figures: dict[str, float]) -> list[str]:
    """Return what does not stay as it was; the folder may grow by the curves, in few files."""
    wrong = [
        f"{name}: {figures[f'{name}_early']}, later {figures[f'{name}_late']}"
        for name in ("open_files", "threads", "folder_files")
        if figures[f"{name}_late"] > figures[f"{name}_early"]
    ]
    if figures["memory_growth_mb"] > MAY_GROW:
        wrong.append(f"memory grew by {figures['memory_growth_mb']} MB")
    return wrong


def what_is_not_finite(run: Path) -> list[str]:
    """Return the curves and the weights in which something is infinite or no number."""
    with (run / "metrics.csv").open(newline="") as file:
        curves = {
            name
            for row in csv.DictReader(file)
            for name, cell in row.items()
            if cell and not math.isfinite(float(cell))
        }
    weights = [
        name
        for name, weight in load_file(run / "model" / "model.safetensors").items()
        if weight.is_floating_point() and not weight.isfinite().all()
    ]
    return [f"{name} is not finite" for name in sorted(curves) + weights]


def table(found: dict[str, Any]) -> Table:
    """Return the table of the figures."""
    shown = Table()
    shown.add_column("pruner", no_wrap=True)
    for column in ("MB", "MB grown", "files", "threads", "folder MB", "steps/s", "kept", "wrong"):
        shown.add_column(column, justify="right")
    for name, figures in found.items():
        if "budget" not in figures:
            shown.add_row(name, *[""] * 7, ", ".join(figures["wrong"]))
            continue
        pairs = [
            f"{figures[f'{key}_early']:g}, {figures[f'{key}_late']:g}"
            for key in ("open_files", "threads", "folder_mb", "steps_per_second")
        ]
        kept = f"{figures['budget']['kept']:,} of {figures['budget']['asked']:,}"
        numbers = (f"{figures['memory_mb']:.0f}", f"{figures['memory_growth_mb']:+.1f}")
        shown.add_row(name, *numbers, *pairs, kept, ", ".join(figures["wrong"]) or "-")
    return shown


if __name__ == "__main__":
    main()
