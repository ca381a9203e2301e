from __future__ import annotations

import pytest
from datasets import Dataset
from multilingual_task import task

from multiprune.data.selection import check_language, in_languages, labelled, used_rows
from multiprune.tasks.rows import Rows

COLUMNS = {"sentence": ["a", "b", "c"], "label": [1, -1, 0], "lang": ["en", "de", "sw"]}
ROWS = Rows(Dataset.from_dict(COLUMNS), "corpus.parquet", "fingerprint")


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


def test_one_language_is_all_that_is_used_of_any_split_whatever_is_trained_on() -> None:
    english = task(train_languages=["en"])
    for split, expected in (("train", ["c"]), ("validation", ["c"]), ("test", ["c"])):
        unlabelled, kept = used_rows(ROWS, english, split, "sw")
        assert kept is not None
        assert (unlabelled, kept.table["sentence"][:]) == (0, expected)
    unlabelled, kept = used_rows(ROWS, english, "train")
    assert kept is not None
    assert (unlabelled, kept.table["sentence"][:]) == (1, ["a"])


def test_rows_without_a_label_are_counted_in_the_language_alone() -> None:
    columns = {"sentence": ["a", "b", "c"], "label": [-1, -1, 0], "lang": ["en", "de", "de"]}
    rows = Rows(Dataset.from_dict(columns), "corpus.parquet", "fingerprint")
    unlabelled, kept = used_rows(rows, task(), "train", "de")
    assert kept is not None
    assert (unlabelled, kept.table["sentence"][:]) == (1, ["c"])
    assert used_rows(rows, task(), "train", "en") == (0, None)


def test_fingerprints_tell_languages_apart() -> None:
    found = [used_rows(ROWS, task(), "train", language)[1] for language in ("en", "sw", None)]
    assert len({one.fingerprint for one in found if one is not None}) == 3


@pytest.mark.parametrize("split", ["train", "validation"])
def test_language_without_rows_is_refused_with_those_that_have_some(split: str) -> None:
    four = task(languages=["en", "de", "sw", "fr"])
    with pytest.raises(ValueError, match=f"no {split} rows in fr, only in en, de, sw"):
        used_rows(ROWS, four, split, "fr")
    assert used_rows(ROWS, four, "test", "fr") == (0, None)


def test_language_must_be_one_that_every_task_declares() -> None:
    check_language("de", {"first": task()})
    with pytest.raises(ValueError, match=r"languages of first \(en, de, sw\), but is fr"):
        check_language("fr", {"first": task()})
    with pytest.raises(ValueError, match="`languages` of a task, but second has none"):
        check_language("de", {"first": task(), "second": task(languages=[])})
