"""Metrics that do not fit their task are refused by name, before anything is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from masked_task import masked_task
from torchmetrics.classification import BinaryAUROC

from multiprune.data.source import HubSource
from multiprune.metrics import (
    AUROC,
    F1,
    Accuracy,
    AnswerF1,
    ExpectedCalibrationError,
    LogLoss,
    Metric,
    Pearson,
    Perplexity,
    RecallAtK,
    SpanF1,
    TokenAccuracy,
)
from multiprune.models.from_scratch import character_tokenizer
from multiprune.tasks.answer_text import squad
from multiprune.tasks.classification import Classification, MultiLabel, Regression
from multiprune.tasks.question_answering import QuestionAnswering
from multiprune.tasks.scores import check_metrics
from multiprune.tasks.spans import SpanTagging
from multiprune.tasks.tagging import Tagging

if TYPE_CHECKING:
    from multiprune.tasks.task import Task


def made(kind: str, metric: Any) -> Task:
    settings: dict[str, Any] = {
        "text": ["text"],
        "label": "label",
        "metrics": {"mine": metric},
        "source": HubSource(path=None, mirror="nowhere"),
    }
    if kind == "number":
        return Regression(minimum=0, maximum=1, **settings)
    if kind == "questions":
        pair = settings | {"text": ["question", "context"]}
        return QuestionAnswering(label_start="start", normalize=squad, **pair)
    if kind == "hidden":
        return masked_task(metrics={"mine": metric}).read_by(character_tokenizer())
    kinds: dict[str, tuple[Any, list[str]]] = {
        "two": (Classification, ["a", "b"]),
        "three": (Classification, ["a", "b", "c"]),
        "sets": (MultiLabel, ["a", "b", "c"]),
        "tags": (Tagging, ["a", "b", "c"]),
        "spans": (SpanTagging, ["O", "B-X", "I-X"]),
    }
    made, labels = kinds[kind]
    task: Task = made(labels=labels, **settings)
    return task


@pytest.mark.parametrize(
    ("kind", "metric"),
    [
        *(("two", one) for one in (F1(), Accuracy(), AUROC(), BinaryAUROC(), RecallAtK(k=2))),
        *(("three", one) for one in (Accuracy(), AUROC(), RecallAtK(k=3))),
        *(("sets", one) for one in (Accuracy(), AUROC(), RecallAtK(k=3))),
        *(("tags", one) for one in (Accuracy(), AUROC())),
        ("number", Pearson()),
        ("spans", SpanF1()),
        ("questions", AnswerF1()),
        ("hidden", TokenAccuracy()),
    ],
    ids=str,
)
def test_metrics_that_fit_are_taken(kind: str, metric: Any) -> None:
    check_metrics({"it": made(kind, metric)})


@pytest.mark.parametrize(
    ("kind", "metric", "said"),
    [
        ("two", Pearson(), "Pearson is for numbers, but the task predicts one of 2 classes."),
        ("three", F1(), "F1 is for two classes, but the task predicts one of 3 classes."),
        ("three", RecallAtK(k=4), "k is 4, but the task predicts one of 3 classes."),
        ("three", BinaryAUROC(), "BinaryAUROC of torchmetrics is not for a task that predicts one"),
        ("sets", F1(), "F1 is for classes, but the task predicts any of 3 labels."),
        ("sets", RecallAtK(k=4), "k is 4, but the task predicts any of 3 labels."),
        ("tags", SpanF1(), "SpanF1 is for named spans, but the task predicts one of 3 classes."),
        ("number", Accuracy(), "Accuracy is for classes or sets of labels, but the task predicts"),
        ("spans", Accuracy(), "Accuracy is for classes or sets of labels, but the task predicts"),
        ("questions", SpanF1(), "SpanF1 is for named spans, but the task predicts answers"),
        ("hidden", Accuracy(), "Accuracy is for classes or sets of labels, but the task predicts"),
    ],
    ids=str,
)  # fmt: skip
def test_metrics_that_do_not_fit_are_refused(kind: str, metric: Any, said: str) -> None:
    with pytest.raises(ValueError, match=r"\.$") as error:
        check_metrics({"it": made(kind, metric)})
    assert str(error.value).startswith(f"Metric 'mine' of 'it' does not fit: {said}")


@pytest.mark.parametrize("metric", [LogLoss(), ExpectedCalibrationError()])
def test_of_what_less_is_better_is_no_score(metric: Metric) -> None:
    with pytest.raises(ValueError, match="must be better when higher, but is 'mine'"):
        made("two", metric)


def test_perplexity_is_no_score() -> None:
    with pytest.raises(ValueError, match="must be better when higher, but is 'mine'"):
        masked_task(metrics={"mine": Perplexity()})
