"""Metrics of any answers, beside scikit-learn, SciPy and seqeval."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import seqeval.metrics
import torch
from drawn_answers import (
    classes,
    hidden,
    label_sets,
    numbers,
    of_hidden,
    of_texts,
    spans_in,
    tagged,
    texts,
)
from hypothesis import example, given
from hypothesis import strategies as st
from metric_world import certain
from scipy import stats
from sklearn import metrics as reference
from torch import Tensor, tensor

from multiprune import metrics as ours
from multiprune.tasks.iob2 import spans_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from drawn_answers import Compared


def close(value: Any) -> Any:
    return pytest.approx(value, rel=1e-9, abs=1e-9)


def quiet(function: Callable[..., Any], *arguments: Any, **options: Any) -> float:
    """Return what another library says, without its warnings of what is not defined."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(function(*arguments, **options))


def by_label(metric: Callable[..., Any], outputs: Tensor, labels: Tensor, least: int) -> float:
    """Return the mean over labels that as many examples have and have not, NaN without any."""
    found = [
        quiet(metric, own, likely)
        for own, likely in zip(labels.T, outputs.T, strict=True)
        if own.any() and len(own.unique()) >= least
    ]
    return float(np.mean(found)) if found else float("nan")


@given(classes(2) | classes())
@example((certain([0, 0, 0]), tensor([0, 0, 0])))
@example((certain([1]), tensor([0])))
def test_metrics_of_classes_are_those_of_scikit_learn(drawn: Compared) -> None:
    outputs, labels = drawn
    count, decided = outputs.shape[1], outputs.argmax(1)
    one_hot = certain(labels, count)
    ranked = (outputs[:, 1:], one_hot[:, 1:]) if count == 2 else (outputs, one_hot)
    expected = {
        ours.Accuracy(): reference.accuracy_score(labels, decided),
        ours.MacroF1(): quiet(reference.f1_score, labels, decided, average="macro"),
        ours.MicroF1(): quiet(reference.f1_score, labels, decided, average="micro"),
        ours.MatthewsCorrelation(): quiet(reference.matthews_corrcoef, labels, decided),
        ours.LogLoss(): reference.log_loss(labels, outputs, labels=range(count)),
        ours.AUROC(): np.nan_to_num(by_label(reference.roc_auc_score, *ranked, 2), nan=0.5),
        ours.AveragePrecision(): np.nan_to_num(
            by_label(reference.average_precision_score, *ranked, 1)
        ),
    }
    if count == 2:
        expected[ours.F1()] = quiet(reference.f1_score, labels, decided, zero_division=0)
    else:
        # Of equally likely classes the first comes first.
        scores = outputs - torch.arange(count) * 1e-9
        top = reference.top_k_accuracy_score
        expected |= {
            ours.RecallAtK(k=k): quiet(top, labels, scores, k=k, labels=range(count))
            for k in range(1, count + 1)
        }
    for metric, value in expected.items():
        assert metric(outputs, labels) == close(value), metric


@given(classes(), st.integers(1, 20))
def test_calibration_error_is_the_mean_gap_of_bins(drawn: Compared, bins: int) -> None:
    outputs, labels = (side.numpy() for side in drawn)
    likely, right = outputs.max(1), outputs.argmax(1) == labels
    expected = 0.0
    for number in range(bins):
        inside = (likely > number / bins) & (likely <= (number + 1) / bins)
        if inside.any():
            expected += inside.mean() * abs(likely[inside].mean() - right[inside].mean())
    assert ours.ExpectedCalibrationError(bins=bins)(*drawn) == close(expected)


@given(label_sets())
def test_metrics_of_sets_are_those_of_scikit_learn(drawn: Compared) -> None:
    outputs, labels = drawn
    decided = (outputs > 0.5).long()
    f1, flat = reference.f1_score, (labels.ravel(), outputs.ravel())
    expected = {
        ours.Accuracy(): reference.accuracy_score(labels, decided),
        ours.MacroF1(): quiet(f1, labels, decided, average="macro", zero_division=0),
        ours.MicroF1(): quiet(f1, labels, decided, average="micro", zero_division=0),
        ours.LogLoss(): reference.log_loss(*flat, labels=[0, 1]),
        ours.AUROC(): np.nan_to_num(by_label(reference.roc_auc_score, *drawn, 2), nan=0.5),
        ours.AveragePrecision(): np.nan_to_num(
            by_label(reference.average_precision_score, *drawn, 1)
        ),
    }
    for k in range(1, labels.shape[1] + 1):
        order = np.argsort(-outputs.numpy(), 1, kind="stable")[:, :k].tolist()
        shares = [
            sum(own[place] for place in first) / sum(own)
            for own, first in zip(labels.tolist(), order, strict=True)
            if any(own)
        ]
        expected[ours.RecallAtK(k=k)] = np.mean(shares) if shares else 0
    for metric, value in expected.items():
        assert metric(outputs, labels) == close(value), metric


@given(numbers)
@example((torch.full((3,), 0.1), tensor([1.0, 2.0, 3.0])))
@example((tensor([1e-30, 2e-30, -1e-30]), tensor([1.0, 2.0, 3.0])))
def test_correlations_are_those_of_scipy_and_0_where_there_is_none(drawn: Compared) -> None:
    exact = [side.double().numpy() for side in drawn]
    is_constant = any(side.min() == side.max() for side in exact)
    for metric, function in ((ours.Pearson(), stats.pearsonr), (ours.Spearman(), stats.spearmanr)):
        expected = 0 if is_constant else function(*exact).statistic
        assert metric(*drawn) == close(expected)
        assert -1 <= metric(*drawn) <= 1


@given(tagged)
def test_f1_of_spans_is_that_of_seqeval(drawn: list[list[tuple[str, str]]]) -> None:
    found, right = ([[tag[side] for tag in text] for text in drawn] for side in (0, 1))
    score = quiet(seqeval.metrics.f1_score, right, found, average="micro", zero_division=0)
    assert ours.SpanF1()(*spans_in(drawn)) == close(score)
    entities = seqeval.metrics.sequence_labeling.get_entities(found[0])
    assert spans_of(found[0]) == {(kind, start, end + 1) for kind, start, end in entities}


def squad_f1(answer: str, right: str) -> float:
    """Return the F1 of two texts as the script of SQuAD v1.1 has it: 0 of texts without words."""
    found, expected = answer.split(), right.split()
    same = sum((Counter(found) & Counter(expected)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(found), same / len(expected)
    return 2 * precision * recall / (precision + recall)


@given(texts, hidden)
def test_metrics_of_texts_and_tokens_are_means(
    drawn: list[tuple[str, list[str]]], tokens: list[tuple[int, int, float]]
) -> None:
    sides = of_texts(drawn)
    exact = [text in right for text, right in drawn]
    assert ours.ExactMatch()(*sides) == close(np.mean(exact))
    expected = np.mean([max(squad_f1(text, one) for one in right) for text, right in drawn])
    assert ours.AnswerF1()(*sides) == close(float(expected))
    found, right, losses = zip(*tokens, strict=True)
    assert ours.TokenAccuracy()(*of_hidden(tokens)) == close(reference.accuracy_score(right, found))
    assert ours.TokenLoss()(*of_hidden(tokens)) == close(np.mean(losses))
    expected = np.exp(min(np.mean(losses), 88))
    assert ours.Perplexity()(*of_hidden(tokens)) == close(float(expected))
