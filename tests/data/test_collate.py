from typing import Any

import torch

from multiprune.data.collate import collate
from multiprune.data.source import HubSource
from multiprune.metrics import Accuracy
from multiprune.tasks.classification import Classification, Regression
from multiprune.tasks.tagging import Tagging

COMMON: dict[str, Any] = {
    "text": ["sentence"],
    "label": "label",
    "metrics": {"accuracy": Accuracy()},
    "source": HubSource(path=None, mirror="nowhere"),
}
CLASSES = Classification(labels=["bad", "good"], **COMMON)
COLUMNS: dict[str, list[Any]] = {
    "input_ids": [[2, 7, 3], [2, 7, 8, 9, 3], [2, 3]],
    "token_type_ids": [[0, 1, 1], [0, 0, 0, 1, 1], [0, 0]],
    "labels": [1, 0, 1],
}


def test_rows_are_padded_on_the_right_to_the_longest() -> None:
    batch = collate("task", CLASSES, COLUMNS, padding_token=11)
    assert batch.task == "task"
    assert {name: one.tolist() for name, one in batch.inputs.items()} == {
        "input_ids": [[2, 7, 3, 11, 11], [2, 7, 8, 9, 3], [2, 3, 11, 11, 11]],
        "token_type_ids": [[0, 1, 1, 0, 0], [0, 0, 0, 1, 1], [0, 0, 0, 0, 0]],
        "attention_mask": [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 1, 0, 0, 0]],
    }
    assert batch.labels.tolist() == [1, 0, 1]


def test_inputs_are_whole_numbers() -> None:
    batch = collate("task", CLASSES, COLUMNS, padding_token=0)
    assert {one.dtype for one in [*batch.inputs.values(), batch.labels]} == {torch.long}


def test_token_that_looks_like_padding_is_attended_to() -> None:
    columns: dict[str, list[Any]] = {"input_ids": [[2, 0, 3], [2, 3]], "labels": [0, 1]}
    batch = collate("task", CLASSES, columns, padding_token=0)
    assert batch.inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]


def test_token_types_are_left_out_where_the_tokenizer_has_none() -> None:
    columns: dict[str, list[Any]] = {"input_ids": [[2, 3]], "labels": [0]}
    assert set(collate("task", CLASSES, columns, padding_token=1).inputs) == {
        "input_ids",
        "attention_mask",
    }


def test_tags_are_padded_to_the_width_of_the_batch() -> None:
    tagging = Tagging(labels=["other", "agent"], **COMMON)
    columns: dict[str, list[Any]] = {
        "input_ids": [[2, 7, 3], [2, 7, 8, 3]],
        "labels": [[-100, 1, -100], [-100, 0, 1, -100]],
    }
    labels = collate("task", tagging, columns, padding_token=0).labels
    assert labels.tolist() == [[-100, 1, -100, -100], [-100, 0, 1, -100]]


def test_numbers_become_floats() -> None:
    number = Regression(minimum=0, maximum=5, **COMMON)
    columns: dict[str, list[Any]] = {"input_ids": [[2, 3]], "labels": [2.5]}
    labels = collate("task", number, columns, padding_token=0).labels
    assert labels.dtype == torch.float32
    assert labels.tolist() == [2.5]
