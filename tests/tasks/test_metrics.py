from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.random import Generator, default_rng
from scipy import stats
from sklearn import metrics as sklearn_metrics
from torch import Tensor, tensor

from multiprune.tasks.metrics import (
    accuracy,
    f1,
    macro_f1,
    matthews_correlation,
    micro_f1,
    pearson,
    spearman,
)

TOLERANCE = 1e-12

seeds = pytest.mark.parametrize("seed", range(5))


@pytest.fixture
def rng(seed: int) -> Generator:
    return default_rng(seed)


def noisy(rng: Generator, labels: np.ndarray, classes: int) -> np.ndarray:
    """Return predictions of which about two thirds are the label."""
    return np.where(
        rng.random(labels.shape) < 0.6, labels, rng.integers(classes, size=labels.shape)
    )


@seeds
@pytest.mark.parametrize("classes", [2, 5])
def test_single_label_metrics_agree_with_scikit_learn(rng: Generator, classes: int) -> None:
    labels = rng.integers(classes, size=60)
    predictions = noisy(rng, labels, classes)
    mine, right = tensor(predictions), tensor(labels)
    expected = {
        accuracy: sklearn_metrics.accuracy_score(labels, predictions),
        macro_f1: sklearn_metrics.f1_score(labels, predictions, average="macro"),
        micro_f1: sklearn_metrics.f1_score(labels, predictions, average="micro"),
        matthews_correlation: sklearn_metrics.matthews_corrcoef(labels, predictions),
    }
    for metric, value in expected.items():
        assert metric(mine, right) == pytest.approx(value, abs=TOLERANCE), metric.__name__


@seeds
def test_f1_agrees_with_scikit_learn(rng: Generator) -> None:
    labels = rng.integers(2, size=60)
    predictions = noisy(rng, labels, 2)
    expected = sklearn_metrics.f1_score(labels, predictions)
    assert f1(tensor(predictions), tensor(labels)) == pytest.approx(expected, abs=TOLERANCE)


@seeds
def test_multi_label_metrics_agree_with_scikit_learn(rng: Generator) -> None:
    labels = rng.integers(2, size=(60, 4))
    predictions = noisy(rng, labels, 2)
    for metric, average in ((macro_f1, "macro"), (micro_f1, "micro")):
        expected = sklearn_metrics.f1_score(labels, predictions, average=average)
        mine = metric(tensor(predictions), tensor(labels))
        assert mine == pytest.approx(expected, abs=TOLERANCE), average
    expected = sklearn_metrics.accuracy_score(labels, predictions)
    assert accuracy(tensor(predictions), tensor(labels)) == pytest.approx(expected, abs=TOLERANCE)


@seeds
def test_correlations_agree_with_scipy(rng: Generator) -> None:
    labels = rng.normal(size=60)
    predictions = labels + rng.normal(size=60)
    expected = stats.pearsonr(predictions, labels).statistic
    assert pearson(tensor(predictions), tensor(labels)) == pytest.approx(expected, abs=TOLERANCE)
    expected = stats.spearmanr(predictions, labels).statistic
    assert spearman(tensor(predictions), tensor(labels)) == pytest.approx(expected, abs=TOLERANCE)


def test_three_million_answers_are_counted_in_double_precision() -> None:
    # One in a thousand is of class 1. The two libraries are told how often each pair occurs.
    labels, predictions = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    counts = np.array([2_995_411, 1_589, 1_203, 1_797])
    many = [tensor(one).repeat_interleave(tensor(counts)) for one in (predictions, labels)]
    pairs = {"y_true": labels, "y_pred": predictions, "sample_weight": counts}
    correlation = sklearn_metrics.matthews_corrcoef(**pairs)
    covariance = np.cov(labels, predictions, fweights=counts)
    expected = {
        accuracy: sklearn_metrics.accuracy_score(**pairs),
        f1: sklearn_metrics.f1_score(**pairs),
        macro_f1: sklearn_metrics.f1_score(**pairs, average="macro"),
        matthews_correlation: correlation,
        pearson: covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]),
        # Of two values, ranks are as correlated as the values.
        spearman: correlation,
    }
    for metric, value in expected.items():
        assert metric(*many) == pytest.approx(value, abs=1e-11), metric.__name__


@seeds
def test_spearman_shares_the_rank_of_ties(rng: Generator) -> None:
    labels = rng.integers(6, size=60).astype(float)
    predictions = labels + rng.integers(-2, 3, size=60)
    expected = stats.spearmanr(predictions, labels).statistic
    assert spearman(tensor(predictions), tensor(labels)) == pytest.approx(expected, abs=TOLERANCE)


def test_multi_label_accuracy_counts_exact_matches() -> None:
    labels = tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]])
    predictions = tensor([[1, 0, 1], [0, 0, 1], [1, 1, 1], [1, 0, 1]])
    assert accuracy(predictions, labels) == 0.5


def test_macro_f1_leaves_out_classes_that_do_not_occur() -> None:
    # Class 0: one hit, F1 1. Class 3: one hit of two, F1 2/3. Class 2: no hit. Class 1 is absent.
    assert macro_f1(tensor([0, 3, 2]), tensor([0, 3, 3])) == pytest.approx((1 + 2 / 3 + 0) / 3)


@pytest.mark.parametrize("predicted", [0, 1, 2])
@pytest.mark.parametrize("labels", [[0, 0, 0, 0, 1], [0, 1, 1, 1, 1], [0, 1, 0, 1, 0], [1] * 5])
def test_matthews_of_constant_predictions_is_0(predicted: int, labels: list[int]) -> None:
    predictions = torch.full((5,), predicted)
    assert matthews_correlation(predictions, tensor(labels)) == 0


def test_matthews_of_constant_labels_is_0() -> None:
    assert matthews_correlation(tensor([0, 1, 1, 1, 1]), torch.ones(5, dtype=torch.long)) == 0


@pytest.mark.parametrize("metric", [pearson, spearman])
@pytest.mark.parametrize("value", [0.0, -0.7, 1e6])
def test_correlation_of_constant_predictions_is_0(
    metric: Callable[[Tensor, Tensor], float], value: float
) -> None:
    assert metric(torch.full((4,), value), tensor([1.0, 2.0, 3.0, 4.0])) == 0


@pytest.mark.parametrize("metric", [pearson, spearman])
def test_correlation_with_constant_labels_is_0(metric: Callable[[Tensor, Tensor], float]) -> None:
    assert metric(tensor([1.0, 2.0, 3.0]), tensor([2.0, 2.0, 2.0])) == 0


def test_f1_is_0_when_class_1_is_neither_predicted_nor_right() -> None:
    assert f1(torch.zeros(3, dtype=torch.long), torch.zeros(3, dtype=torch.long)) == 0
