"""Which examples are drawn, what their answers are, and how they are weighed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from masked_task import masked_task
from recipes import recipe

from multiprune.data.batches import EncodedTask
from multiprune.data.source import HubSource
from multiprune.export.shipped import ShippedModel
from multiprune.measure.answered import batches_by_length
from multiprune.metrics import Accuracy
from multiprune.models.from_scratch import character_tokenizer, from_scratch
from multiprune.models.multitask import MultitaskModel
from multiprune.specialize.calibration_set import calibration_set
from multiprune.specialize.specialist import validated
from multiprune.tasks.answer_text import squad
from multiprune.tasks.classification import Classification, MultiLabel, Regression
from multiprune.tasks.question_answering import QuestionAnswering
from multiprune.tasks.rows import EXAMPLE, IGNORED
from multiprune.tasks.tagging import Tagging
from multiprune.tasks.word_labels import unread, word_label

if TYPE_CHECKING:
    from multiprune.specialize.calibration_set import CalibrationSet
    from multiprune.tasks.task import Task

_COMMON: dict[str, Any] = {
    "text": ["text"],
    "label": "label",
    "metrics": {"accuracy": Accuracy()},
    "source": HubSource(path=None, mirror="nowhere"),
}
CLASSES = Classification(labels=["no", "yes", "maybe"], **_COMMON)
NUMBER = Regression(minimum=0, maximum=5, **_COMMON)
TAGS = Tagging(labels=["other", "agent"], **_COMMON)
SETS = MultiLabel(labels=["one", "two"], **_COMMON)
ROWS = 30


def encoded(task: Task = CLASSES, *, labels: list[Any] | None = None) -> EncodedTask:
    """Make rows of 3 to 9 tokens, each with its number as its first token."""
    ids = [[10 + row, *([5] * (2 + row % 7))] for row in range(ROWS)]
    labels = [row % 3 for row in range(ROWS)] if labels is None else labels
    table = Dataset.from_dict({"input_ids": ids, "labels": labels})
    splits = {"train": table, "validation": table}
    return EncodedTask(name="task", task=task, splits=splits, truncated=0, padding_token=0)


def model(task: Task = CLASSES) -> ShippedModel:
    torch.manual_seed(0)
    encoder = from_scratch(layers=1, hidden=16, heads=2, intermediate=8)
    made = MultitaskModel(encoder.model, {"task": task})
    for module in made.heads.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=5)
    meaning = {"task": dict(task.description)}
    return ShippedModel(made.encoder, made.heads, meaning, encoder.tokenizer).eval()


def rows_of(drawn: CalibrationSet) -> list[int]:
    return [row for one in drawn.batches for row in one.batch.rows]


def test_task_answered_by_spans_of_texts_is_refused() -> None:
    questions = QuestionAnswering(
        **_COMMON | {"text": ["question", "context"]}, label_start="start", normalize=squad
    )
    with pytest.raises(ValueError, match="but task is answered by spans of texts"):
        calibration_set(encoded(questions), model(), recipe(examples=3))


def test_draws_are_the_seeds_and_of_training_rows_each_once() -> None:
    draws = [
        rows_of(calibration_set(encoded(), model(), recipe(examples=20, seed=seed)))
        for seed in (0, 0, 1)
    ]
    assert draws[0] == draws[1]
    assert set(draws[0]) != set(draws[2])
    for rows in draws:
        assert len(set(rows)) == len(rows) == 20
        assert set(rows) <= set(range(ROWS))


def test_fewer_examples_are_among_the_more() -> None:
    few, more = (
        rows_of(calibration_set(encoded(), model(), recipe(examples=count, labels="pseudo")))
        for count in (5, 20)
    )
    assert set(few) < set(more)


def test_all_examples_can_be_drawn_and_no_more() -> None:
    drawn = calibration_set(encoded(), model(), recipe(examples=ROWS))
    assert sorted(rows_of(drawn)) == list(range(ROWS))
    with pytest.raises(ValueError, match="at most the 30 training examples of task, but is 31"):
        calibration_set(encoded(), model(), recipe(examples=ROWS + 1))


def documents() -> EncodedTask:
    """Ten documents of one to three windows, with a word in each, and one that is not read."""
    examples = [number for number in range(10) for _ in range(1 + number % 3)]
    rows = range(len(examples))
    words = [sum(one == example for one in examples[:row]) for row, example in enumerate(examples)]
    labels = [[IGNORED, word_label(row % 2, words[row]), IGNORED] for row in rows]
    labels[0].append(unread(word_label(1, 1)))
    columns = {"input_ids": [[5, 6 + row, 7] for row in rows], "labels": labels}
    table = Dataset.from_dict({**columns, EXAMPLE: examples})
    splits = {"train": table, "validation": table}
    return EncodedTask(name="task", task=TAGS, splits=splits, truncated=0, padding_token=0)


@pytest.mark.parametrize("labels", ["gold", "pseudo"])
def test_documents_in_windows_are_drawn_as_a_whole(labels: str) -> None:
    drawn = calibration_set(documents(), model(TAGS), recipe(examples=4, labels=labels))
    found = [example for one in drawn.batches for example in one.batch.examples]
    assert len(set(found)) == 4
    assert all(found.count(one) == 1 + one % 3 for one in found)
    message = "at most the 10 training examples of task, but is 11"
    with pytest.raises(ValueError, match=message):
        calibration_set(documents(), model(TAGS), recipe(examples=11, labels=labels))


def test_documents_in_windows_are_scored_word_by_word() -> None:
    answering, encoded_documents = model(TAGS), documents()
    batch = encoded_documents.batch("validation", range(19))
    right = answering("task", batch.inputs).argmax(-1)[:, 1] == batch.labels[:, 1] % 2
    # Of 20 words, the one that is not read is answered wrongly, as there is no O.
    assert validated(answering, encoded_documents)["accuracy"] == pytest.approx(
        float(right.sum()) / 20
    )
    some = validated(answering, encoded_documents, rows=3)["accuracy"]
    generator = np.random.default_rng(0).permutation(10)[:3]
    mine = torch.tensor([example in generator for example in batch.examples])
    words = int(mine.sum()) + int(0 in generator)
    assert some == pytest.approx(float(right[mine].sum()) / words)


def test_batches_hold_examples_of_similar_length() -> None:
    lengths = [[row % 7 for row in rows] for rows in batches_by_length(encoded(), "validation")]
    flat = [length for batch in lengths for length in batch]
    assert flat == sorted(flat)
    assert len(flat) == ROWS


def test_counts_are_those_of_the_labels_drawn() -> None:
    drawn = calibration_set(encoded(), model(), recipe(examples=ROWS))
    assert drawn.counts == {"no": 10, "yes": 10, "maybe": 10}
    assert drawn.warning is None


def test_class_without_an_example_is_a_warning() -> None:
    missing = encoded(labels=[row % 2 for row in range(ROWS)])
    drawn = calibration_set(missing, model(), recipe(examples=ROWS))
    assert drawn.warning == "No answer is maybe (no 15, yes 15, maybe 0)."


@pytest.mark.parametrize("labels", ["gold", "pseudo"])
def test_fewer_examples_than_classes_are_refused(labels: str) -> None:
    with pytest.raises(ValueError, match="at least the 3 classes of task, but is 2"):
        calibration_set(encoded(), model(), recipe(examples=2, labels=labels))


def answered(task: Task, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return what logits answer, in place of labels."""
    return task.output.as_labels(task.output.predictions(logits, labels)[0], labels)


def test_pseudo_labels_are_the_models_own_answers_whatever_the_labels() -> None:
    answering = model()
    drawn = calibration_set(encoded(), answering, recipe(examples=ROWS, labels="pseudo"))
    other = encoded(labels=[0] * ROWS)
    again = calibration_set(other, answering, recipe(examples=ROWS, labels="pseudo"))
    for one, same in zip(drawn.batches, again.batches, strict=True):
        answers = answering("task", one.batch.inputs).argmax(-1)
        assert torch.equal(one.batch.labels, answers)
        assert torch.equal(same.batch.labels, answers)
    assert sum(drawn.counts.values()) == ROWS


def test_pseudo_labels_of_one_class_are_told() -> None:
    answering = model()
    output: Any = answering.heads["task"].get_submodule("output")
    torch.nn.init.constant_(output.bias, 0)
    output.bias.data[1] = 1e6
    drawn = calibration_set(encoded(), answering, recipe(examples=9, labels="pseudo"))
    assert drawn.warning == "All answers are of one class (no 0, yes 9, maybe 0)."


def test_number_has_no_pseudo_label() -> None:
    numbers = encoded(NUMBER, labels=[float(row % 5) for row in range(ROWS)])
    with pytest.raises(ValueError, match="task answers with a number"):
        calibration_set(numbers, model(NUMBER), recipe(labels="pseudo", examples=9))
    assert calibration_set(numbers, model(NUMBER), recipe(examples=9)).counts == {}


def test_pseudo_tags_are_where_words_are() -> None:
    labels = torch.tensor([[IGNORED, 0, 1, IGNORED], [IGNORED, 1, IGNORED, IGNORED]])
    logits = torch.zeros(2, 4, 2)
    logits[..., 1] = 1
    expected = torch.tensor([[IGNORED, 1, 1, IGNORED], [IGNORED, 1, IGNORED, IGNORED]])
    assert torch.equal(answered(TAGS, logits, labels), expected)


def test_pseudo_sets_are_what_is_likelier_than_not() -> None:
    logits = torch.tensor([[2.0, -1.0], [0.5, 3.0]])
    labels = torch.zeros(2, 2, dtype=torch.long)
    assert answered(SETS, logits, labels).tolist() == [[1, 0], [1, 1]]


def test_confidence_is_the_probability_of_the_label() -> None:
    answering = model()
    for labels in ("gold", "pseudo"):
        draw = recipe(examples=ROWS, labels=labels, weight_by_confidence=True)
        for one in calibration_set(encoded(), answering, draw).batches:
            probabilities = answering("task", one.batch.inputs).softmax(-1)
            expected = probabilities.gather(1, one.batch.labels[:, None])[:, 0]
            torch.testing.assert_close(one.weights, expected.detach())
    assert calibration_set(encoded(), answering, recipe(examples=9)).batches[0].weights is None


def test_log_probability_of_a_class_is_that_of_the_softmax() -> None:
    logits, labels = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    expected = logits.log_softmax(-1)[range(4), labels]
    torch.testing.assert_close(CLASSES.log_probabilities(logits, labels), expected)


def test_log_probability_of_tags_is_the_sum_over_words() -> None:
    logits = torch.randn(2, 3, 2, requires_grad=True)
    labels = torch.tensor([[IGNORED, 0, 1], [IGNORED, IGNORED, IGNORED]])
    found = TAGS.log_probabilities(logits, labels)
    rows = logits.log_softmax(-1)
    torch.testing.assert_close(found[0], rows[0, 1, 0] + rows[0, 2, 1])
    assert found[1] == 0
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())


def test_log_probability_of_a_number_falls_with_the_square_of_the_error() -> None:
    # On the scale of the outputs 0, 2.5 and 5 are -1, 0 and 1.
    logits, labels = torch.tensor([[0.0], [0.5]]), torch.tensor([2.5, 5.0])
    assert NUMBER.log_probabilities(logits, labels).tolist() == [0, -0.25]


@pytest.mark.parametrize("task", [CLASSES, SETS, NUMBER], ids=["classes", "sets", "number"])
def test_gradient_is_that_of_the_loss(task: Task) -> None:
    labels = torch.tensor([[0, 1], [1, 1]]) if task is SETS else torch.tensor([1, 2])
    labels = labels.float() if task is NUMBER else labels
    logits = torch.randn(2, 1 if task is NUMBER else 2 if task is SETS else 3, requires_grad=True)
    task.log_probabilities(logits, labels).sum().backward()  # type: ignore[no-untyped-call]
    found, logits.grad = logits.grad, None
    task.loss(logits, labels).backward()  # type: ignore[no-untyped-call]
    assert found is not None
    assert logits.grad is not None
    torch.testing.assert_close(found, -2 * logits.grad)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"examples": 0}, "`examples` must be a whole number of at least 1, but is 0"),
        ({"labels": "silver"}, "`labels` must be one of gold, pseudo, but is 'silver'"),
    ],
)
def test_wrong_draws_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        recipe(**options)


def test_hidden_tokens_are_answered_by_the_likeliest_and_add_up_by_example() -> None:
    task = masked_task().read_by(character_tokenizer())
    labels = torch.tensor([[IGNORED, 4, 2], [IGNORED, IGNORED, IGNORED], [1, IGNORED, 3]])
    torch.manual_seed(0)
    logits = torch.randn(4, 12)
    answers = answered(task, logits, labels)
    assert torch.equal(answers[labels != IGNORED], logits.argmax(-1))
    assert torch.equal(answers == IGNORED, labels == IGNORED)
    chosen = logits.log_softmax(-1)[range(4), labels[labels != IGNORED]]
    expected = torch.stack([chosen[0] + chosen[1], torch.tensor(0.0), chosen[2] + chosen[3]])
    torch.testing.assert_close(task.log_probabilities(logits, labels), expected)
