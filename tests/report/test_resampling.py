"""Resampled metrics against the metrics themselves on examples that are really repeated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from multiprune.report.findings import resampling
from multiprune.report.findings.resampling import METRICS, resampled_metric, resamples
from multiprune.tasks import metrics

if TYPE_CHECKING:
    from multiprune.report.findings.resampling import Answered, Weights

EXAMPLES = 30


def weights_of(examples: int) -> Weights:
    """Return 40 resamples, of which one has all examples once and one has one only."""
    (drawn,) = resamples(examples, 40, seed=1)
    drawn[0] = 1
    drawn[1] = 0
    drawn[1, 2] = 7
    return drawn


def repeated(
    name: str, predictions: Answered, labels: Answered, weights: Weights, examples: Answered
) -> list[float]:
    """Return the metric of each resample, by repeating every answer of an example."""
    metric = getattr(metrics, name)
    sides = [torch.from_numpy(one) for one in (predictions, labels)]
    times = [torch.from_numpy(row[examples].astype(np.int64)) for row in weights]
    return [metric(*(side.repeat_interleave(one, 0) for side in sides)) for one in times]


def labelled(kind: str, answers: int) -> tuple[Answered, Answered]:
    """Return predictions that are right more often than not, and labels."""
    generator = np.random.default_rng(5)
    shape = (answers, 4) if kind == "sets" else (answers,)
    labels: Answered
    if kind == "numbers":
        labels = np.round(generator.normal(3, 2, shape) * 2) / 2
        return (labels + generator.normal(size=shape)).astype(np.float32), labels
    # Class 3 of four has no label, and 4 of five neither label nor prediction.
    highest = {"two classes": 2, "classes": 3, "sets": 2}[kind]
    labels = generator.integers(highest, size=shape)
    wrong = generator.integers(highest + (kind == "classes"), size=shape)
    return np.where(generator.random(shape) < 0.3, wrong, labels).astype(np.int8), labels


@pytest.mark.parametrize("each", [1, 3])
@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("two classes", ["accuracy", "f1", "macro_f1", "micro_f1", "matthews_correlation"]),
        ("classes", ["accuracy", "macro_f1", "micro_f1", "matthews_correlation"]),
        ("sets", ["accuracy", "f1", "macro_f1", "micro_f1", "matthews_correlation"]),
        ("numbers", ["pearson", "spearman"]),
    ],
)
def test_score_of_a_resample_is_that_of_examples_repeated(
    kind: str, names: list[str], each: int
) -> None:
    predictions, labels = labelled(kind, EXAMPLES * each)
    # Answers to one example lie apart, and are still resampled together.
    examples = np.arange(EXAMPLES * each) % EXAMPLES
    weights = weights_of(EXAMPLES)
    for name in names:
        found = resampled_metric(name, predictions, labels, examples)(weights)
        expected = repeated(name, predictions, labels, weights, examples)
        assert found == pytest.approx(expected, abs=2e-6), name
        assert len(set(found)) > 3, name


def test_three_million_examples_are_counted_exactly() -> None:
    counts = [2_995_411, 1_589, 1_203, 1_797]
    predictions, labels = (
        np.repeat(np.array(one, np.int8), counts) for one in ([0, 1, 0, 1], [0, 0, 1, 1])
    )
    weights, examples = np.ones((1, 3_000_000), np.float32), np.arange(3_000_000)
    for name in ("f1", "matthews_correlation", "pearson"):
        found = resampled_metric(name, predictions, labels, examples)(weights)
        metric = getattr(metrics, name)
        expected = metric(torch.from_numpy(predictions), torch.from_numpy(labels))
        assert found[0] == pytest.approx(expected, abs=1e-9), name


def test_every_metric_has_a_resampled_form() -> None:
    own = [
        one for one in vars(metrics).values() if getattr(one, "__module__", "") == metrics.__name__
    ]
    named = {one.__name__ for one in own if one.__name__[0] != "_"}
    # Of hidden tokens a run notes what each example adds to the score.
    assert named - {"token_accuracy", "perplexity", "token_loss"} == set(METRICS)


@pytest.mark.parametrize("name", ["pearson", "spearman", "matthews_correlation"])
def test_constant_predictions_have_no_correlation(name: str) -> None:
    constant, labels = np.full(EXAMPLES, 3, np.int8), np.arange(EXAMPLES) % 2
    examples = np.arange(EXAMPLES)
    for predictions, truth in ((constant, labels), (labels, constant)):
        found = resampled_metric(name, predictions, truth, examples)(weights_of(EXAMPLES))
        assert np.all(found == 0)


def test_resamples_have_as_many_examples_and_are_the_same_each_time() -> None:
    (first,), (same,), (other,) = (resamples(50, 20, seed=seed) for seed in (1, 1, 2))
    assert np.all(first.sum(1) == 50)
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)


def test_blocks_are_parts_of_the_same_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    (whole,) = resamples(50, 20, seed=1)
    monkeypatch.setattr(resampling, "BLOCK", 350)
    blocks = list(resamples(50, 20, seed=1))
    assert [len(one) for one in blocks] == [7, 7, 6]
    assert np.array_equal(np.concatenate(blocks), whole)


def test_spread_of_accuracy_is_that_of_a_binomial() -> None:
    labels = np.zeros(400, np.int8)
    predictions = (np.arange(400) < 80).astype(np.int8)
    (weights,) = resamples(400, 5000, seed=0)
    found = resampled_metric("accuracy", predictions, labels, np.arange(400))(weights)
    assert found.mean() == pytest.approx(0.8, abs=0.002)
    assert found.std() == pytest.approx((0.8 * 0.2 / 400) ** 0.5, rel=0.05)
