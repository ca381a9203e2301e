"""Metadata that trackers receive besides metrics, and when."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from PIL.Image import Image
    from pytorch_lightning.loggers.logger import Logger


@dataclass(frozen=True, kw_only=True)
class Description:
    """A run as it begins.

    Attributes:
        name: among the runs of its group.
        group: the name of its sweep; None for a run of its own.
        tags: what to find it by, by kind: ``task``, ``pruner``, ``encoder``.
        commit: of the code, if that is under version control.
        config: the composed configuration, and which options were chosen.
    """

    name: str
    group: str | None
    tags: Mapping[str, str]
    commit: str | None
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """Rows of words and numbers below named columns."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str | float]]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a run.

    Attributes:
        steps: optimizer steps.
        summary: numbers by name, that runs are compared by.
        figures: what draws each, by name.
        predictions: returns tables of so many examples by task.
        model: folder of the exported model.
    """

    steps: int
    summary: Mapping[str, float]
    figures: Mapping[str, Callable[[], Image]]
    predictions: Callable[[int], Mapping[str, Table]]
    model: Path


class Tracker(ABC):
    """A logger that shows more than metrics; of several processes, the first alone does.

    Attributes:
        predictions: examples of each task whose predictions are shown.
        keeps_model: whether the exported model is uploaded.
    """

    predictions: int = 0
    keeps_model: bool = False

    @abstractmethod
    def begin(self, description: Description) -> None:
        """Show what the run is; of a run that is resumed, a second time."""

    @abstractmethod
    def summarize(self, summary: Mapping[str, float], step: int) -> None:
        """Show the numbers that runs are compared by."""

    @abstractmethod
    def draw(self, name: str, image: Image, step: int) -> None:
        """Show a figure."""

    @abstractmethod
    def tabulate(self, name: str, table: Table, step: int) -> None:
        """Show a table."""

    @abstractmethod
    def keep_model(self, folder: Path) -> None:
        """Keep the exported model."""

    @abstractmethod
    def close(self, *, succeeded: bool) -> None:
        """End the run, if it is not ended."""


@contextmanager
def tracked(loggers: Sequence[Logger], description: Description) -> Iterator[None]:
    """Tell all loggers what a run is, and end it with them however it ends.

    Not a callback: a Trainer starts the loggers before its callbacks, and the next job of a sweep
    may begin in the same process after any failure.
    """
    for logger in loggers:
        if isinstance(logger, Tracker):
            logger.begin(description)
        else:
            logger.log_hyperparams(dict(description.config))
    succeeded = False
    try:
        yield
        succeeded = True
    finally:
        for tracker in trackers(loggers):
            tracker.close(succeeded=succeeded)


def conclude(loggers: Iterable[Logger], outcome: Outcome) -> None:
    """Show all trackers among ``loggers`` what came of a run, each as much as it is asked for."""
    for tracker in trackers(loggers):
        tracker.summarize(outcome.summary, outcome.steps)
        for name, draw in outcome.figures.items():
            tracker.draw(name, draw(), outcome.steps)
        if tracker.predictions:
            for task, table in outcome.predictions(tracker.predictions).items():
                tracker.tabulate(f"predictions/{task}", table, outcome.steps)
        if tracker.keeps_model:
            tracker.keep_model(outcome.model)


def trackers(loggers: Iterable[Logger]) -> list[Tracker]:
    """Return those loggers that show more than metrics."""
    return [logger for logger in loggers if isinstance(logger, Tracker)]


def require(package: str, *, extra: str) -> None:
    """Check that what a logger needs is installed.

    Raises:
        ModuleNotFoundError: if it is not; says how to install it.
    """
    if find_spec(package) is None:
        raise ModuleNotFoundError(
            f"`logger={extra}` needs the package {package}, which is not installed: "
            f"pip install 'multiprune[{extra}]'."
        )
