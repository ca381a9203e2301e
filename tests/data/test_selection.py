from __future__ import annotations

from typing import Any

import pytest
from datasets import Dataset

from multiprune.data.selection import in_languages, labelled
from multiprune.data.source import HubSource
from multiprune.tasks.classification import Classification
from multiprune.tasks.metrics import accuracy
from multiprune.tasks.task import Rows

COLUMNS = {"sentence": ["a", "b", "c"], "label": [1, -1, 0], "lang": ["en", "de", "sw"]}
ROWS = Rows(Dataset.from_dict(COLUMNS), "corpus.parquet", "fingerprint")


def task(**changes: Any) -> Classification:
    arguments: dict[str, Any] = {
        "text": ["sentence"],
        "label": "label",
        "labels": ["bad", "good"],
        "metrics": {"accuracy": accuracy},
        "source": HubSource(path=None, mirror="nowhere"),
        "languages": ["en", "de", "sw"],
    }
    return Classification(**arguments | changes)


def test_only_training_rows_are_left_out_by_language() -> None:
    some = task(train_languages=["sw", "en"])
    for split in ("validation", "test"):
        assert in_languages(ROWS, some, split) is ROWS
    kept = in_languages(ROWS, some, "train")
    assert kept is not None
    assert kept.table["sentence"][:] == ["a", "c"]
    assert kept.fingerprint != ROWS.fingerprint


def test_all_languages_are_trained_on_unless_some_are_named() -> None:
    assert in_languages(ROWS, task(), "train") is ROWS
    assert in_languages(ROWS, task(languages=[]), "train") is ROWS


def test_no_row_in_a_language_to_train_on_is_no_rows() -> None:
    only = task(languages=["en", "de", "sw", "fr"], train_languages=["fr"])
    assert in_languages(ROWS, only, "train") is None


@pytest.mark.parametrize("split", ["train", "validation"])
def test_undeclared_language_is_refused_in_every_split(split: str) -> None:
    with pytest.raises(ValueError, match=r"declares \(en, de\), but holds sw"):
        in_languages(ROWS, task(languages=["en", "de"], train_languages=["en"]), split)


def test_rows_without_a_public_label_are_left_out() -> None:
    kept = labelled(ROWS, task())
    assert kept is not None
    assert kept.table["label"][:] == [1, 0]
