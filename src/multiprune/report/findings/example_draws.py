"""Scores of runs on resamples of the evaluation examples, from what the runs have answered."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch.nn import functional

from multiprune.metrics import Accuracy, Pearson, Spearman
from multiprune.metrics.catalogue import from_record
from multiprune.metrics.terms import MetricDraws, MetricTerms, Resampled, resampled, terms_of
from multiprune.report.findings.resampling import DRAWS, resamples_of
from multiprune.report.records.frame import SPLITS
from multiprune.runs.predictions import FILE, read_predictions

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from multiprune.metrics.catalogue import Known
    from multiprune.report.findings.contender import Contender
    from multiprune.report.findings.resampling import Numbers
    from multiprune.report.records.frame import Row
    from multiprune.runs.predictions import Answered, Predictions

T = TypeVar("T")

#: How far a score may be from what predictions give.
TOLERANCE = 1e-4

# Earlier versions had these alone, and recorded no more of them than what a user called them.
_EARLIER = (
    "accuracy", "f1", "macro_f1", "micro_f1", "matthews_correlation", "pearson", "spearman",
)  # fmt: skip


@dataclass(frozen=True)
class Drawn:
    """The score of one run and task on each resample; ``questions`` tells examples and labels."""

    scores: Numbers
    questions: str


@dataclass(frozen=True)
class _Prepared:
    metric: Resampled
    units: int
    questions: str


class ExampleDraws:
    """Scores of the runs of some contenders, on the same resamples for all runs of a task.

    All that is known of a task is drawn when it is first asked for, so that resamples need not be
    kept, and the answers of a run are read once.
    """

    def __init__(self, contenders: Iterable[Contender]) -> None:
        self._rows: dict[str, dict[Path, Row]] = {}
        for contender in contenders:
            for task, rows in contender.runs.items():
                self._rows.setdefault(task, {}).update({row.path: row for row in rows})
        self._read: dict[Path, Predictions | ValueError] = {}
        self._drawn: dict[tuple[str, str], dict[Path, Drawn | ValueError]] = {}

    def of(self, row: Row, task: str, split: str) -> Drawn:
        """Return the scores of a run of the contenders.

        Raises:
            ValueError: if the run's predictions are not there, or do not give its score, or its
                metric has no resampled form.
        """
        if (split, task) not in self._drawn:
            self._drawn[split, task] = self._draw(task, split)
        return _given(self._drawn[split, task][row.path])

    def _draw(self, task: str, split: str) -> dict[Path, Drawn | ValueError]:
        found: dict[Path, Drawn | ValueError] = {}
        by_size: dict[int, dict[Path, _Prepared]] = {}
        for path, row in self._rows[task].items():
            try:
                prepared = self._prepared(row, task, split)
                by_size.setdefault(prepared.units, {})[path] = prepared
            except ValueError as error:
                found[path] = error
        for size, runs in by_size.items():
            blocks = [
                {path: one.metric(weights).numpy() for path, one in runs.items()}
                for weights in resamples_of(split, task, size)
            ]
            for path, one in runs.items():
                scores = np.concatenate([block[path] for block in blocks])
                found[path] = Drawn(scores, one.questions)
        return found

    def _prepared(self, row: Row, task: str, split: str) -> _Prepared:
        answers = self._answers(row).get(split, {}).get(task)
        if answers is None:
            raise ValueError(f"{row.path / FILE} has no answers to {split}/{task}")
        prepared = _prepare(row, task, answers)
        score = SPLITS[split](row, task)
        try:
            found = float(prepared.metric(torch.ones(1, prepared.units))[0])
        except (ValueError, IndexError, RuntimeError) as error:
            raise ValueError(
                f"what {row.path / FILE} holds of {split}/{task} does not fit its metric: {error}"
            ) from error
        if score is None or not abs(found - score) <= TOLERANCE:
            raise ValueError(
                f"predictions do not give the score that results.json has: {found:.4f} and not "
                f"{score} for {split}/{task} in {row.path}"
            )
        return prepared

    def _answers(self, row: Row) -> Predictions:
        if row.path not in self._read:
            try:
                self._read[row.path] = read_predictions(row.path)
            except FileNotFoundError:
                self._read[row.path] = ValueError(f"{row.path} has no {FILE}")
            except (ValueError, OSError) as error:
                self._read[row.path] = ValueError(str(error))
        return _given(self._read[row.path])


def _prepare(row: Row, task: str, answers: Answered) -> _Prepared:
    examples, which = torch.unique(answers.examples.long(), return_inverse=True)
    if examples[0] < 0:
        raise ValueError(f"{row.path / FILE} does not say which example an answer to {task} is of")
    known: MetricTerms | MetricDraws
    if answers.draws is not None:
        known, metric = answers.draws, _replayed(answers.draws.draws)
    elif answers.terms is not None:
        known = answers.terms
        # Which is what accuracy is, too.
        kind = Accuracy() if answers.is_quotient else from_record(row.measures.get(task, {}))
        metric = resampled(kind, known)
    else:
        kind, known = _earlier(row, task, answers, which)
        metric = resampled(kind, known)
    units = int(known.units.max()) + 1
    # In one type, since files hold integers in as few bytes as they take.
    asked = [answers.examples.long(), answers.labels.double()]
    if units < len(examples) or known.languages.any():
        asked += [known.languages, known.units]
    questions = hashlib.sha256(b"".join(one.numpy().tobytes() for one in asked)).hexdigest()
    return _Prepared(metric, units, questions)


def _replayed(draws: torch.Tensor) -> Resampled:
    """Return scores in the order in which a run has drawn them: that of what is asked for here."""
    if draws.shape != (1 + DRAWS,):
        raise ValueError(
            f"the score and {DRAWS} draws of it are needed, but {len(draws)} are there"
        )
    left = iter(draws)
    return lambda weights: torch.stack([next(left) for _ in weights])


def _earlier(
    row: Row, task: str, answers: Answered, which: torch.Tensor
) -> tuple[Known, MetricTerms]:
    """Return the metric of a task and its terms from decided answers alone."""
    record = row.measures.get(task, {"name": row.metrics[task]})
    if task in row.measures or record["name"] not in _EARLIER:
        raise ValueError(
            f"a metric that is resampled must be one of multiprune.metrics, but that of {task} is "
            f"{record.get('name')}"
        )
    if row.record.tasks[task].languages:
        raise ValueError(
            f"{row.path / FILE} does not say which answer to {task} is in which language"
        )
    metric, labels, outputs = from_record(record), answers.labels, answers.predictions
    if labels.dim() == 1 and not isinstance(metric, Pearson | Spearman):
        classes = max(2, int(max(outputs.max(), labels.max())) + 1)
        outputs, labels = functional.one_hot(outputs.long(), classes), labels.long()
    count = int(which.max()) + 1
    terms, places = terms_of(metric, outputs, labels, which, count)
    return metric, MetricTerms(terms, places, torch.zeros(count).long(), torch.arange(count))


def _given(value: T | ValueError) -> T:
    if isinstance(value, ValueError):
        raise value
    return value
