"""Metrics against scikit-learn and SciPy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from metric_world import certain, classes, label_sets, numbers
from scipy import stats
from sklearn import metrics as sklearn_metrics
from torch import tensor

from multiprune.metrics import (
    AUROC,
    F1,
    Accuracy,
    AveragePrecision,
    ExpectedCalibrationError,
    LogLoss,
    MacroF1,
    MatthewsCorrelation,
    MicroF1,
    Pearson,
    RecallAtK,
    Spearman,
)

if TYPE_CHECKING:
    from multiprune.metrics import Metric

TOLERANCE = 1e-12

seeds = pytest.mark.parametrize("seed", range(5))


@seeds
@pytest.mark.parametrize("count", [2, 5])
def test_metrics_of_decided_classes_are_those_of_scikit_learn(count: int, seed: int) -> None:
    outputs, labels = classes(count, seed=seed)
    decided = outputs.argmax(1)
    expected: dict[Metric, float] = {
        Accuracy(): sklearn_metrics.accuracy_score(labels, decided),
        MacroF1(): sklearn_metrics.f1_score(labels, decided, average="macro"),
        MicroF1(): sklearn_metrics.f1_score(labels, decided, average="micro"),
        MatthewsCorrelation(): sklearn_metrics.matthews_corrcoef(labels, decided),
    }
    if count == 2:
        expected[F1()] = sklearn_metrics.f1_score(labels, decided)
    for metric, value in expected.items():
        assert 0 < value < 1
        assert metric(outputs, labels) == pytest.approx(value, abs=TOLERANCE), metric


@seeds
@pytest.mark.parametrize("count", [2, 5])
def test_metrics_of_probabilities_are_those_of_scikit_learn(count: int, seed: int) -> None:
    outputs, labels = classes(count, seed=seed)
    # Some probabilities are equal.
    outputs = (outputs * 20).round().clamp(min=1)
    outputs = outputs / outputs.sum(1, keepdim=True)
    one_hot, of_two = certain(labels, count), count == 2
    expected: dict[Metric, float] = {
        LogLoss(): sklearn_metrics.log_loss(labels, outputs),
        AUROC(): sklearn_metrics.roc_auc_score(
            labels, outputs[:, 1] if of_two else outputs, multi_class="ovr"
        ),
        AveragePrecision(): sklearn_metrics.average_precision_score(
            *(labels, outputs[:, 1]) if of_two else (one_hot, outputs)
        ),
    }
    for metric, value in expected.items():
        assert 0.05 < value < 2
        assert metric(outputs, labels) == pytest.approx(value, abs=TOLERANCE), metric


@seeds
@pytest.mark.parametrize("k", [1, 2, 3])
def test_recall_at_k_is_that_of_scikit_learn(k: int, seed: int) -> None:
    outputs, labels = classes(4, seed=seed)
    expected = sklearn_metrics.top_k_accuracy_score(labels, outputs, k=k)
    assert RecallAtK(k=k)(outputs, labels) == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize("count", [3, 300])
def test_recall_at_k_of_equally_likely_classes_has_the_first(count: int) -> None:
    outputs, labels = torch.full((600, count), 1 / count), torch.arange(600) % count
    assert RecallAtK(k=1)(outputs, labels) == Accuracy()(outputs, labels)
    assert RecallAtK(k=2)(outputs, labels) == pytest.approx(2 / count)


def test_recall_at_k_of_sets_leaves_out_examples_without_labels() -> None:
    # One of two labels, none of one, and an example without.
    outputs = tensor([[0.9, 0.8, 0.7, 0.1], [0.4, 0.3, 0.2, 0.1], [0.5, 0.5, 0.5, 0.5]])
    labels = tensor([[1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]])
    assert RecallAtK(k=2)(outputs, labels) == pytest.approx((1 / 2 + 0) / 2)


@seeds
def test_metrics_of_label_sets_are_those_of_scikit_learn(seed: int) -> None:
    outputs, labels = label_sets(4, seed=seed)
    decided, pairs = (outputs > 0.5).long(), (labels, outputs)
    by_label = zip(labels.T, outputs.T, strict=True)
    expected: dict[Metric, float] = {
        Accuracy(): sklearn_metrics.accuracy_score(labels, decided),
        MacroF1(): sklearn_metrics.f1_score(labels, decided, average="macro"),
        MicroF1(): sklearn_metrics.f1_score(labels, decided, average="micro"),
        AUROC(): sklearn_metrics.roc_auc_score(*pairs, average="macro"),
        AveragePrecision(): sklearn_metrics.average_precision_score(*pairs, average="macro"),
        LogLoss(): np.mean([sklearn_metrics.log_loss(*one) for one in by_label]),
    }
    for metric, value in expected.items():
        assert 0 < value < 1
        assert metric(outputs, labels) == pytest.approx(value, abs=TOLERANCE), metric


@seeds
def test_correlations_are_those_of_scipy(seed: int) -> None:
    # Spearman's with equal values.
    for given in (numbers(seed=seed), torch.randn(2, 60)):
        outputs, labels = given
        expected = stats.pearsonr(outputs.double(), labels.double()).statistic
        assert Pearson()(outputs, labels) == pytest.approx(expected, abs=TOLERANCE)
        expected = stats.spearmanr(outputs, labels).statistic
        assert Spearman()(outputs, labels) == pytest.approx(expected, abs=TOLERANCE)


def test_correlation_of_numbers_that_hardly_differ_keeps_its_digits() -> None:
    x, y = torch.randn(2, 500, dtype=torch.double)
    expected = stats.pearsonr(x, y).statistic
    assert Pearson()(3 + 1e-7 * x, y) == pytest.approx(expected, abs=1e-8)


def test_calibration_error_is_that_of_its_bins_by_hand() -> None:
    # Two bins of a half: answers above a half are right once in two, and 0.7 and 0.9 likely; those
    # at a half or below are both right.
    outputs = tensor([[0.7, 0.2, 0.1], [0.9, 0.1, 0.0], [0.4, 0.3, 0.3], [0.5, 0.3, 0.2]])
    labels = tensor([0, 2, 0, 0])
    expected = abs(0.7 + 0.9 - 1) / 4 + abs(0.4 + 0.5 - 2) / 4
    assert ExpectedCalibrationError(bins=2)(outputs, labels) == pytest.approx(expected)


@seeds
def test_calibration_error_is_that_of_torchmetrics(seed: int) -> None:
    from torchmetrics.functional.classification import multiclass_calibration_error

    outputs, labels = classes(4, 200, seed)
    expected = float(multiclass_calibration_error(outputs, labels, num_classes=4, n_bins=15))
    assert ExpectedCalibrationError()(outputs, labels) == pytest.approx(expected, abs=1e-6)
    assert expected > 0.01


def test_three_million_answers_are_counted_in_double_precision() -> None:
    # One in a thousand is of class 1. The two libraries are told how often each pair occurs.
    labels, predictions = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    counts = np.array([2_995_411, 1_589, 1_203, 1_797])
    many, right = (tensor(one).repeat_interleave(tensor(counts)) for one in (predictions, labels))
    outputs = certain(many)
    pairs: dict[str, Any] = {"y_true": labels, "y_pred": predictions, "sample_weight": counts}
    correlation = sklearn_metrics.matthews_corrcoef(**pairs)
    covariance = np.cov(labels, predictions, fweights=counts)
    expected: dict[Metric, float] = {
        Accuracy(): sklearn_metrics.accuracy_score(**pairs),
        F1(): sklearn_metrics.f1_score(**pairs),
        MacroF1(): sklearn_metrics.f1_score(**pairs, average="macro"),
        MatthewsCorrelation(): correlation,
        AUROC(): sklearn_metrics.roc_auc_score(labels, predictions, sample_weight=counts),
    }
    for metric, value in expected.items():
        assert metric(outputs, right) == pytest.approx(value, abs=1e-11), metric
    pearson = covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])
    assert Pearson()(many, right) == pytest.approx(pearson, abs=1e-11)
    # Of two values, ranks are as correlated as the values.
    assert Spearman()(many, right) == pytest.approx(correlation, abs=1e-11)


def test_accuracy_of_sets_counts_exact_matches() -> None:
    labels = tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]])
    outputs = tensor([[0.9, 0, 0.6], [0, 0, 0.6], [0.6, 0.7, 1], [0.6, 0, 0.6]])
    assert Accuracy()(outputs, labels) == 0.5


def test_macro_f1_leaves_out_classes_that_do_not_occur() -> None:
    # Class 0: one hit, F1 1. Class 3: one hit of two, F1 2/3. Class 2: no hit. Class 1 is absent.
    found = MacroF1()(certain([0, 3, 2], 5), tensor([0, 3, 3]))
    assert found == pytest.approx((1 + 2 / 3 + 0) / 3)


def test_macro_f1_of_sets_has_all_labels() -> None:
    labels = tensor([[1, 0, 0], [1, 1, 0]])
    expected = sklearn_metrics.f1_score(labels, labels, average="macro", zero_division=0)
    assert MacroF1()(labels.double(), labels) == pytest.approx(expected) == pytest.approx(2 / 3)


def test_macro_averages_of_ranks_leave_out_classes_that_have_no_order() -> None:
    outputs, labels = classes(3)
    nobody = torch.cat([outputs, outputs.new_full((60, 1), 0.5)], 1)
    for metric in (AUROC(), AveragePrecision()):
        assert metric(nobody, labels) == pytest.approx(metric(outputs, labels)), metric


def test_order_of_one_class_alone_is_chance_or_nothing() -> None:
    outputs, ones = certain([0, 1, 1]), torch.ones(3, dtype=torch.long)
    assert AUROC()(outputs, ones) == AUROC()(outputs, 0 * ones) == 0.5
    assert AveragePrecision()(outputs, 0 * ones) == 0


def test_loss_of_what_is_said_to_be_impossible_is_finite() -> None:
    expected = sklearn_metrics.log_loss([1], [[1.0, 0.0]], labels=[0, 1])
    assert LogLoss()(certain([0]), tensor([1])) == pytest.approx(expected)


@pytest.mark.parametrize("predicted", [0, 1, 2])
@pytest.mark.parametrize("labels", [[0, 0, 0, 0, 1], [0, 1, 1, 1, 1], [0, 1, 0, 1, 0], [1] * 5])
def test_matthews_of_constant_predictions_is_0(predicted: int, labels: list[int]) -> None:
    assert MatthewsCorrelation()(certain([predicted] * 5, 3), tensor(labels)) == 0


def test_matthews_of_constant_labels_is_0() -> None:
    ones = torch.ones(5, dtype=torch.long)
    assert MatthewsCorrelation()(certain([0, 1, 1, 1, 1]), ones) == 0


@pytest.mark.parametrize("metric", [Pearson(), Spearman()])
@pytest.mark.parametrize("value", [0.0, -0.7, 0.1, 1e6])
def test_correlation_with_a_constant_is_0(metric: Metric, value: float) -> None:
    constant, other = torch.full((4,), value), tensor([1.0, 2.0, 3.0, 4.0])
    assert metric(constant, other) == metric(other, constant) == 0


def test_f1_is_0_when_class_1_is_neither_predicted_nor_right() -> None:
    assert F1()(certain([0, 0, 0]), torch.zeros(3, dtype=torch.long)) == 0
