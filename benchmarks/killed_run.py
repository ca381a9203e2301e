"""Starts runs of the embedded encoder, sees how far they are, and kills them there."""

from __future__ import annotations

import multiprocessing
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from same_run import differences, files
from small_runs import QUIET, TRAIN, pruned_by, rows

from multiprune.launching.processes import warm_up
from multiprune.status import read_status

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: What a run does, one after another; checkpoints are written while it trains.
PARTS = ("start", "training", "checkpoint", "end")

#: What it writes at the end, one after another.
_ENDS = (".model-*", "model", "predictions.safetensors", "masks.safetensors", "results.json")

_SMALL = (
    *QUIET,
    *("trainer.max_epochs=2", "trainer.log_every_n_steps=1", "rank_every_n_steps=2"),
    *("data.batch_size=16", "checkpoint.every_n_steps=3"),
    *rows(train=32, validation=16, test=16),
)
_CHECKPOINT = "checkpoints/*.writing"
_SECONDS_BETWEEN_LOOKS = 0.002
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
        return f"{self.part} ({self.seconds:.2f} s, step {self.step}, {', '.join(self.left)})"


@dataclass(frozen=True)
class Timeline:
    """How long the parts of a run took that was not killed, and how often it did them."""

    seconds: dict[str, float]
    often: dict[str, int]


@dataclass(frozen=True)
class Process:
    """A run that was started, however that was."""

    pid: int
    kill: Callable[[], None]
    wait: Callable[[], int]
    poll: Callable[[], int | None]


@dataclass
class Watch:
    """Sees by the files in a run's folder which parts have begun, and when."""

    run: Path
    pid: int
    started: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        #: By part, when it began: each checkpoint, and each file of the end.
        self.began: dict[str, list[float]] = {part: [] for part in PARTS}
        self.began["start"].append(self.started)
        #: How long each checkpoint took to write.
        self.writing: list[float] = []
        self._is_writing = False
        self._ended: set[str] = set()
        self._before = {file: _changed(file) for file in self._files(*_ENDS, _CHECKPOINT)}

    @property
    def part(self) -> str:
        """What the run was doing when it was looked at."""
        if self._ended:
            return "end"
        if self._is_writing:
            return "checkpoint"
        return "training" if self.began["training"] else "start"

    def look(self) -> None:
        """Note what has changed."""
        now = time.perf_counter()
        if not self.began["training"] and self._trains():
            self.began["training"].append(now)
        is_writing = bool(self._new(_CHECKPOINT))
        if is_writing and not self._is_writing:
            self.began["checkpoint"].append(now)
        elif self._is_writing and not is_writing:
            self.writing.append(now - self.began["checkpoint"][-1])
        self._is_writing = is_writing
        ended = {name for name in _ENDS if name not in self._ended and self._new(name)}
        self.began["end"] += [now] * len(ended)
        self._ended |= ended

    def timeline(self) -> Timeline:
        """Return how long the parts took of a run that has ended."""
        (trains,), ends = self.began["training"], self.began["end"]
        seconds = {
            "start": trains - self.started,
            "training": ends[0] - trains,
            "checkpoint": min(self.writing),
            "end": (ends[-1] - ends[0]) / len(ends),
        }
        return Timeline(seconds, {part: len(began) for part, began in self.began.items()})

    def _trains(self) -> bool:
        status = read_status(self.run)
        return bool(status and status.pid == self.pid and status.total_steps is not None)

    def _new(self, *patterns: str) -> list[Path]:
        found = [(file, _changed(file)) for file in self._files(*patterns)]
        return [file for file, at in found if at is not None and at != self._before.get(file)]

    def _files(self, *patterns: str) -> list[Path]:
        return [file for pattern in patterns for file in self.run.glob(pattern)]


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
            return Process(forked.pid, forked.kill, lambda: _waited(forked), lambda: forked.exitcode)
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


def _changed(file: Path) -> int | None:
    """Return when a file was changed; None if it is gone."""
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:
        return None


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
        if number < len(began) and time.perf_counter() >= began[number] + delay:
            process.kill()
            break
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    if process.wait() != -signal.SIGKILL:
        return None
    seconds = round(time.perf_counter() - watch.started, 3)
    status = read_status(run)
    left = [file.name for file in run.rglob("*") if _HALF_WRITTEN.match(file.name)]
    return Killed(moment, watch.part, seconds, status.step if status else 0, sorted(left))


def _waited(process: Any) -> int:
    process.join()
    return int(process.exitcode)
