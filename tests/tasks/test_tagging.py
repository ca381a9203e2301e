from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import tensor

from multiprune.data.source import HubSource
from multiprune.models.from_scratch import character_tokenizer
from multiprune.tasks.metrics import accuracy
from multiprune.tasks.tagging import Tagging, first_subword_labels
from multiprune.tasks.task import IGNORED, Rows

TOKENIZER = character_tokenizer()
COMMON: dict[str, Any] = {
    "text": ["words"],
    "label": "tags",
    "metrics": {"accuracy": accuracy},
    "source": HubSource(path=None, mirror="nowhere"),
}
TASK = Tagging(labels=["other", "agent", "action"], **COMMON)


def encode(
    words: list[Any], tags: list[Any], max_length: int = 32
) -> tuple[dict[str, list[Any]], int]:
    table = Dataset.from_dict({"words": words, "tags": tags})
    return TASK.encode(Rows(table, "corpus.parquet", ""), TOKENIZER, max_length)


@pytest.mark.parametrize("text", [[], ["words", "more"]])
def test_wrong_number_of_text_columns_is_refused(text: list[str]) -> None:
    with pytest.raises(ValueError, match=r"`text` must name 1 column\(s\)"):
        Tagging(labels=["a", "b"], **COMMON | {"text": text})


def test_single_label_is_refused() -> None:
    with pytest.raises(ValueError, match="two or more different names"):
        Tagging(labels=["a"], **COMMON)


def test_first_subword_carries_the_tag_of_its_word() -> None:
    word_ids = [None, 0, 0, 1, 2, 2, 2, None, None]
    expected = [IGNORED, 5, IGNORED, 6, 7, IGNORED, IGNORED, IGNORED, IGNORED]
    assert first_subword_labels(word_ids, [5, 6, 7]) == expected


def test_words_that_split_are_tagged_once() -> None:
    # "fox" is none of the vocabulary's words, so that it becomes f ##o ##x.
    columns, truncated = encode([["the", "fox", "runs"]], [["other", "agent", "action"]])
    tokens = TOKENIZER.convert_ids_to_tokens(columns["input_ids"][0])
    assert tokens == ["[CLS]", "the", "f", "##o", "##x", "runs", "[SEP]"]
    assert columns["labels"] == [[-100, 0, 1, -100, -100, 2, -100]]
    assert truncated == 0


def test_tags_may_be_names_or_ids() -> None:
    words = [["the", "dog"], ["runs"]]
    by_name, _ = encode(words, [["other", "agent"], ["action"]])
    by_id, _ = encode(words, [[0, 1], [2]])
    assert by_name == by_id
    assert by_id["labels"] == [[-100, 0, 1, -100], [-100, 2, -100]]


def test_tags_are_cut_with_their_words() -> None:
    columns, truncated = encode([["the", "fox", "runs"], ["dog"]], [[0, 1, 2], [1]], max_length=5)
    assert columns["labels"] == [[-100, 0, 1, -100, -100], [-100, 1, -100]]
    assert truncated == 1


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
    predictions, labels = TASK.predictions(logits, tensor([[-100, 2], [0, -100]]))
    assert predictions.tolist() == [2, 1]
    assert labels.tolist() == [2, 0]


def test_task_answers_for_each_token() -> None:
    assert TASK.per_token
    assert TASK.num_outputs == 3
