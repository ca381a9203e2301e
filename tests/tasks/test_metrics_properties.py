"""Metrics of any answers, beside scikit-learn, SciPy and seqeval, and sums that give the same."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import seqeval.metrics
import torch
from datasets import Dataset
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sklearn_metrics
from strategies import integers, seeds
from torch import tensor

from multiprune.data.source import HubSource
from multiprune.report.findings.resampling import (
    METRICS,
    resampled_metric,
    resampled_quotient,
    resamples,
)
from multiprune.tasks import metrics
from multiprune.tasks.answers import Answers
from multiprune.tasks.metrics import (
    accuracy,
    f1,
    macro_f1,
    matthews_correlation,
    micro_f1,
    pearson,
    spearman,
)
from multiprune.tasks.score_terms import score_terms
from multiprune.tasks.scores import scores_of
from multiprune.tasks.spans import SpanTagging, span_f1, spans_of
from multiprune.tasks.tagging import Tagging
from multiprune.tasks.task import Rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

Pair = tuple["NDArray[Any]", "NDArray[Any]"]
TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


def pairs(classes: int) -> st.SearchStrategy[Pair]:
    """Draw predictions and labels, of one class each at times."""
    return st.integers(1, 20).flatmap(
        lambda size: st.tuples(*(integers(size, 0, classes - 1) for _ in range(2)))
    )


sets = st.tuples(st.integers(1, 8), st.integers(1, 4)).flatmap(
    lambda shape: st.tuples(*(integers(shape, 0, 1) for _ in range(2)))
)


def quiet(function: Any, *arguments: Any, **options: Any) -> float:
    """Return what another library says, without its warnings of what is not defined."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(function(*arguments, **options))


@given(pairs(2) | pairs(5))
@example((np.zeros(3, np.int64), np.zeros(3, np.int64)))
@example((np.ones(1, np.int64), np.zeros(1, np.int64)))
def test_metrics_of_classes_are_those_of_scikit_learn(drawn: Pair) -> None:
    predictions, labels = drawn
    mine = [tensor(one) for one in drawn]
    assert accuracy(*mine) == pytest.approx(sklearn_metrics.accuracy_score(labels, predictions))
    # Over the classes that occur, as ours.
    for average, metric in (("macro", macro_f1), ("micro", micro_f1)):
        score = quiet(sklearn_metrics.f1_score, labels, predictions, average=average)
        assert metric(*mine) == pytest.approx(score)
    if max(predictions.max(), labels.max()) < 2:
        score = quiet(sklearn_metrics.f1_score, labels, predictions, zero_division=0)
        assert f1(*mine) == pytest.approx(score)
    score = quiet(sklearn_metrics.matthews_corrcoef, labels, predictions)
    assert matthews_correlation(*mine) == pytest.approx(score, abs=1e-12)


@given(sets)
def test_metrics_of_sets_are_those_of_scikit_learn(drawn: Pair) -> None:
    predictions, labels = drawn
    mine = [tensor(one) for one in drawn]
    if labels.shape[1] > 1:
        assert accuracy(*mine) == pytest.approx(sklearn_metrics.accuracy_score(labels, predictions))
        for average, metric in (("macro", macro_f1), ("micro", micro_f1)):
            score = quiet(
                sklearn_metrics.f1_score, labels, predictions, average=average, zero_division=0
            )
            assert metric(*mine) == pytest.approx(score)
    flat = [one.ravel() for one in (labels, predictions)]
    assert f1(*mine) == pytest.approx(quiet(sklearn_metrics.f1_score, *flat, zero_division=0))
    score = quiet(sklearn_metrics.matthews_corrcoef, *flat)
    assert matthews_correlation(*mine) == pytest.approx(score, abs=1e-12)


numbers = st.integers(2, 12).flatmap(
    lambda size: st.lists(
        st.tuples(
            st.floats(-5, 5, width=32) | st.sampled_from([0.0, 1.0, 2.5]),
            st.floats(0, 5, width=32) | st.sampled_from([0.0, 1.0, 2.5]),
        ),
        min_size=size,
        max_size=size,
    )
)


@given(numbers)
@example([(0.1, 1.0), (0.1, 2.0), (0.1, 3.0)])
@example([(1e-30, 1.0), (2e-30, 2.0), (-1e-30, 3.0)])
def test_correlations_are_those_of_scipy_and_0_where_there_is_none(
    drawn: list[tuple[float, float]],
) -> None:
    x, y = (np.array(one, np.float32) for one in zip(*drawn, strict=True))
    mine = (tensor(x), tensor(y))
    if x.min() == x.max() or y.min() == y.max():
        assert pearson(*mine) == spearman(*mine) == 0
        return
    exact = [one.astype(np.float64) for one in (x, y)]
    assert pearson(*mine) == pytest.approx(float(stats.pearsonr(*exact).statistic), abs=1e-9)
    assert spearman(*mine) == pytest.approx(float(stats.spearmanr(*exact).statistic), abs=1e-9)
    assert -1 <= pearson(*mine) <= 1


tagged = st.lists(
    st.integers(1, 6).flatmap(
        lambda size: st.tuples(
            *(st.lists(st.sampled_from(TAGS), min_size=size, max_size=size) for _ in range(2))
        )
    ),
    min_size=1,
    max_size=6,
)


@given(tagged)
def test_f1_of_spans_is_that_of_seqeval(drawn: list[tuple[list[str], list[str]]]) -> None:
    found, right = ([pair[side] for pair in drawn] for side in (0, 1))
    score = quiet(seqeval.metrics.f1_score, right, found, average="micro", zero_division=0)
    assert span_f1([*map(spans_of, found)], [*map(spans_of, right)]) == pytest.approx(score)
    entities = {
        (kind, start, end + 1)
        for kind, start, end in seqeval.metrics.sequence_labeling.get_entities(found[0])
    }
    assert spans_of(found[0]) == entities


@given(tagged, seeds)
def test_sums_over_examples_give_the_f1_of_spans(
    drawn: list[tuple[list[str], list[str]]], seed: int
) -> None:
    task = SpanTagging(
        text=["words"], label="tags", labels=TAGS, metrics={"f1": span_f1},
        source=HubSource(path=None, mirror="nowhere"),
    )  # fmt: skip
    found, right = (
        tensor([TAGS.index(tag) for pair in drawn for tag in pair[side]]) for side in (0, 1)
    )
    of = [number for number, pair in enumerate(drawn) for _ in pair[0]]
    answers = Answers(found, right, tensor(of))
    terms = score_terms(task, answers, None)
    assert terms is not None
    score = scores_of(task, answers, None)["f1"]
    below = float(terms.denominators.sum())
    assert (float(terms.numerators.sum()) / below if below else 0.0) == pytest.approx(score)
    once = np.ones((1, len(drawn)), np.float32)
    quotient = resampled_quotient(*(one.numpy() for one in vars(terms).values()))
    assert quotient(once)[0] == pytest.approx(score)
    (weights,) = resamples(len(drawn), 3, seed=seed)
    for drawn_weights, resampled in zip(weights.astype(int), quotient(weights), strict=True):
        chosen = [
            pair for pair, times in zip(drawn, drawn_weights, strict=True) for _ in range(times)
        ]
        expected = span_f1(*([spans_of(pair[side]) for pair in chosen] for side in (0, 1)))
        assert resampled == pytest.approx(expected, abs=1e-6)


@given(pairs(2) | pairs(4) | sets, seeds, st.booleans())
def test_a_resampled_metric_is_that_of_repeated_examples(
    drawn: Pair, seed: int, in_pairs: bool
) -> None:
    predictions, labels = drawn
    examples = np.arange(len(labels)) // (2 if in_pairs else 1)
    (weights,) = resamples(int(examples.max()) + 1, 3, seed=seed)
    for name in METRICS:
        if name in ("pearson", "spearman") and predictions.ndim == 2:
            continue
        if name == "f1" and predictions.ndim == 1 and max(predictions.max(), labels.max()) > 1:
            continue
        if name in ("pearson", "spearman"):
            # Of numbers, not of classes; ties are many.
            sides: Pair = (predictions.astype(np.float64), labels.astype(np.float64))
        else:
            sides = drawn
        found = resampled_metric(name, *sides, examples)(weights)
        for row, score in zip(weights[:, examples].astype(np.int64), found, strict=True):
            if not row.any():
                continue
            repeated = [torch.from_numpy(one).repeat_interleave(tensor(row), 0) for one in sides]
            assert score == pytest.approx(getattr(metrics, name)(*repeated), abs=1e-6), name


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.booleans(), st.integers(1, 3)),
        min_size=1,
        max_size=12,
    ),
    st.booleans(),
)
def test_sums_over_examples_give_the_mean_over_languages(
    drawn: list[tuple[str, int, bool, int]], is_parallel: bool
) -> None:
    task = Tagging(
        text=["words"], label="tags", labels=["O", "A"], metrics={"score": accuracy},
        languages=["a", "b", "c"],
        parallel="id" if is_parallel else None,
        source=HubSource(path=None, mirror="nowhere"),
    )  # fmt: skip
    table = {"lang": [one[0] for one in drawn], "id": [one[1] for one in drawn]}
    rows = Rows(Dataset.from_dict(table), "corpus", "")
    # Of each example so many words, all of them right or all but the first.
    of = [place for place, (*_, words) in enumerate(drawn) for _ in range(words)]
    right = [int(is_right or word > 0) for *_, is_right, words in drawn for word in range(words)]
    answers = Answers(tensor(right), torch.ones(len(of), dtype=torch.long), tensor(of))
    by_language: dict[str, list[int]] = {}
    for place, found in zip(of, right, strict=True):
        by_language.setdefault(drawn[place][0], []).append(found)
    expected = np.mean([np.mean(own) for own in by_language.values()])
    assert scores_of(task, answers, rows)["score"] == pytest.approx(expected)
    terms = score_terms(task, answers, rows)
    assert terms is not None
    units = int(terms.units.max()) + 1
    assert units == len({one[1] for one in drawn} if is_parallel else drawn)
    quotient = resampled_quotient(*(one.numpy() for one in vars(terms).values()))
    assert quotient(np.ones((1, units), np.float32))[0] == pytest.approx(expected)
