"""Sees from outside what a run is doing, and how long it takes for that."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from multiprune.runs.status import STATUS, read_status

#: What a run does, one after another; checkpoints are written while it trains.
PARTS = ("start", "training", "checkpoint", "end")

#: What it writes at the end, one after another.
_ENDS = (".model-*", "model", "predictions.safetensors", "masks.safetensors", "results.json")

_CHECKPOINT = "checkpoints/*.writing"


@dataclass(frozen=True)
class Timeline:
    """How long a run that was not killed computed in each part, and how often it came to that."""

    seconds: dict[str, float]
    often: dict[str, int]


@dataclass
class Watch:
    """Sees by the files in a run's folder which parts have begun, and when.

    Times are seconds that the process has computed: what others do meanwhile is no matter.
    """

    run: Path
    pid: int
    now: float = 0.0

    def __post_init__(self) -> None:
        #: By part, when it began: each checkpoint, and each file of the end.
        self.began: dict[str, list[float]] = {part: [] for part in PARTS}
        self.began["start"].append(0.0)
        #: How long each checkpoint took to write.
        self.writing: list[float] = []
        self._is_writing = False
        self._told: int | None = None
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
        self.now = now = _computed(self.pid) or self.now
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
            "start": trains,
            "training": ends[0] - trains,
            "checkpoint": min(self.writing),
            "end": (ends[-1] - ends[0]) / len(ends),
        }
        return Timeline(seconds, {part: len(began) for part, began in self.began.items()})

    def _trains(self) -> bool:
        # It takes long to read, compared with the time between two looks.
        if (changed := _changed(self.run / STATUS)) == self._told:
            return False
        self._told = changed
        status = read_status(self.run)
        return bool(status and status.pid == self.pid and status.total_steps is not None)

    def _new(self, *patterns: str) -> list[Path]:
        found = [(file, _changed(file)) for file in self._files(*patterns)]
        return [file for file, at in found if at is not None and at != self._before.get(file)]

    def _files(self, *patterns: str) -> list[Path]:
        return [file for pattern in patterns for file in self.run.glob(pattern)]


def _computed(pid: int) -> float:
    """Return for how many seconds Linux has let a process compute; 0 once it has ended."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    except (FileNotFoundError, ProcessLookupError):
        return 0.0


def _changed(file: Path) -> int | None:
    """Return when a file was changed; None if it is gone."""
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:
        return None
