from __future__ import annotations

from random import Random
from typing import Any

import pytest
import seqeval.metrics
import torch

from multiprune.data.source import HubSource
from multiprune.tasks.answers import Answers
from multiprune.tasks.scores import scores_of
from multiprune.tasks.spans import SpanTagging, span_f1, spans_of
from multiprune.tasks.tagging import Tagging

TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
COMMON: dict[str, Any] = {
    "text": ["words"],
    "label": "tags",
    "metrics": {"f1": span_f1},
    "source": HubSource(path=None, mirror="nowhere"),
}
TASK = SpanTagging(labels=TAGS, **COMMON)


def drawn(seed: int, lengths: list[int]) -> list[list[str]]:
    rng = Random(seed)
    return [rng.choices(TAGS, k=length) for length in lengths]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O O", set()),
        ("B-PER I-PER O B-LOC", {("PER", 0, 2), ("LOC", 3, 4)}),
        ("B-PER B-PER I-PER", {("PER", 0, 1), ("PER", 1, 3)}),
        # Not IOB2, but what a model may answer.
        ("I-PER I-PER O I-LOC", {("PER", 0, 2), ("LOC", 3, 4)}),
        ("B-PER I-LOC I-LOC", {("PER", 0, 1), ("LOC", 1, 3)}),
    ],
)
def test_spans_of_tags(tags: str, expected: set[tuple[str, int, int]]) -> None:
    assert spans_of(tags.split()) == expected


def test_only_whole_spans_of_the_right_kind_count() -> None:
    right = [spans_of(["B-PER", "I-PER", "O", "B-LOC"]), spans_of(["B-LOC", "O"])]
    found = [spans_of(["B-PER", "O", "O", "B-LOC"]), spans_of(["B-PER", "O"])]
    # One of three is found, by three answers.
    assert span_f1(found, right) == pytest.approx(1 / 3)
    assert span_f1(right, right) == 1
    assert span_f1([set()], [set()]) == 0


@pytest.mark.parametrize("seed", range(5))
def test_f1_is_that_of_seqeval(seed: int) -> None:
    lengths = [Random(seed).randint(1, 9) for _ in range(40)]
    right, found = drawn(seed, lengths), drawn(seed + 100, lengths)
    expected = seqeval.metrics.f1_score(right, found, average="micro", zero_division=0)
    assert 0 < expected < 1
    assert span_f1(list(map(spans_of, found)), list(map(spans_of, right))) == pytest.approx(
        expected
    )


def test_spans_end_with_their_example_whatever_order_answers_come_in() -> None:
    lengths = [3, 1, 4, 2]
    right, found = drawn(0, lengths), drawn(1, lengths)
    order = [2, 0, 3, 1]

    def ids(tags: list[list[str]]) -> torch.Tensor:
        return torch.tensor([TAGS.index(tag) for row in order for tag in tags[row]])

    examples = torch.tensor([row for row in order for _ in range(lengths[row])])
    score = scores_of(TASK, Answers(ids(found), ids(right), examples), None)
    assert score == pytest.approx({"f1": seqeval.metrics.f1_score(right, found)})


@pytest.mark.parametrize("labels", [["B-PER", "I-PER"], ["O", "PER"], ["O", "B-PER", "E-PER"]])
def test_other_schemes_are_refused(labels: list[str]) -> None:
    with pytest.raises(ValueError, match="must be O, and others that begin with B- or I-, but are"):
        SpanTagging(labels=labels, **COMMON)


def test_all_but_the_score_is_as_in_tagging() -> None:
    assert TASK.definition == Tagging(labels=TAGS, **COMMON).definition
