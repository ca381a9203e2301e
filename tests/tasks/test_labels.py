"""What the values of a label column are, for all kinds of tasks that have labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from multiprune.data.selection import labelled
from multiprune.data.source import HubSource
from multiprune.metrics import Accuracy
from multiprune.tasks.classification import Classification, MultiLabel
from multiprune.tasks.labels import checked_labels
from multiprune.tasks.rows import Rows
from multiprune.tasks.tagging import Tagging

if TYPE_CHECKING:
    from multiprune.tasks.task import Task

KINDS: list[Any] = [Classification, MultiLabel, Tagging]
kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def task(kind: Any, labels: list[Any] | None) -> Any:
    return kind(
        text=["text"],
        label="label",
        labels=labels,
        metrics={"accuracy": Accuracy()},
        source=HubSource(path=None, mirror="nowhere"),
    )


def rows_of(kind: Any, values: list[Any], names: list[str] | None = None) -> Rows:
    """Return rows with one label each, in a list where the kind of task asks for lists."""
    label: Any = Value("int64") if isinstance(values[0], int) else Value("string")
    label = label if names is None else ClassLabel(names=names)
    text: Any = Value("string")
    columns = {"text": ["dog"] * len(values), "label": values}
    if kind is Tagging:
        text, columns["text"] = List(text), [["dog"]] * len(values)
    if kind is not Classification:
        label, columns["label"] = List(label), [[one] for one in values]
    table = Dataset.from_dict(columns, features=Features(text=text, label=label))
    return Rows(table, "corpus.parquet", "")


def ids(one: Task, rows: Rows) -> list[int]:
    """Return the id of the one label of each row."""
    one.check_columns(rows)
    found = one.encode_labels(rows)
    if isinstance(one, MultiLabel):
        return [present.index(1) for present in found]
    return [row[0] for row in found] if isinstance(one, Tagging) else found


@kinds
@pytest.mark.parametrize(
    ("labels", "values", "expected"),
    [
        ([-1, 0, 1], [1, -1, 0], [2, 0, 1]),
        ([2, 1, 0], [0, 1, 2], [2, 1, 0]),
        ([1, 2, 3], [3, 1, 2], [2, 0, 1]),
        ([1, 2, 3], ["3", "1", "2"], [2, 0, 1]),
        (["0", "1", "2"], [2, 0, 1], [2, 0, 1]),
        (["b", "a"], [1, 0], [1, 0]),
        (["b", "a"], ["a", "b"], [1, 0]),
    ],
)
def test_integers_are_values_of_integer_labels_and_positions_of_names(
    kind: Any, labels: list[Any], values: list[Any], expected: list[int]
) -> None:
    one = task(kind, labels)
    assert ids(one, rows_of(kind, values)) == expected
    assert one.cache_key["labels"] == list(map(str, labels))
    assert one.cache_key.get("values") == (labels if isinstance(labels[0], int) else None)


@kinds
@pytest.mark.parametrize(
    ("labels", "values", "said"),
    [
        ([1, 2, 3], [1, 0], r"3 labels \(1, 2, 3\), but row 1 is 0"),
        ([0, 1], [0, -1], r"2 labels \(0, 1\), but row 1 is -1"),
        (["a", "b"], [0, 2], r"2 labels \(a, b\) or its position from 0, but row 1 is 2"),
        (["a", "b"], ["a", "0"], r"row 1 is '0'"),
    ],
)
def test_label_outside_the_label_space_is_named(
    kind: Any, labels: list[Any], values: list[Any], said: str
) -> None:
    with pytest.raises(ValueError, match=rf"'label' of corpus\.parquet must hold one of .*{said}"):
        ids(task(kind, labels), rows_of(kind, values))


@kinds
@pytest.mark.parametrize("labels", [["-1", "0", "1"], ["2", "1", "0"], ["1", "2"]])
def test_quoted_integers_are_no_names_of_integers(kind: Any, labels: list[str]) -> None:
    said = rf"holds integers, .* without quotes, \[{', '.join(labels)}\], if they are its values"
    with pytest.raises(ValueError, match=said):
        ids(task(kind, labels), rows_of(kind, [0, 1]))
    texts = rows_of(kind, labels[::-1])
    assert ids(task(kind, labels), texts) == list(range(len(labels)))[::-1]


@kinds
def test_class_names_of_a_file_are_compared_by_name(kind: Any) -> None:
    another_order = rows_of(kind, [0, 1, 2], ["good", "bad", "fair"])
    assert ids(task(kind, ["bad", "fair", "good"]), another_order) == [2, 0, 1]
    # A file may lack a class.
    assert ids(task(kind, ["bad", "fair", "good"]), rows_of(kind, [0, 1], ["good", "fair"])) == [
        2,
        1,
    ]
    # Names that are the integers themselves say nothing.
    for names in (["0", "1"], ["False", "True"]):
        assert ids(task(kind, ["bad", "good"]), rows_of(kind, [0, 1], names)) == [0, 1]
    assert ids(task(kind, [3, 4]), rows_of(kind, [0, 1], ["4", "3"])) == [1, 0]
    # Nor do those that transformers makes up for a model.
    assert ids(task(kind, ["LABEL_0", "LABEL_1"]), rows_of(kind, [0, 1], ["a", "b"])) == [0, 1]


@kinds
def test_other_class_names_are_refused_with_both_lists(kind: Any) -> None:
    said = r"'label' of corpus\.parquet .*\(bad, good\), but has neg, good, pos: neg, pos are not"
    with pytest.raises(ValueError, match=said):
        ids(task(kind, ["bad", "good"]), rows_of(kind, [0, 1], ["neg", "good", "pos"]))


@pytest.mark.parametrize(
    ("labels", "kept"), [([-1, 0, 1], 3), ([0, 1], 2), (["a", "b"], 2), (None, 2)]
)
def test_minus_one_is_a_row_without_label_only_where_it_is_no_label(labels: Any, kept: int) -> None:
    found = labelled(rows_of(Classification, [0, -1, 1]), task(Classification, labels))
    assert found is not None
    assert len(found.table) == kept


@pytest.mark.parametrize("kind", [MultiLabel, Tagging])
def test_label_column_without_lists_is_named(kind: Any) -> None:
    rows = rows_of(kind, [0, 1])
    table = rows.table.remove_columns("label").add_column("label", ["a", "b"])
    with pytest.raises(ValueError, match=r"'label' of corpus\.parquet .* list .* holds string"):
        task(kind, ["a", "b"]).check_columns(Rows(table, rows.origin, ""))


@pytest.mark.parametrize("value", [0.5, None, [0], float("nan")], ids=repr)
def test_what_is_neither_name_nor_integer_is_named(value: Any) -> None:
    table = Dataset.from_dict({"text": ["a"], "label": [value]})
    with pytest.raises(ValueError, match=r"row 0 is"):
        task(Classification, ["a", "b"]).encode_labels(Rows(table, "x.csv", ""))


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([False, True], "need quotes in YAML"),
        (["a", 1], "a list of names or one of integers"),
        ("ab", "a list of names or one of integers"),
        ([1.0, 2.0], "a list of names or one of integers"),
        ([1, 1], "two or more different"),
    ],
)
def test_label_space_that_is_none_is_refused(labels: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        checked_labels(labels)


@kinds
def test_labels_that_were_not_read_are_told_in_a_sentence(kind: Any) -> None:
    with pytest.raises(ValueError, match="must be read from the training data"):
        _ = task(kind, None).output
