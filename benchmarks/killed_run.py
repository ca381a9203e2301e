"""Starts runs of the embedded encoder, and kills them."""

from __future__ import annotations

import multiprocessing
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from same_run import differences, files
from small_runs import QUIET, TRAIN, pruned_by, rows
from watched_run import Timeline, Watch

from multiprune.launching.processes import warm_up
from multiprune.runs.status import read_status

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_SMALL = (
    *QUIET,
    *("trainer.max_epochs=2", "trainer.log_every_n_steps=1", "rank_every_n_steps=2"),
    *("data.batch_size=16", "checkpoint.every_n_steps=5"),
    *rows(train=32, validation=16, test=16),
)
_SECONDS_BETWEEN_LOOKS = 0.004
_HALF_WRITTEN = re.compile(r".+\.writing$|\.(tmp|model-|sizes-)")


@dataclass(frozen=True)
class Moment:
    """When a run is killed: after a share of a part; which checkpoint, or which part of the end."""

    part: str
    share: float
    which: float


@dataclass(frozen=True)
class Killed:
    """When a run was to be killed, and what was seen of it then; ``left`` is half written."""

    aimed_at: Moment
    part: str
    seconds: float
    step: int
    left: list[str]

    def __str__(self) -> str:
        left = f", {', '.join(self.left)} half written" if self.left else ""
        return f"{self.part} (step {self.step}, {self.seconds:.2f} s of computing{left})"


@dataclass(frozen=True)
class Process:
    """A run that was started, however that was."""

    pid: int
    kill: Callable[[], None]
    wait: Callable[[], int]
    poll: Callable[[], int | None]


class Runner:
    """Starts runs, each with a cache of its own beside its folder, which is empty at first.

    Args:
        masks_from: the run whose masks the pruner that takes those of another run takes.
    """

    def __init__(self, masks_from: Path) -> None:
        self._masks_from = masks_from
        self._imports: float | None = None
        warm_up(["multiprune.run", "hydra"], environment=os.environ)

    def start(self, run: Path, pruner: str, *, by_command: bool = False) -> Process:
        """Start a run, or continue it."""
        run.parent.mkdir(parents=True, exist_ok=True)
        arguments = [f"hydra.run.dir={run}", *_SMALL, *pruned_by(pruner, self._masks_from)]
        environment, output = {"XDG_CACHE_HOME": str(cache(run))}, run.with_name(f"{run.name}.log")
        if not by_command:
            context = multiprocessing.get_context("forkserver")
            forked = context.Process(target=train, args=(arguments, environment, str(output)))
            forked.start()
            assert forked.pid is not None
            return Process(
                forked.pid, forked.kill, lambda: _waited(forked), lambda: forked.exitcode
            )
        with output.open("a") as file:
            started = subprocess.Popen(
                [sys.executable, str(TRAIN), *arguments],
                env=os.environ | environment,
                stdout=file,
                stderr=file,
            )
        return Process(started.pid, started.kill, started.wait, started.poll)

    def straight(self, run: Path, pruner: str, *, by_command: bool = False) -> Timeline:
        """Run to the end; return how long that took."""
        process = self.start(run, pruner, by_command=by_command)
        watch = Watch(run, process.pid)
        while process.poll() is None:
            watch.look()
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        if status := process.poll():
            raise SystemExit(f"A run of {pruner} that is not killed ends with {status}: {run}.log")
        return watch.timeline()

    def with_imports(self, run: Path, pruner: str, timeline: Timeline) -> Timeline:
        """Return the timeline of a run by command, whose imports are a part of its start."""
        if self._imports is None:
            by_command = self.straight(run, pruner, by_command=True)
            self._imports = by_command.seconds["start"] - timeline.seconds["start"]
            if found := differences(run, self._masks_from.with_name(pruner)):
                raise SystemExit(f"A run that is forked differs from one by command: {found}")
        start = timeline.seconds["start"] + self._imports
        return replace(timeline, seconds=timeline.seconds | {"start": start})

    @staticmethod
    def left_in_cache(run: Path) -> list[str]:
        """Return what is half written in the cache of a run."""
        return [str(file) for file in files(cache(run)) if ".writing" in str(file)]


def cache(run: Path) -> Path:
    """Return the folder of the texts that a run has tokenized."""
    return run.with_name(f"{run.name}-cache")


def train(arguments: list[str], environment: dict[str, str], output: str) -> None:
    """Do in this process, which was forked, what ``python train.py`` does."""
    os.environ.update(environment)
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    sys.argv = [str(TRAIN), *arguments]
    runpy.run_path(str(TRAIN), run_name="__main__")


def killed_at(moment: Moment, process: Process, run: Path, timeline: Timeline) -> Killed | None:
    """Kill a run at a moment; return what was seen of it then, None if it had ended before."""
    watch = Watch(run, process.pid)
    delay = moment.share * timeline.seconds[moment.part]
    number = int(moment.which * timeline.often[moment.part])
    while process.poll() is None:
        watch.look()
        began = watch.began[moment.part]
        if number < len(began) and watch.now >= began[number] + delay:
            process.kill()
            break
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    if process.wait() != -signal.SIGKILL:
        return None
    status, seconds = read_status(run), round(watch.now, 3)
    left = [file.name for file in run.rglob("*") if _HALF_WRITTEN.match(file.name)]
    return Killed(moment, watch.part, seconds, status.step if status else 0, sorted(left))


def _waited(process: Any) -> int:
    process.join()
    return int(process.exitcode)
