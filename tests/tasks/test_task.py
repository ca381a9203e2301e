from collections.abc import Mapping
from typing import Any

import pytest
import torch
from datasets import Dataset

from multiprune.data.source import HubSource
from multiprune.metrics import F1, Accuracy
from multiprune.models.from_scratch import character_tokenizer
from multiprune.tasks.classification import Classification, Regression
from multiprune.tasks.rows import Rows
from multiprune.tasks.task import Batch, Task

TOKENIZER = character_tokenizer()
NOWHERE = HubSource(path=None, mirror="nowhere")


def rows(**columns: list[Any]) -> Rows:
    return Rows(Dataset.from_dict(columns), "corpus.parquet", "fingerprint")


def sentiment(**changes: Any) -> Task:
    arguments: dict[str, Any] = {
        "text": ["sentence"],
        "label": "label",
        "labels": ["bad", "good"],
        "metrics": {"accuracy": Accuracy()},
        "source": NOWHERE,
    }
    return Classification(**arguments | changes)


def ids(tokens: str) -> list[int]:
    return [TOKENIZER.get_vocab()[token] for token in tokens.split()]


@pytest.mark.parametrize("text", [[], ["a", "b", "c"]])
def test_wrong_number_of_text_columns_is_refused(text: list[str]) -> None:
    with pytest.raises(ValueError, match=r"`text` must name 1 or 2 column\(s\)"):
        sentiment(text=text)


def test_task_without_metric_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one metric"):
        sentiment(metrics={})


@pytest.mark.parametrize("weight", [-0.5, float("nan"), float("inf"), True])
def test_loss_weight_that_is_none_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match=rf"`loss_weight` must be .*but is {weight}"):
        sentiment(loss_weight=weight)


@pytest.mark.parametrize("bounds", [(float("nan"), 1), (0, float("nan")), (0, float("inf"))])
def test_bounds_of_a_number_are_finite(bounds: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"`m..imum` must be finite"):
        Regression(
            text=["sentence"],
            label="label",
            metrics={"accuracy": Accuracy()},
            source=NOWHERE,
            minimum=bounds[0],
            maximum=bounds[1],
        )


@pytest.mark.parametrize("metric", [print, "accuracy", None])
def test_metric_that_is_no_metric_is_refused(metric: Any) -> None:
    with pytest.raises(ValueError, match=r"Metric 'x' must be an object such as {_target_: multip"):
        sentiment(metrics={"x": metric})


@pytest.mark.parametrize("name", ["recall/5", "f1.en"])
def test_metric_that_could_not_be_logged_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"must be without / and .* but is '{name}'"):
        sentiment(metrics={name: Accuracy()})


def test_loss_weight_may_be_0() -> None:
    assert sentiment(loss_weight=0.0).loss_weight == 0


def test_first_metric_is_the_score() -> None:
    assert sentiment(metrics={"f1": F1(), "accuracy": Accuracy()}).score_name == "f1"


def test_single_text_is_wrapped_in_special_tokens() -> None:
    columns, truncated = sentiment().encode(
        rows(sentence=["the dog runs", "cats"], label=[1, 0]), TOKENIZER, 16
    )
    assert columns == {
        "input_ids": [ids("[CLS] the dog runs [SEP]"), ids("[CLS] cats [SEP]")],
        "token_type_ids": [[0] * 5, [0] * 3],
        "labels": [1, 0],
    }
    assert truncated == 0


def test_pair_of_texts_is_told_apart_by_token_types() -> None:
    columns, _ = sentiment(text=["one", "two"]).encode(
        rows(one=["the dog"], two=["cats run"], label=[0]), TOKENIZER, 16
    )
    assert columns["input_ids"] == [ids("[CLS] the dog [SEP] cats run [SEP]")]
    assert columns["token_type_ids"] == [[0, 0, 0, 0, 1, 1, 1]]


def test_truncated_texts_are_cut_and_counted() -> None:
    sentences = ["the dog", "the red dog runs", "the dog runs", "the dog runs the dog runs"]
    columns, truncated = sentiment().encode(
        rows(sentence=sentences, label=[0, 0, 0, 0]), TOKENIZER, 5
    )
    assert columns["input_ids"] == [
        ids("[CLS] the dog [SEP]"),
        ids("[CLS] the red dog [SEP]"),
        ids("[CLS] the dog runs [SEP]"),
        ids("[CLS] the dog runs [SEP]"),
    ]
    assert truncated == 2


def test_truncated_pair_counts_once() -> None:
    table = rows(one=["the dog runs", "dog"], two=["the red cat", "cat"], label=[0, 1])
    columns, truncated = sentiment(text=["one", "two"]).encode(table, TOKENIZER, 6)
    assert [len(tokens) for tokens in columns["input_ids"]] == [6, 5]
    assert truncated == 1


@pytest.mark.parametrize(
    ("columns", "missing"),
    [({"text": ["dog"], "label": [0]}, "sentence"), ({"sentence": ["dog"]}, "label")],
)
def test_missing_column_is_named(columns: Mapping[str, list[Any]], missing: str) -> None:
    present = ", ".join(columns)
    with pytest.raises(ValueError, match=rf"corpus\.parquet .*'{missing}', but has {present}"):
        sentiment().encode(rows(**columns), TOKENIZER, 16)


def test_null_text_is_named() -> None:
    table = rows(one=["dog", "dog"], two=["cat", None], label=[0, 1])
    with pytest.raises(ValueError, match=r"'two' of corpus\.parquet .* row 1 is null"):
        sentiment(text=["one", "two"]).encode(table, TOKENIZER, 16)


@pytest.mark.parametrize(
    ("values", "held"), [([1, 2], "int64"), ([["dog"], []], "list<"), ([{"a": 1}] * 2, "struct<")]
)
def test_text_column_of_another_type_is_named(values: list[Any], held: str) -> None:
    with pytest.raises(
        ValueError, match=rf"'sentence' of corpus\.parquet .* texts, but holds {held}"
    ):
        sentiment().encode(rows(sentence=values, label=[0, 1]), TOKENIZER, 16)


def test_batch_moves_inputs_and_labels_together() -> None:
    inputs = {"input_ids": torch.tensor([[1]]), "attention_mask": torch.tensor([[1]])}
    moved = Batch("task", inputs, torch.tensor([0])).to(torch.device("meta"))
    assert moved.task == "task"
    assert {one.device.type for one in [*moved.inputs.values(), moved.labels]} == {"meta"}


@pytest.mark.parametrize(("mask", "is_padded"), [([1, 1], False), ([1, 0], True)])
def test_a_batch_that_leaves_the_cpu_knows_whether_it_is_padded(
    mask: list[int], is_padded: bool
) -> None:
    inputs = {"input_ids": torch.tensor([[3, 4]]), "attention_mask": torch.tensor([mask])}
    batch = Batch("task", inputs, torch.tensor([0]))
    assert batch.is_padded is None
    moved = batch.to(torch.device("meta"))
    assert moved.is_padded is is_padded
    # Nothing is read of what is there: on that device nothing could be.
    assert moved.to(torch.device("meta")).is_padded is is_padded
