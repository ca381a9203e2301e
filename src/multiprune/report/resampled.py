"""Scores of runs on resamples of the evaluation examples, from what the runs have answered."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar
from zlib import crc32

import numpy as np
import torch
from torch.nn import functional

from multiprune.metrics import Accuracy, Pearson, Spearman
from multiprune.metrics.catalogue import from_record
from multiprune.metrics.terms import MetricDraws, MetricTerms, Resampled, resampled, terms_of
from multiprune.runs.predictions import FILE, read_predictions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from multiprune.metrics.catalogue import Known
    from multiprune.report.candidates import Candidate
    from multiprune.report.compare import Numbers
    from multiprune.runs.frame import FinishedRun
    from multiprune.runs.predictions import Answered, Predictions

T = TypeVar("T")

#: Resamples of the examples of each task.
DRAWS = 1_000

#: Weights that are held at a time.
BLOCK = 1 << 23

#: How far a score may be from what predictions give.
TOLERANCE = 1e-4

# Earlier versions had these alone, and recorded no more of them than what a user called them.
_EARLIER = (
    "accuracy", "f1", "macro_f1", "micro_f1", "matthews_correlation", "pearson", "spearman",
)  # fmt: skip


#: The scores of a run on each resample, and a hash of the examples and labels.
Drawn = tuple["Numbers", str]


@dataclass(frozen=True)
class _Prepared:
    metric: Resampled
    units: int
    questions: str


class ResampledScores:
    """Scores of the runs of some candidates, on the same resamples for all runs of a task.

    All runs of a task that were added are resampled together when one of them is first asked for,
    so that resamples need not be kept, and the answers of a run are read once.
    """

    def __init__(self, candidates: Iterable[Candidate] = ()) -> None:
        self._runs: dict[str, dict[str, FinishedRun]] = {}
        self._read: dict[str, Predictions | ValueError] = {}
        self._drawn: dict[tuple[str, str], dict[str, Drawn | ValueError]] = {}
        self.add(candidates)

    def add(self, candidates: Iterable[Candidate]) -> None:
        """Add the runs of candidates for the tasks that they serve."""
        for candidate in candidates:
            for task, runs in candidate.runs.items():
                self._runs.setdefault(task, {}).update({str(run.path): run for run in runs})

    def __call__(self, run: str, task: str, split: str) -> Drawn:
        """Return the scores of a run of the candidates, by its path.

        Raises:
            ValueError: if the run's predictions are not there, or do not give its score, or its
                metric has no resampled form.
        """
        drawn = self._drawn.setdefault((split, task), {})
        if run not in drawn:
            new = {path: one for path, one in self._runs[task].items() if path not in drawn}
            drawn.update(self._draw(new, task, split))
        return _given(drawn[run])

    def _draw(
        self, runs: dict[str, FinishedRun], task: str, split: str
    ) -> dict[str, Drawn | ValueError]:
        found: dict[str, Drawn | ValueError] = {}
        by_size: dict[int, dict[str, _Prepared]] = {}
        for path, run in runs.items():
            try:
                prepared = self._prepared(run, task, split)
                by_size.setdefault(prepared.units, {})[path] = prepared
            except ValueError as error:
                found[path] = error
        for size, alike in by_size.items():
            blocks = [
                {path: prepared.metric(weights).numpy() for path, prepared in alike.items()}
                for weights in resamples_of(split, task, size)
            ]
            for path, prepared in alike.items():
                scores = np.concatenate([block[path] for block in blocks])
                found[path] = scores, prepared.questions
        return found

    def _prepared(self, run: FinishedRun, task: str, split: str) -> _Prepared:
        answers = self._answers(run).get(split, {}).get(task)
        if answers is None:
            raise ValueError(f"{run.path / FILE} has no answers to {split}/{task}")
        prepared = _prepare(run, task, answers)
        score = run.score(task, split)
        try:
            found = float(prepared.metric(torch.ones(1, prepared.units))[0])
        except (ValueError, IndexError, RuntimeError) as error:
            raise ValueError(
                f"what {run.path / FILE} holds of {split}/{task} does not fit its metric: {error}"
            ) from error
        if score is None or not abs(found - score) <= TOLERANCE:
            raise ValueError(
                f"predictions do not give the score that results.json has: {found:.4f} and not "
                f"{score} for {split}/{task} in {run.path}"
            )
        return prepared

    def _answers(self, run: FinishedRun) -> Predictions:
        path = str(run.path)
        if path not in self._read:
            try:
                self._read[path] = read_predictions(run.path)
            except FileNotFoundError:
                self._read[path] = ValueError(f"{run.path} has no {FILE}")
            except (ValueError, OSError) as error:
                self._read[path] = ValueError(str(error))
        return _given(self._read[path])


def _prepare(run: FinishedRun, task: str, answers: Answered) -> _Prepared:
    examples, which = torch.unique(answers.examples.long(), return_inverse=True)
    if examples[0] < 0:
        raise ValueError(f"{run.path / FILE} does not say which example an answer to {task} is of")
    known: MetricTerms | MetricDraws
    if answers.draws is not None:
        known, metric = answers.draws, _replayed(answers.draws.draws)
    elif answers.terms is not None:
        known = answers.terms
        # Which is what accuracy is, too.
        kind = Accuracy() if answers.is_quotient else from_record(run.measures.get(task, {}))
        metric = resampled(kind, known)
    else:
        kind, known = _earlier(run, task, answers, which)
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
    run: FinishedRun, task: str, answers: Answered, which: torch.Tensor
) -> tuple[Known, MetricTerms]:
    """Return the metric of a task and its terms from decided answers alone."""
    record = run.measures.get(task, {"name": run.metrics[task]})
    if task in run.measures or record["name"] not in _EARLIER:
        raise ValueError(
            f"a metric that is resampled must be one of multiprune.metrics, but that of {task} is "
            f"{record.get('name')}"
        )
    if run.record.tasks[task].languages:
        raise ValueError(
            f"{run.path / FILE} does not say which answer to {task} is in which language"
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


def resamples_of(split: str, task: str, examples: int) -> Iterator[torch.Tensor]:
    """Draw the resamples of a task, independently of those of others; in blocks."""
    return resamples(examples, DRAWS, seed=crc32(f"{split}/{task}".encode()))


def resamples(examples: int, count: int, *, seed: int) -> Iterator[torch.Tensor]:
    """Draw as many examples as there are with replacement, ``count`` times; in blocks of those."""
    generator = np.random.default_rng(seed)
    rows = max(1, BLOCK // examples)
    for start in range(0, count, rows):
        drawn = [
            np.bincount(generator.integers(examples, size=examples), minlength=examples)
            for _ in range(min(rows, count - start))
        ]
        yield torch.from_numpy(np.array(drawn, np.float32))
