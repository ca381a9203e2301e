"""The metrics of ``multiprune.tasks.metrics`` on many resamples of the examples at once.

A resample is how often it has each example: a row of ``weights``. All metrics but rank correlation
are functions of sums over examples, and the sums of all resamples are one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterator

Numbers = NDArray[np.float64]
#: Of any type, as files have them: shape (answers,), or (answers, labels) of 0 and 1.
Answered = NDArray[Any]
#: How often each resample has each example, of shape (resamples, examples).
Weights = NDArray[np.float32]
#: Gives the score on each resample.
Resampled = Callable[[Weights], Numbers]

#: Weights that are held at a time.
BLOCK = 1 << 23


def resamples(examples: int, count: int, *, seed: int) -> Iterator[Weights]:
    """Draw as many examples as there are with replacement, ``count`` times; in blocks of those."""
    generator = np.random.default_rng(seed)
    rows = max(1, BLOCK // examples)
    for start in range(0, count, rows):
        drawn = [
            np.bincount(generator.integers(examples, size=examples), minlength=examples)
            for _ in range(min(rows, count - start))
        ]
        yield np.array(drawn, np.float32)


def resampled_metric(
    name: str, predictions: Answered, labels: Answered, examples: NDArray[np.int64]
) -> Resampled:
    """Return a metric of ``METRICS`` as a function of weights.

    ``examples`` has, for each answer, the column of its example in the weights, of which each has
    an answer at least: answers to one example are resampled together.
    """
    if name == "spearman":
        return lambda weights: _spearman(predictions, labels, weights[:, examples])
    of_sets = _BY_SUMS_OF_SETS if predictions.ndim == 2 else {}
    terms, score = of_sets.get(name, _BY_SUMS[name])
    order = np.argsort(examples, kind="stable")
    starts = np.flatnonzero(np.diff(examples[order], prepend=-1))
    sums = np.add.reduceat(terms(predictions, labels)[order], starts, axis=0)
    return lambda weights: score((weights @ sums).astype(np.float64))


def resampled_quotient(
    numerators: Numbers,
    denominators: Numbers,
    languages: NDArray[np.int64],
    units: NDArray[np.int64],
) -> Resampled:
    """Return the mean over languages of a quotient of sums, as a function of weights of units.

    All have one entry an example, as ``ScoreTerms`` has them. Languages of which a resample has no
    example do not count, and a quotient without denominators is 0.
    """
    sums = np.zeros((units.max() + 1, languages.max() + 1, 3))
    terms = np.stack([numerators, denominators, np.ones_like(denominators)], 1)
    np.add.at(sums, (units, languages), terms)
    by_unit = sums.reshape(len(sums), -1)

    def score(weights: Weights) -> Numbers:
        found = (weights @ by_unit).reshape(len(weights), -1, 3)
        above, below, examples = np.moveaxis(found, 2, 0)
        quotients = above / np.where(below > 0, below, 1)
        mean: Numbers = quotients.sum(1) / (examples > 0).sum(1)
        return mean

    return score


def _right(predictions: Answered, labels: Answered) -> Answered:
    """Return whether all labels of an answer are right, beside 1."""
    right = predictions == labels
    right = right if right.ndim == 1 else right.all(1)
    return np.stack([right, np.ones_like(right)], 1).astype(np.float32)


def _share(sums: Numbers) -> Numbers:
    return sums[:, 0] / sums[:, 1]


def _by_class(predictions: Answered, labels: Answered) -> Answered:
    """Count, of each class: answers that are right, predicted and labelled.

    A class of a set of labels is one of them.
    """
    if predictions.ndim == 1:
        classes = np.arange(max(2, int(max(predictions.max(), labels.max())) + 1))
        predictions, labels = (one[:, None] == classes for one in (predictions, labels))
    predicted, labelled = predictions.astype(bool), labels.astype(bool)
    counts = np.stack([predicted & labelled, predicted, labelled], 1)
    return counts.reshape(len(counts), -1).astype(np.float32)


def _by_decision(predictions: Answered, labels: Answered) -> Answered:
    """Count as ``_by_class`` does, where each decision on a label is an answer of class 0 or 1."""
    if predictions.ndim == 1:
        return _by_class(predictions, labels)
    counts = _by_class(predictions.ravel(), labels.ravel())
    of_answer: Answered = counts.reshape(*predictions.shape, -1).sum(1)
    return of_answer


def _classes(sums: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    right, predicted, labelled = np.moveaxis(sums.reshape(len(sums), 3, -1), 1, 0)
    return right, predicted, labelled


def _f1_by_class(sums: Numbers) -> Numbers:
    """Return 2 right / (predicted + labelled); 0 of a class that does not occur."""
    right, predicted, labelled = _classes(sums)
    f1: Numbers = 2 * right / np.maximum(predicted + labelled, 1)
    return f1


def _f1(sums: Numbers) -> Numbers:
    return _f1_by_class(sums)[:, 1]


def _macro_f1(sums: Numbers) -> Numbers:
    _, predicted, labelled = _classes(sums)
    occur = (predicted + labelled > 0).sum(1)
    mean: Numbers = _f1_by_class(sums).sum(1) / occur
    return mean


def _macro_f1_of_sets(sums: Numbers) -> Numbers:
    mean: Numbers = _f1_by_class(sums).mean(1)
    return mean


def _micro_f1(sums: Numbers) -> Numbers:
    right, predicted, labelled = (one.sum(1) for one in _classes(sums))
    f1: Numbers = 2 * right / np.maximum(predicted + labelled, 1)
    return f1


def _matthews(sums: Numbers) -> Numbers:
    """Gorodkin (2004), equation 8: the correlation of two sets of classes."""
    right, predicted, labelled = _classes(sums)
    count = labelled.sum(1)
    return _correlation(
        count * right.sum(1) - (predicted * labelled).sum(1),
        count**2 - (predicted**2).sum(1),
        count**2 - (labelled**2).sum(1),
    )


def _moments(predictions: Answered, labels: Answered) -> Answered:
    x, y = (_standardised(one) for one in (predictions, labels))
    return np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], 1)


def _pearson(sums: Numbers) -> Numbers:
    count, x, y, xx, yy, xy = sums.T
    variances = [square * count - one**2 for one, square in ((x, xx), (y, yy))]
    for variance, square in zip(variances, (xx, yy), strict=True):
        # What is left of the variance of a constant is rounding.
        variance[variance < 1e-10 * square * count] = 0
    return _correlation(xy * count - x * y, *variances)


def _spearman(predictions: Answered, labels: Answered, weights: Weights) -> Numbers:
    """Correlate ranks in the resample, in which ties, repeated examples too, share the mean one."""
    middle = (weights.sum(1, dtype=np.float64, keepdims=True) + 1) / 2
    x, y = (_ranks(one, weights) - middle for one in (predictions, labels))
    return _correlation(*((weights * one).sum(1) for one in (x * y, x * x, y * y)))


def _ranks(values: Answered, weights: Weights) -> Numbers:
    _, which = np.unique(values, return_inverse=True)
    order = np.argsort(which, kind="stable")
    starts = np.flatnonzero(np.diff(which[order], prepend=-1))
    equal = np.add.reduceat(weights[:, order], starts, axis=1, dtype=np.float64)
    ranks: Numbers = np.cumsum(equal, 1) - (equal - 1) / 2
    return ranks[:, which]


def _standardised(values: Answered) -> Numbers:
    values = values.astype(np.float64)
    centred: Numbers = values - values.mean()
    return centred / (float(centred.std()) or 1.0)


def _correlation(covariance: Numbers, *variances: Numbers) -> Numbers:
    """Return 0 where a side is constant, of which there is no correlation."""
    scale = np.sqrt(np.prod(variances, axis=0))
    return np.where(scale > 0, covariance / np.where(scale > 0, scale, 1), 0.0)


_Terms = Callable[[Answered, Answered], Answered]
_Score = Callable[[Numbers], Numbers]

#: What is summed over examples, and the metric of the sums.
_BY_SUMS: Mapping[str, tuple[_Terms, _Score]] = {
    "accuracy": (_right, _share),
    "f1": (_by_decision, _f1),
    "macro_f1": (_by_class, _macro_f1),
    "micro_f1": (_by_class, _micro_f1),
    "matthews_correlation": (_by_decision, _matthews),
    "pearson": (_moments, _pearson),
}
_BY_SUMS_OF_SETS = {"macro_f1": (_by_class, _macro_f1_of_sets)}

METRICS = (*_BY_SUMS, "spearman")
