from __future__ import annotations

from typing import Any

import pytest
import torch
from datasets import Dataset
from multilingual_task import task

from multiprune.runs.predictions import Answers
from multiprune.tasks.languages import languages_of, with_averages
from multiprune.tasks.rows import Rows
from multiprune.tasks.scores import reads_rows, scores_of


def rows(**columns: list[Any]) -> Rows:
    return Rows(Dataset.from_dict(columns), "corpus.parquet", "fingerprint")


def test_mean_is_over_languages_not_over_examples() -> None:
    # Right are 1 of 1 in English, and 1 of 3 in Swahili; examples come in any order.
    answers = Answers(
        torch.eye(2)[[0, 1, 1, 1]], torch.tensor([1, 1, 0, 1]), torch.tensor([3, 0, 2, 1])
    )
    found = scores_of(
        task(language_groups={"others": ["de", "sw"], "none": ["de"]}),
        answers,
        rows(lang=["sw", "en", "sw", "sw"]),
    )
    assert found == pytest.approx(
        {"accuracy": 2 / 3, "accuracy.en": 1, "accuracy.sw": 1 / 3, "accuracy.others": 1 / 3}
    )


def test_without_languages_all_examples_are_one() -> None:
    answers = Answers(torch.eye(2), torch.tensor([1, 1]), torch.tensor([0, 1]))
    plain = task(languages=[])
    assert not reads_rows(plain)
    assert reads_rows(task())
    assert scores_of(plain, answers, None) == {"accuracy": 0.5}


def test_every_metric_is_averaged() -> None:
    scores = {"en": {"f1": 0.5, "em": 0.25}, "de": {"f1": 0.0, "em": 0.75}}
    found = with_averages(scores, {"germanic": ["de", "en"], "romance": ["fr"]})
    assert found == {
        "f1": 0.25, "f1.en": 0.5, "f1.de": 0.0, "f1.germanic": 0.25,
        "em": 0.5, "em.en": 0.25, "em.de": 0.75, "em.germanic": 0.5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"languages": ["en", "en"]}, r"`languages` must be different, but are \['en', 'en'\]"),
        ({"train_languages": ["fr"]}, r"`train_languages` must be of .*\(en, de, sw\), but has fr"),
        ({"train_languages": []}, "must name a language or be null, but is empty"),
        ({"language_groups": {"x": ["fr"]}}, r"`language_groups\.x` must be of .* but has fr"),
        ({"language_groups": {"de": ["en"]}}, r"share a language's name, but 'de' is \['en'\]"),
        ({"language_groups": {"x": []}}, r"must be non-empty .* but 'x' is \[\]"),
        ({"languages": [], "train_languages": ["en"]}, r"\(\), but has en"),
    ],
)
def test_wrong_declaration_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        task(**changes)


def test_language_that_is_not_declared_is_named() -> None:
    assert languages_of(rows(lang=["en", "sw"]), ["en", "de", "sw"]) == ["en", "sw"]
    with pytest.raises(ValueError, match=r"'lang' of corpus\.parquet .*\(en\), but holds None, de"):
        languages_of(rows(lang=["en", "de", None]), ["en"])


def test_missing_column_is_named() -> None:
    with pytest.raises(ValueError, match=r"must have a column 'lang', .* but has sentence"):
        languages_of(rows(sentence=["a"]), ["en"])
