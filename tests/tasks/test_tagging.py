from dataclasses import replace
from itertools import chain
from random import Random
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import tensor
from torch.nn import functional
from torch.nn.functional import one_hot

from multiprune.data.source import HubSource
from multiprune.metrics import Accuracy
from multiprune.models.from_scratch import character_tokenizer
from multiprune.runs.predictions import Answers
from multiprune.tasks.rows import EXAMPLE, IGNORED, Rows
from multiprune.tasks.tagging import Tagging
from multiprune.tasks.word_labels import tags_of, words_of

TOKENIZER = character_tokenizer()
COMMON: dict[str, Any] = {
    "text": ["words"],
    "label": "tags",
    "metrics": {"accuracy": Accuracy()},
    "source": HubSource(path=None, mirror="nowhere"),
}
TASK = Tagging(labels=["other", "agent", "action"], **COMMON)


def encode(
    words: list[Any], tags: list[Any], max_length: int = 32, task: Tagging = TASK
) -> tuple[dict[str, list[Any]], int]:
    table = Dataset.from_dict({"words": words, "tags": tags})
    return task.encode(Rows(table, "corpus.parquet", ""), TOKENIZER, max_length)


def tags(columns: dict[str, list[Any]], length: int) -> list[list[int]]:
    """Return the tags of encoded rows, padded to so many tokens."""
    return tags_of(TASK.label_tensor(columns["labels"], length)).tolist()


@pytest.mark.parametrize("text", [[], ["words", "more"]])
def test_wrong_number_of_text_columns_is_refused(text: list[str]) -> None:
    with pytest.raises(ValueError, match=r"`text` must name 1 column\(s\)"):
        Tagging(labels=["a", "b"], **COMMON | {"text": text})


def test_single_label_is_refused() -> None:
    with pytest.raises(ValueError, match="two or more different names"):
        Tagging(labels=["a"], **COMMON)


def test_words_that_split_are_tagged_once() -> None:
    # "fox" is none of the vocabulary's words, so that it becomes f ##o ##x.
    columns, truncated = encode([["the", "fox", "runs"]], [["other", "agent", "action"]])
    tokens = TOKENIZER.convert_ids_to_tokens(columns["input_ids"][0])
    assert tokens == ["[CLS]", "the", "f", "##o", "##x", "runs", "[SEP]"]
    assert tags(columns, 7) == [[-100, 0, 1, -100, -100, 2, -100]]
    assert truncated == 0


def test_tags_may_be_names_or_ids() -> None:
    words = [["the", "dog"], ["runs"]]
    by_name, _ = encode(words, [["other", "agent"], ["action"]])
    by_id, _ = encode(words, [[0, 1], [2]])
    assert by_name == by_id
    assert tags(by_id, 4) == [[-100, 0, 1, -100], [-100, 2, -100, -100]]


def test_each_word_is_answered_once_where_it_is_farthest_from_an_edge() -> None:
    # 11 words of 1 token, in windows of 6 that share 3: words 0 to 5, 3 to 8, 6 to 10.
    words = ["the", "dog", "runs", "the", "cat", "runs", "one", "dog", "chased", "the", "cat"]
    task = replace(TASK, overlap=3)
    columns, truncated = encode([words, ["dog"]], [[0, 1, 2] * 3 + [0, 1], [1]], 8, task)
    labels = task.label_tensor(columns["labels"], 8)
    answered = [
        [*zip(one.nonzero()[:, 0].tolist(), words_of(labels)[row, one].tolist(), strict=True)]
        for row, one in enumerate(labels != IGNORED)
    ]
    # Tokens, behind the special one, and words. Words 4 and 7 stand equally far in two windows.
    assert answered == [
        [(1, 0), (2, 1), (3, 2), (4, 3), (5, 4)],
        [(3, 5), (4, 6), (5, 7)],
        [(3, 8), (4, 9), (5, 10)],
        [(1, 0)],
    ]
    assert columns[EXAMPLE] == [0, 0, 0, 1]
    assert truncated == 0


def test_no_window_answers_with_the_rest_of_a_word() -> None:
    # "foxes" is f ##o ##x ##e ##s: the second window begins within it.
    columns, _ = encode([["foxes", "runs"]], [[1, 2]], 5, replace(TASK, overlap=0))
    tokens = [TOKENIZER.convert_ids_to_tokens(one) for one in columns["input_ids"]]
    assert tokens == [
        ["[CLS]", "f", "##o", "##x", "[SEP]"],
        ["[CLS]", "##e", "##s", "runs", "[SEP]"],
    ]
    assert tags(columns, 5) == [[-100, 1, -100, -100, -100], [-100, -100, -100, 2, -100]]


@pytest.mark.parametrize("overlap", [0, 2, 5, 50])
@pytest.mark.parametrize("max_length", [3, 4, 9])
def test_every_word_is_answered_in_its_document_and_place(overlap: int, max_length: int) -> None:
    rng = Random(max_length)
    words = [rng.choices(["the", "dog", "foxes", "xyz"], k=k) for k in (1, 7, 20)]
    right = [[rng.randrange(3) for _ in one] for one in words]
    task = replace(TASK, overlap=overlap)
    columns, _ = encode(words, right, max_length, task)
    # As length sorts them, or ranks share them.
    order = rng.sample(range(len(columns["labels"])), len(columns["labels"]))
    labels = task.label_tensor([columns["labels"][row] for row in order], max_length)
    logits = one_hot(tags_of(labels).clamp(min=0), 3).float()
    predictions, labelled = task.output.predictions(logits, labels)
    examples = tensor([columns[EXAMPLE][row] for row in order])
    counts = task.output.answers_by_example(labels)
    answers = task.output.combined(
        Answers(predictions, labelled, examples.repeat_interleave(counts))
    )
    assert (
        answers.labels.tolist()
        == task.output.decided(answers.predictions).tolist()
        == [*chain(*right)]
    )
    assert answers.examples.tolist() == [0] + [1] * 7 + [2] * 20


@pytest.mark.parametrize(
    ("labels", "expected"), [(["O", "B-X", "I-X"], [2, 0, 0]), (["a", "b", "c"], [2, 2, 1])]
)
def test_words_that_are_not_read_count_as_none_or_as_wrong(
    labels: list[str], expected: list[int]
) -> None:
    task = Tagging(labels=labels, overlap=None, **COMMON)
    # "" has no token, and "runs" is cut off; what is read is tagged with the last label.
    columns, truncated = encode([["fox", "", "runs"]], [[2, 1, 0]], 5, task)
    assert truncated == 1
    assert task.unread_words(Dataset.from_dict(columns)) == 2
    batch_labels = task.label_tensor([*columns["labels"], [IGNORED, 1]], 6)
    logits = torch.zeros(2, 6, 3)
    logits[..., 2] = 1
    predictions, right = task.output.predictions(logits, batch_labels)
    assert task.output.answers_by_example(batch_labels).tolist() == [3, 1]
    answers = task.output.combined(Answers(predictions, right, tensor([0, 0, 0, 1])))
    assert task.output.decided(answers.predictions).tolist() == [*expected, 2]
    torch.testing.assert_close(answers.predictions.sum(1), torch.ones(4))
    assert answers.labels.tolist() == [2, 1, 0, 1]
    # They are not learned.
    assert task.loss_terms(logits, batch_labels).tolist() == [1, 1]
    torch.testing.assert_close(
        task.loss(logits, batch_labels), functional.cross_entropy(logits[:, 1], tensor([2, 1]))
    )


def test_loss_of_windows_without_a_label_is_zero() -> None:
    logits = torch.randn(1, 3, 3, requires_grad=True)
    TASK.loss(logits, torch.full((1, 3), IGNORED)).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert not logits.grad.any()


def test_negative_overlap_is_refused() -> None:
    with pytest.raises(
        ValueError, match="`overlap` must be a whole number of at least 0, but is -1"
    ):
        Tagging(labels=["a", "b"], overlap=-1, **COMMON)


@pytest.mark.parametrize("tags", [[0], [0, 1, 2]])
def test_different_numbers_of_tags_and_words_are_named(tags: list[int]) -> None:
    expected = rf"'tags' of corpus\.parquet .* row 1 has {len(tags)} tags for 2 words"
    with pytest.raises(ValueError, match=expected):
        encode([["dog"], ["the", "dog"]], [[1], tags])


def test_null_tags_are_named() -> None:
    with pytest.raises(ValueError, match=r"'tags' of corpus\.parquet .* row 1 is (null|None)"):
        encode([["dog"], ["dog"]], [[1], None])


def test_null_words_are_named() -> None:
    with pytest.raises(ValueError, match=r"'words' of corpus\.parquet .* row 1 is null"):
        encode([["dog"], None], [[1], [1]])


@pytest.mark.parametrize(
    ("tags", "value"), [([[0], [3, 1]], "3"), ([["other"], ["x", "agent"]], "'x'")]
)
def test_tag_outside_the_label_space_is_named_with_its_row(tags: list[Any], value: str) -> None:
    with pytest.raises(
        ValueError, match=rf"'tags' of corpus\.parquet .* row 1 is {value}"
    ) as error:
        encode([["dog"], ["the", "dog"]], tags)
    assert "other, agent, action" in str(error.value)


def test_label_tensor_ignores_padding() -> None:
    padded = TASK.label_tensor([[-100, 1, -100], [-100]], 4)
    assert padded.tolist() == [[-100, 1, -100, -100], [-100, -100, -100, -100]]


def test_loss_is_the_mean_over_labelled_tokens() -> None:
    logits = torch.randn(2, 3, 3)
    labels = tensor([[-100, 2, 0], [1, -100, -100]])
    log_probabilities = logits - logits.exp().sum(-1, keepdim=True).log()
    right = [log_probabilities[0, 1, 2], log_probabilities[0, 2, 0], log_probabilities[1, 0, 1]]
    torch.testing.assert_close(TASK.loss(logits, labels), -sum(right) / tensor(3.0))


def test_predictions_leave_out_ignored_tokens() -> None:
    logits = tensor([[[9.0, 0, 0], [0, 0, 1]], [[0, 1, 0], [9, 0, 0]]])
    predictions, labels = TASK.output.predictions(logits, tensor([[-100, 2], [0, -100]]))
    assert TASK.output.decided(predictions).tolist() == [2, 1]
    assert labels.tolist() == [2, 0]


def test_task_answers_for_each_token() -> None:
    assert TASK.output.per_token
    assert TASK.output.num_outputs == 3
