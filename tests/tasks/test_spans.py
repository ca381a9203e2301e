from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest
import seqeval.metrics
import torch
from datasets import Dataset
from torch.nn.functional import one_hot

from multiprune.data.batches import EncodedTask
from multiprune.data.source import HubSource
from multiprune.metrics import SpanF1
from multiprune.metrics.terms import MetricTerms
from multiprune.models.from_scratch import character_tokenizer
from multiprune.runs.predictions import Answers
from multiprune.tasks.answers import answers_to, joined
from multiprune.tasks.iob2 import spans_of
from multiprune.tasks.rows import Rows
from multiprune.tasks.scores import metric_terms, scores_of
from multiprune.tasks.spans import SpanTagging
from multiprune.tasks.tagging import Tagging

TOKENIZER = character_tokenizer()
TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
COMMON: dict[str, Any] = {
    "text": ["words"],
    "label": "tags",
    "metrics": {"f1": SpanF1()},
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
    assert SpanF1()(found, right) == pytest.approx(1 / 3)
    assert SpanF1()(right, right) == 1
    assert SpanF1()([set()], [set()]) == 0


@pytest.mark.parametrize("seed", range(5))
def test_f1_is_that_of_seqeval(seed: int) -> None:
    lengths = [Random(seed).randint(1, 9) for _ in range(40)]
    right, found = drawn(seed, lengths), drawn(seed + 100, lengths)
    expected = seqeval.metrics.f1_score(right, found, average="micro", zero_division=0)
    assert 0 < expected < 1
    assert SpanF1()(list(map(spans_of, found)), list(map(spans_of, right))) == pytest.approx(
        expected
    )


def test_spans_end_with_their_example_whatever_order_answers_come_in() -> None:
    lengths = [3, 1, 4, 2]
    right, found = drawn(0, lengths), drawn(1, lengths)
    order = [2, 0, 3, 1]

    def ids(tags: list[list[str]]) -> torch.Tensor:
        return torch.tensor([TAGS.index(tag) for row in order for tag in tags[row]])

    examples = torch.tensor([row for row in order for _ in range(lengths[row])])
    score = scores_of(TASK, Answers(one_hot(ids(found), len(TAGS)), ids(right), examples), None)
    assert score == pytest.approx({"f1": seqeval.metrics.f1_score(right, found)})


def words_by_tag() -> dict[str, list[str]]:
    """Return words of one token and of more, by the tag that goes with their first tokens."""
    found: dict[str, list[str]] = {tag: [] for tag in TAGS}
    for word in ("the", "dog", "runs", "cat", "fox", "xyz", "one", "qed", "kit", "red", "by"):
        number = TOKENIZER(word, add_special_tokens=False)["input_ids"][0]
        found[TAGS[number % len(TAGS)]].append(word)
    return {tag: words for tag, words in found.items() if words}


@pytest.mark.parametrize("overlap", [0, 3, None])
def test_f1_of_long_documents_is_that_of_seqeval_on_all_their_words(overlap: int | None) -> None:
    rng, by_tag = Random(0), words_by_tag()
    lengths = [2, 30, 0, 9, 17]
    predicted = [rng.choices([*by_tag], k=length) for length in lengths]
    words = [[rng.choice(by_tag[tag]) for tag in tags] for tags in predicted]
    right = [[rng.choice([tag, *TAGS]) for tag in tags] for tags in predicted]
    rows = Rows(Dataset.from_dict({"words": words, "tags": right}), "corpus", "")
    task = replace(TASK, overlap=overlap)
    columns, cut = task.encode(rows, TOKENIZER, 8)
    table = Dataset.from_dict(columns)
    encoded = EncodedTask(
        name="spans", task=task, splits={"test": table}, truncated=cut, padding_token=0
    )
    parts = []
    for row in rng.sample(range(len(table)), len(table)):  # as ranks and sorting by length do
        batch = encoded.batch("test", [row])
        logits = one_hot(batch.inputs["input_ids"] % len(TAGS), len(TAGS))
        parts.append(answers_to(task, batch, logits))
    answers = task.output.combined(joined(parts))
    if overlap is None:
        assert cut == 3
        for document, tags in zip(words, predicted, strict=True):
            read = TOKENIZER(document, is_split_into_words=True, max_length=8, truncation=True)
            count = len({*read.word_ids()} - {None})
            tags[count:] = ["O"] * (len(tags) - count)
    expected = seqeval.metrics.f1_score(right, predicted)
    assert 0 < expected < 1
    assert scores_of(task, answers, None)["f1"] == pytest.approx(expected)
    terms = metric_terms(task, answers, None, lambda _: [])
    assert isinstance(terms, MetricTerms)
    assert float(SpanF1().formula(terms.terms.sum(0))) == pytest.approx(expected)
    assert len(terms.units) == 4  # documents that have words


@pytest.mark.parametrize("labels", [["B-PER", "I-PER"], ["O", "PER"], ["O", "B-PER", "E-PER"]])
def test_other_schemes_are_refused(labels: list[str]) -> None:
    with pytest.raises(ValueError, match="must be O, and others that begin with B- or I-, but are"):
        SpanTagging(labels=labels, **COMMON)


def test_all_but_the_score_is_as_in_tagging() -> None:
    assert TASK.cache_key == Tagging(labels=TAGS, **COMMON).cache_key
