from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from datasets import Dataset
from sklearn.metrics.pairwise import cosine_similarity

from multiprune.data.source import HubSource
from multiprune.tasks.retrieval import EncodedRows, Retrieval, accuracy
from multiprune.tasks.rows import Rows

if TYPE_CHECKING:
    from torch import Tensor


def retrieval(**changes: Any) -> Retrieval:
    arguments: dict[str, Any] = {
        "text": ["sentence", "english"],
        "source": HubSource(path=None, mirror="nowhere"),
        "languages": ["de", "sw"],
    }
    return Retrieval(**arguments | changes)


def rows(**changes: list[Any]) -> Rows:
    columns: dict[str, list[Any]] = {
        "sentence": ["a", "b", "c"],
        "english": ["x", "y", "z"],
        "lang": ["sw", "de", "sw"],
    }
    return Rows(Dataset.from_dict(columns | changes), "corpus.parquet", "")


def encoded(sentences: Tensor, translations: Tensor) -> dict[str, EncodedRows]:
    return {"test": EncodedRows(rows(), sentences, translations)}


def test_accuracy_is_the_share_of_nearest_neighbours_by_cosine() -> None:
    first = torch.randn(50, 8)
    second = first * torch.rand(50, 1) + 0.7 * torch.randn(50, 8)
    nearest = cosine_similarity(first.numpy(), second.numpy()).argmax(1)
    expected = float((nearest == range(50)).mean())
    assert 0.1 < expected < 1
    assert accuracy(first, second) == pytest.approx(expected)


def test_only_sentences_of_the_same_language_are_compared() -> None:
    # The German translation is as near to the first Swahili sentence as its own.
    first = torch.tensor([[1.0, 0], [1, 0], [0, 1]])
    second = torch.tensor([[1.0, 1], [1, 0], [0, 1]])
    scores = retrieval(language_groups={"african": ["sw"]}).scores(encoded(first, second))
    assert scores == {
        "accuracy": 1.0, "accuracy.de": 1.0, "accuracy.sw": 1.0, "accuracy.african": 1.0,
    }  # fmt: skip
    swapped = second[[2, 1, 0]]
    found = retrieval().scores(encoded(first, swapped))
    assert (found["accuracy"], found["accuracy.sw"]) == (0.5, 0.0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"text": ["a"]}, r"must name 2 columns, but names \['a'\]"),
        ({"languages": []}, "needs `languages`"),
        ({"layer": 0}, "at least 1, but is 0"),
        ({"language_groups": {"x": ["fr"]}}, "but has fr"),
    ],
)
def test_wrong_declaration_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        retrieval(**changes)


@pytest.mark.parametrize(
    ("known", "said"),
    [
        (rows(english=[1, 2, 3]), r"'english' of corpus\.parquet must hold texts, but holds int64"),
        (rows(english=["x", None, "z"]), r"'english' of corpus\.parquet .* row 1 is None"),
        (rows(sentence=["a", "b", ""]), "row 2 is ''"),
        (rows(lang=["sw", "de", "fr"]), r"declares \(de, sw\), but holds fr"),
    ],
)
def test_wrong_rows_are_refused(known: Rows, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        retrieval().check_rows(known)
    retrieval().check_rows(rows())
    with pytest.raises(ValueError, match="must have a column 'sentence', but has lang"):
        retrieval().check_rows(Rows(Dataset.from_dict({"lang": ["de"]}), "corpus.parquet", ""))
