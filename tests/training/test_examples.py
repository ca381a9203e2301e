"""Which examples are shown for error analysis, and how."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from datasets import Dataset

from multiprune.data.source import GeneratedSource
from multiprune.metrics import Accuracy
from multiprune.runs.predictions import Answers
from multiprune.tasks.classification import Classification, MultiLabel, Regression
from multiprune.tasks.rows import Rows
from multiprune.tasks.tagging import Tagging
from multiprune.training.examples import worst_examples

if TYPE_CHECKING:
    from multiprune.tasks.task import Task


def task(kind: type[Task], **options: Any) -> Task:
    source = GeneratedSource(generator=lambda *_: {}, rows={})
    return kind(
        text=["text"], label="y", metrics={"accuracy": Accuracy()}, source=source, **options
    )


def rows(*texts: Any) -> Rows:
    return Rows(Dataset.from_dict({"text": list(texts)}), "test", "")


def answers(predictions: list[Any], labels: list[Any], examples: list[int]) -> Answers:
    return Answers(torch.tensor(predictions), torch.tensor(labels), torch.tensor(examples))


def test_wrong_classes_come_first_in_order_of_their_examples() -> None:
    # As two ranks leave them: examples 0 and 2 first.
    given = answers([0, 1, 1, 0], [0, 0, 0, 0], [0, 2, 1, 3])
    table = worst_examples(task(Classification, labels=["no", "yes"]), rows(*"abcd"), given, 3)
    assert table.columns == ["text", "label", "prediction", "error"]
    assert table.rows == [["b", "no", "yes", 1.0], ["c", "no", "yes", 1.0], ["a", "no", "no", 0.0]]


def test_numbers_that_are_farthest_off_come_first() -> None:
    given = answers([1.0, 5.0, 2.0], [1.5, 1.0, 4.0], [0, 1, 2])
    table = worst_examples(task(Regression, minimum=0, maximum=5), rows(*"abc"), given, 9)
    assert [row[0] for row in table.rows] == ["b", "c", "a"]
    assert table.rows[0] == ["b", "1", "5", 4.0]


def test_tags_of_an_example_stand_together() -> None:
    given = answers([0, 1, 1], [1, 0, 1], [1, 0, 1])
    words = rows(["one"], ["two", "three"])
    table = worst_examples(task(Tagging, labels=["O", "B"]), words, given, 2)
    assert table.rows == [["one", "O", "B", 1.0], ["two three", "B B", "O B", 0.5]]


def test_sets_of_labels_are_named() -> None:
    given = answers([[1, 1], [0, 0]], [[1, 0], [0, 0]], [0, 1])
    table = worst_examples(task(MultiLabel, labels=["joy", "fear"]), rows(*"ab"), given, 2)
    assert table.rows == [["a", "joy", "joy, fear", 0.5], ["b", "", "", 0.0]]


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_there_are_at_most_as_many_as_there_are(count: int) -> None:
    given = answers([0, 1], [0, 0], [0, 1])
    table = worst_examples(task(Classification, labels=["no", "yes"]), rows(*"ab"), given, count)
    assert len(table.rows) == min(count, 2)
