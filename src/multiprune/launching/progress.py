"""Progress display of a sweep."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from multiprune.runs.duration import duration

if TYPE_CHECKING:
    from collections.abc import Sequence


class SweepProgress:
    """Prints a line for each job that ends and, on a terminal, a bar below.

    Args:
        names: what each job is called.
        workers: how many run at a time.
    """

    def __init__(self, names: Sequence[str], *, workers: int) -> None:
        self._names, self._workers = names, workers
        self._since: dict[int, float] = {}
        self._seconds: list[float] = []
        self._failed = 0
        self._console = Console()
        self._bar = Progress(
            BarColumn(),
            TextColumn("{task.description}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(self.summary(), total=len(names))

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def started(self, position: int) -> None:
        """Count a job as running."""
        self._since[position] = time.monotonic()
        self._bar.update(self._task, description=self.summary())

    def ended(self, position: int, problem: str | None, *, gave_up: bool = False) -> None:
        """Count a job as done, which took no time if nobody has seen it begin.

        Args:
            position: of the job.
            problem: in a line, why it did not finish.
            gave_up: whether it has ended itself, which is no failure.
        """
        now = time.monotonic()
        seconds = now - self._since.pop(position, now)
        self._seconds.append(seconds)
        self._failed += problem is not None and not gave_up
        word = "finished" if problem is None else "gave up" if gave_up else "failed"
        line = f"{word} after {duration(seconds)}: {self._names[position]}"
        if problem is not None:
            line += f": {problem}"
        summary = self.summary()
        if not self._console.is_terminal:
            line += f" ({summary})"
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        self._bar.update(self._task, completed=len(self._seconds), description=summary)

    def summary(self) -> str:
        """Return how many jobs are done, running and failed, and how long the rest may take."""
        done, running = len(self._seconds), len(self._since)
        text = f"{done} of {len(self._names)} done, {running} running, {self._failed} failed"
        if not self._seconds or done == len(self._names):
            return text
        mean = sum(self._seconds) / done
        now = time.monotonic()
        ahead = (len(self._names) - done) * mean - sum(now - one for one in self._since.values())
        return f"{text}, about {duration(max(0.0, ahead) / self._workers)} left"
