from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import tensor

from multiprune.data.source import HubSource
from multiprune.metrics import Accuracy
from multiprune.models.from_scratch import character_tokenizer
from multiprune.tasks.classification import Classification, MultiLabel, Regression
from multiprune.tasks.rows import Rows
from multiprune.tasks.task import Task

TOKENIZER = character_tokenizer()
COMMON: dict[str, Any] = {
    "text": ["sentence"],
    "label": "label",
    "metrics": {"accuracy": Accuracy()},
    "source": HubSource(path=None, mirror="nowhere"),
}
CLASSES = Classification(labels=["bad", "fair", "good"], **COMMON)
SETS = MultiLabel(labels=["bad", "fair", "good"], **COMMON)
NUMBER = Regression(minimum=0.0, maximum=5.0, **COMMON)


def encoded_labels(task: Task, labels: list[Any]) -> list[Any]:
    """Encode rows with these labels and return what the labels became."""
    table = Dataset.from_dict({"sentence": ["the dog"] * len(labels), "label": labels})
    columns, _ = task.encode(Rows(table, "corpus.parquet", ""), TOKENIZER, 16)
    found: list[Any] = columns["labels"]
    return found


@pytest.mark.parametrize("kind", [Classification, MultiLabel])
@pytest.mark.parametrize("labels", [[], ["a"], ["a", "b", "a"]])
def test_label_space_needs_two_or_more_different_names(
    kind: type[Classification | MultiLabel], labels: list[str]
) -> None:
    with pytest.raises(ValueError, match="`labels` must be two or more different names"):
        kind(labels=labels, **COMMON)


@pytest.mark.parametrize("bounds", [(1.0, 1.0), (2.0, 1.0)])
def test_bounds_in_the_wrong_order_are_refused(bounds: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="`minimum` must be below `maximum`"):
        Regression(minimum=bounds[0], maximum=bounds[1], **COMMON)


def test_head_has_one_output_a_label_and_one_for_a_number() -> None:
    assert (CLASSES.output.num_outputs, SETS.output.num_outputs, NUMBER.output.num_outputs) == (
        3,
        3,
        1,
    )


def test_classes_are_encoded_from_names_or_ids() -> None:
    assert encoded_labels(CLASSES, ["good", "bad", "fair"]) == [2, 0, 1]
    assert encoded_labels(CLASSES, [2, 0, 1]) == [2, 0, 1]


@pytest.mark.parametrize(("labels", "value"), [([0, 3], "3"), (["bad", "awful"], "'awful'")])
def test_class_outside_the_label_space_is_named(labels: list[Any], value: str) -> None:
    with pytest.raises(ValueError, match=rf"'label' of corpus\.parquet .* row 1 is {value}"):
        encoded_labels(CLASSES, labels)


@pytest.mark.parametrize("task", [CLASSES, SETS, NUMBER], ids=["classes", "sets", "number"])
def test_null_label_is_named(task: Task) -> None:
    first = [0] if task is SETS else 0
    with pytest.raises(ValueError, match=r"'label' of corpus\.parquet .* row 1 is (null|None)"):
        encoded_labels(task, [first, None])


def test_sets_may_be_said_by_0_or_1_for_each_label() -> None:
    task = MultiLabel(labels=["bad", "fair", "good"], indicators=True, **COMMON)
    assert encoded_labels(task, [[1, 0, 1], [0, 0, 0]]) == [[1, 0, 1], [0, 0, 0]]
    for wrong in ([1, 0], [2, 0, 1]):
        with pytest.raises(ValueError, match=r"corpus.parquet must hold 0 or 1 .* row 1 holds"):
            encoded_labels(task, [[0, 0, 1], wrong])


def test_the_same_lists_are_encoded_anew_when_they_mean_something_else() -> None:
    """Which labels are meant by ``[0, 1]``, both or the second, is part of a cache's key."""
    settings = {**COMMON, "labels": ["bad", "good"]}
    sets, indicators = MultiLabel(**settings), MultiLabel(**settings, indicators=True)
    assert encoded_labels(sets, [[0, 1]]) != encoded_labels(indicators, [[0, 1]])
    assert sets.cache_key != indicators.cache_key


def test_sets_become_one_decision_a_label() -> None:
    assert encoded_labels(SETS, [["good", "bad"], [], ["fair"]]) == [
        [1, 0, 1],
        [0, 0, 0],
        [0, 1, 0],
    ]
    assert encoded_labels(SETS, [[2, 0], [], [1]]) == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize(("labels", "value"), [([[0], [3, 1]], "3"), ([["bad"], ["?"]], r"'\?'")])
def test_label_of_a_set_outside_the_label_space_is_named_with_its_row(
    labels: list[Any], value: str
) -> None:
    with pytest.raises(ValueError, match=rf"'label' of corpus\.parquet .* row 1 is {value}"):
        encoded_labels(SETS, labels)


def test_numbers_within_the_bounds_are_kept() -> None:
    assert encoded_labels(NUMBER, [0.0, 2.5, 5.0]) == [0.0, 2.5, 5.0]
    found = encoded_labels(NUMBER, [3])
    assert found == [3.0]
    assert isinstance(found[0], float)


@pytest.mark.parametrize("value", [-0.1, 5.1, float("nan"), float("inf")], ids=repr)
def test_number_out_of_bounds_is_named(value: float) -> None:
    expected = rf"'label' of corpus\.parquet .* from 0\.0 to 5\.0, but row 2 is {value!r}"
    with pytest.raises(ValueError, match=expected):
        encoded_labels(NUMBER, [1.0, 2.0, value])


def test_text_as_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match=r"row 0 is '3'"):
        encoded_labels(NUMBER, ["3"])


def test_loss_of_classes_is_the_mean_negative_log_probability_of_the_right_one() -> None:
    logits, labels = torch.randn(4, 3), tensor([2, 0, 1, 1])
    probabilities = logits.exp() / logits.exp().sum(1, keepdim=True)
    expected = -probabilities[range(4), labels].log().mean()
    torch.testing.assert_close(CLASSES.loss(logits, labels), expected)


def test_loss_of_sets_is_the_mean_negative_log_probability_of_all_decisions() -> None:
    logits, labels = torch.randn(4, 3), tensor([[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]])
    probability = 1 / (1 + torch.exp(-logits))
    right = torch.where(labels == 1, probability, 1 - probability)
    torch.testing.assert_close(SETS.loss(logits, labels), -right.log().mean())


def test_loss_of_numbers_is_the_mean_squared_error_on_a_scale_from_minus_1_to_1() -> None:
    # From 0 to 5, the number 2 is -0.2 on that scale, and 4 is 0.6.
    loss = NUMBER.loss(tensor([[1.0], [0.0]]), tensor([2.0, 4.0]))
    assert loss.item() == pytest.approx((1.2**2 + 0.6**2) / 2)


def test_loss_of_numbers_does_not_depend_on_their_unit() -> None:
    percent = Regression(minimum=0, maximum=100, **COMMON)
    logits, labels = torch.randn(4, 1), tensor([0.0, 1.0, 2.5, 5.0])
    torch.testing.assert_close(percent.loss(logits, 20 * labels), NUMBER.loss(logits, labels))


@pytest.mark.parametrize(
    ("task", "labels"),
    [(CLASSES, tensor([0, 1])), (SETS, tensor([[0, 1, 1], [1, 0, 0]])), (NUMBER, tensor([0.0, 5]))],
    ids=["classes", "sets", "number"],
)
def test_loss_is_computed_in_single_precision(task: Task, labels: torch.Tensor) -> None:
    logits = torch.randn(2, 1 if task is NUMBER else 3).bfloat16()
    loss = task.loss(logits, labels)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, task.loss(logits.float(), labels))


def test_predicted_class_has_the_largest_logit() -> None:
    labels = tensor([1, 2])
    logits = tensor([[0.0, 3, 1], [-1, -2, -3]])
    predictions, right = CLASSES.output.predictions(logits, labels)
    assert CLASSES.output.decided(predictions).tolist() == [1, 0]
    expected = logits.double().exp() / logits.double().exp().sum(1, keepdim=True)
    torch.testing.assert_close(predictions, expected)
    assert right.tolist() == [1, 2]


def test_label_is_predicted_when_more_likely_than_not() -> None:
    logits = tensor([[0.1, -0.1, 4.0]])
    predictions, _ = SETS.output.predictions(logits, tensor([[0, 1, 1]]))
    assert SETS.output.decided(predictions).tolist() == [[1, 0, 1]]
    torch.testing.assert_close(predictions, 1 / (1 + (-logits.double()).exp()))


def test_classes_that_are_certain_keep_their_order() -> None:
    predictions, _ = CLASSES.output.predictions(
        tensor([[0.0, 19, -9], [0, 20, -9]]), tensor([1, 1])
    )
    assert predictions[0, 1] < predictions[1, 1] < 1


def test_predicted_number_is_the_output_in_the_units_of_the_labels() -> None:
    labels = tensor([1.0, 2.0, 3.0, 4.0])
    predictions, right = NUMBER.output.predictions(tensor([[-1.0], [0.0], [1.0], [1.5]]), labels)
    assert predictions.tolist() == [0.0, 2.5, 5.0, 6.25]
    assert right.tolist() == labels.tolist()


def test_right_number_has_no_loss() -> None:
    number = Regression(minimum=-3.0, maximum=7.0, **COMMON)
    logits = tensor([[-1.0], [-0.25], [0.0], [1.0]])
    predictions, _ = number.output.predictions(logits, torch.zeros(4))
    assert number.loss(logits, predictions).item() == pytest.approx(0, abs=1e-12)


def test_label_tensors_have_the_types_that_the_losses_ask_for() -> None:
    assert CLASSES.label_tensor([1, 0], 7).dtype == torch.long
    assert SETS.label_tensor([[1, 0, 1]], 7).tolist() == [[1, 0, 1]]
    assert NUMBER.label_tensor([1.0, 2.5], 7).dtype == torch.float32
