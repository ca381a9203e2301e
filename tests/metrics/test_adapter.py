"""Metrics of torchmetrics beside our own, which were compared with other libraries."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from metric_world import classes, label_sets, numbers
from torchmetrics import classification, regression, text

from multiprune.metrics import (
    AUROC,
    Accuracy,
    AveragePrecision,
    MacroF1,
    Metric,
    MicroF1,
    Pearson,
)
from multiprune.metrics.adapter import TorchMetric
from multiprune.metrics.catalogue import recorded
from multiprune.metrics.predicted import (
    AnswerTexts,
    Classes,
    HiddenTokens,
    LabelSets,
    NamedSpans,
    Numbers,
    Predicted,
)


@pytest.mark.parametrize(
    ("theirs", "ours", "output"),
    [
        (classification.BinaryAUROC(), AUROC(), Classes(2)),
        # Of two classes, too, each may have its probability.
        (classification.MulticlassAUROC(num_classes=2), AUROC(), Classes(2)),
        (classification.BinaryAccuracy(), Accuracy(), Classes(2)),
        (classification.MulticlassAUROC(num_classes=4), AUROC(), Classes(4)),
        (classification.MulticlassAccuracy(num_classes=4, average="micro"), Accuracy(), Classes(4)),
        (classification.MulticlassF1Score(num_classes=4), MacroF1(), Classes(4)),
        (classification.MultilabelF1Score(num_labels=3, average="micro"), MicroF1(), LabelSets(3)),
        (classification.MultilabelAveragePrecision(num_labels=3), AveragePrecision(), LabelSets(3)),
        (regression.PearsonCorrCoef(), Pearson(), Numbers()),
    ],
    ids=str,
)
def test_scores_are_those_of_our_own(theirs: Any, ours: Metric, output: Predicted) -> None:
    metric = TorchMetric(theirs)
    metric.check(output)
    for seed in (0, 1):
        given = numbers(seed=seed)
        if isinstance(output, Classes | LabelSets):
            given = (classes if isinstance(output, Classes) else label_sets)(output.count, 60, seed)
        assert metric(*given) == pytest.approx(ours(*given), abs=1e-5)


def test_texts_are_compared() -> None:
    metric = TorchMetric(text.BLEUScore(n_gram=1))
    metric.check(AnswerTexts())
    assert metric(["red dog", "cat"], [["red dog", "fox"], ["fox"]]) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("theirs", "output", "said"),
    [
        (classification.BinaryAUROC(), Classes(3), "BinaryAUROC .* predicts one of 3 classes: "),
        (classification.MulticlassAUROC(num_classes=5), Classes(3), "one of 3 classes: .*5"),
        (regression.MeanSquaredError(), Classes(2), "MeanSquaredError .* is not for classes"),
        (regression.PearsonCorrCoef(), LabelSets(2), "PearsonCorrCoef .* not for sets of labels"),
        (classification.BinaryAUROC(), Numbers(), "BinaryAUROC of torchmetrics is not for numbers"),
        (classification.BinaryAUROC(), NamedSpans(), "is not for named spans"),
        (text.BLEUScore(), HiddenTokens(), "BLEUScore of torchmetrics is not for hidden tokens"),
        (classification.MulticlassAccuracy(num_classes=3, average=None), Classes(3),
         r"must compute one number, but computes a tensor of shape \(3,\)"),
        (classification.BinaryROC(), Classes(2), "must compute one number, but computes a tuple"),
    ],
    ids=str,
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_sentence(
    theirs: Any, output: Predicted, said: str
) -> None:
    with pytest.raises(ValueError, match=said) as error:
        TorchMetric(theirs).check(output)
    assert "\n" not in str(error.value)


def test_of_what_less_is_better_is_known() -> None:
    assert TorchMetric(classification.MulticlassCalibrationError(num_classes=3)).lower_is_better
    assert not TorchMetric(classification.BinaryAUROC()).lower_is_better


def test_a_second_set_does_not_see_the_first() -> None:
    metric = TorchMetric(classification.BinaryAUROC())
    first, second = classes(2, seed=0), classes(2, seed=1)
    values = [metric(*first), metric(*second), metric(*first)]
    assert values[0] == values[2] != values[1]


def test_what_is_recorded_is_a_name() -> None:
    metric = TorchMetric(classification.BinaryAUROC())
    assert recorded(metric) == {"name": "BinaryAUROC of torchmetrics"}


def test_processes_that_have_all_answers_do_not_gather_them() -> None:
    metric = TorchMetric(classification.BinaryAUROC()).metric
    assert not metric.sync_on_compute


def test_what_needs_no_torchmetrics_does_not_wait_for_it() -> None:
    code = "import multiprune.report.write, multiprune.tasks.spans, sys; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"torch", "multiprune.metrics.catalogue"} <= {*run.stdout.split()}
    assert "torchmetrics" not in run.stdout.split()
