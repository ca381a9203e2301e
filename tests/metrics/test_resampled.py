"""Resampled metrics, and sums of parts, against the metrics of examples that are really there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from metric_world import certain, classes, label_sets, numbers, resampled_scores
from torch import Tensor

from multiprune.metrics import (
    AUROC,
    F1,
    Accuracy,
    AnswerF1,
    AveragePrecision,
    ExactMatch,
    ExpectedCalibrationError,
    LogLoss,
    MacroF1,
    MatthewsCorrelation,
    MicroF1,
    Pearson,
    Perplexity,
    RecallAtK,
    SpanF1,
    Spearman,
    SumMetric,
    TokenAccuracy,
    TokenLoss,
)
from multiprune.metrics.catalogue import CATALOGUE, from_record, recorded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multiprune.metrics.catalogue import Known

EXAMPLES = 30
SPANS = [{("a", 0, 1)}, {("a", 0, 1), ("b", 2, 4)}, set(), {("b", 0, 1)}]
TEXTS = ["red dog", "dog", "the cat", "red cat", "fox"]

OF_CLASSES = [
    Accuracy(), MacroF1(), MicroF1(), MatthewsCorrelation(), LogLoss(), AUROC(),
    AveragePrecision(), ExpectedCalibrationError(), RecallAtK(k=2),
]  # fmt: skip
OF_SETS = [Accuracy(), MacroF1(), MicroF1(), LogLoss(), AUROC(), AveragePrecision(), RecallAtK(k=2)]


def given(kind: str, answers: int) -> tuple[Any, Any]:
    if kind == "spans":
        found = [SPANS[place % 4] for place in range(answers)]
        return found, [SPANS[(place // 3) % 4] for place in range(answers)]
    if kind == "texts":
        return [TEXTS[place % 5] for place in range(answers)], [
            [TEXTS[place % 3], "fox"] for place in range(answers)
        ]
    if kind == "hidden tokens":
        outputs, labels = torch.rand(2, answers, 2, generator=torch.Generator().manual_seed(0))
        outputs[:, 0], labels[:, 0] = torch.arange(answers) % 3, torch.arange(answers) % 2
        return outputs, labels
    if kind == "sets":
        return label_sets(4, answers)
    return numbers(answers) if kind == "numbers" else classes({"two": 2, "four": 4}[kind], answers)


CASES = [
    *(("four", metric) for metric in OF_CLASSES),
    # Both of two classes are always among the two likeliest.
    *(("two", metric) for metric in [*OF_CLASSES[:-1], F1()]),
    *(("sets", metric) for metric in OF_SETS),
    *(("numbers", metric) for metric in (Pearson(), Spearman())),
    *(("hidden tokens", metric) for metric in (TokenAccuracy(), TokenLoss(), Perplexity())),
    ("spans", SpanF1()),
    *(("texts", metric) for metric in (ExactMatch(), AnswerF1())),
]


def weights_of(examples: int) -> Tensor:
    """Return 40 resamples, of which one has all examples once and one has one only."""
    generator = torch.Generator().manual_seed(1)
    drawn = torch.randint(examples, (40, examples), generator=generator)
    weights = torch.stack([torch.bincount(one, minlength=examples) for one in drawn]).float()
    weights[0] = 1
    weights[1] = 0
    weights[1, 2] = 7
    return weights


def repeated(values: Any, times: Sequence[int]) -> Any:
    places = [place for place, often in enumerate(times) for _ in range(often)]
    return values[places] if isinstance(values, Tensor) else [values[place] for place in places]


def test_every_metric_is_resampled_here() -> None:
    assert {type(metric) for _, metric in CASES} == {*CATALOGUE.values()}


@pytest.mark.parametrize("each", [1, 3])
@pytest.mark.parametrize(("kind", "metric"), CASES, ids=str)
def test_score_of_a_resample_is_that_of_examples_repeated(
    kind: str, metric: Known, each: int
) -> None:
    outputs, labels = given(kind, EXAMPLES * each)
    # Answers to one example lie apart, and are still resampled together.
    examples = torch.arange(EXAMPLES * each) % EXAMPLES
    weights = weights_of(EXAMPLES)
    found = resampled_scores(metric, outputs, labels, weights, examples)
    expected = [
        metric(repeated(outputs, times), repeated(labels, times))
        for times in weights[:, examples].long().tolist()
    ]
    assert found == pytest.approx(expected, abs=1e-9)
    assert len(set(found)) > 3


@pytest.mark.parametrize(("kind", "metric"), CASES, ids=str)
def test_sums_of_processes_add_up_to_the_score_of_all(kind: str, metric: Known) -> None:
    if not isinstance(metric, SumMetric):
        assert type(metric) in (AUROC, AveragePrecision, Pearson, Spearman)
        return
    outputs, labels = given(kind, 50)
    parts = [
        (outputs[:20], labels[:20]),
        (outputs[20:21], labels[20:21]),
        (outputs[21:], labels[21:]),
    ]
    total = torch.stack([metric.total(*part) for part in parts]).sum(0)
    assert float(metric.formula(total)) == pytest.approx(metric(outputs, labels), abs=1e-12)


def test_a_set_that_is_summed_in_blocks_has_one_score(monkeypatch: pytest.MonkeyPatch) -> None:
    outputs, labels = classes(4)
    expected = MacroF1()(outputs, labels)
    monkeypatch.setattr("multiprune.metrics.metric._BLOCK", 28)
    widest = []
    sums = MacroF1.sums

    def noted(self: MacroF1, outputs: Tensor, labels: Tensor) -> Tensor:
        widest.append(len(labels))
        return sums(self, outputs, labels)

    monkeypatch.setattr(MacroF1, "sums", noted)
    assert MacroF1()(outputs, labels) == expected
    assert max(widest) == 7


def test_three_million_examples_are_counted_exactly() -> None:
    counts = torch.tensor([2_995_411, 1_589, 1_203, 1_797])
    predictions, labels = (
        torch.tensor(one).repeat_interleave(counts) for one in ([0, 1, 0, 1], [0, 0, 1, 1])
    )
    weights, outputs = torch.ones(1, 3_000_000), certain(predictions)
    (found,) = resampled_scores(F1(), outputs, labels, weights)
    assert found == pytest.approx(F1()(outputs, labels), abs=1e-12)
    (found,) = resampled_scores(Pearson(), predictions, labels, weights)
    assert found == pytest.approx(Pearson()(predictions, labels), abs=1e-12)


@pytest.mark.parametrize("metric", [Pearson(), Spearman()])
def test_constant_predictions_have_no_correlation(metric: Known) -> None:
    constant, other = torch.full((EXAMPLES,), 0.1), torch.arange(EXAMPLES) % 2
    for outputs, labels in ((constant, other), (other, constant)):
        assert set(resampled_scores(metric, outputs, labels, weights_of(EXAMPLES))) == {0}


@pytest.mark.parametrize("metric", [metric for _, metric in CASES], ids=str)
def test_metrics_come_back_from_their_records(metric: Known) -> None:
    assert from_record(recorded(metric)) == metric


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"name": "builtins.exec"}, "'builtins.exec' is not one of the metrics of multiprune"),
        ({}, "None is not one of the metrics"),
        ({"name": []}, "is not one of the metrics"),
        ({"name": "recall_at_k"}, "the metric 'recall_at_k' has no settings {}"),
        ({"name": "recall_at_k", "k": 0}, "`k` must be a whole number of at least 1"),
        ({"name": "accuracy", "k": 3}, "the metric 'accuracy' has no settings {'k': 3}"),
    ],
)
def test_records_of_other_metrics_are_refused(record: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        from_record(record)


def test_metrics_derived_from_ours_are_not_recorded_as_ours() -> None:
    class Mine(Accuracy):
        pass

    assert recorded(Mine()) == {"name": "Mine"}
