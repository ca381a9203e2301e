"""What one definition of a metric gives of any answers: a score, sums of parts, and resamples."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from drawn_answers import (
    classes,
    hidden,
    label_sets,
    numbers,
    of_hidden,
    of_texts,
    spans_in,
    tagged,
    texts,
)
from hypothesis import given
from hypothesis import strategies as st
from metric_world import certain
from strategies import integers
from torch import Tensor, tensor

from multiprune import metrics
from multiprune.data.source import HubSource
from multiprune.metrics.catalogue import CATALOGUE, from_record, recorded
from multiprune.metrics.metric import SumMetric
from multiprune.metrics.terms import MetricTerms, resampled, terms_of
from multiprune.runs.predictions import Answers
from multiprune.tasks.rows import Rows
from multiprune.tasks.scores import metric_terms, scores_of
from multiprune.tasks.spans import SpanTagging
from multiprune.tasks.tagging import Tagging

if TYPE_CHECKING:
    from drawn_answers import Compared
    from numpy.typing import NDArray

    from multiprune.metrics.catalogue import Known

SOURCE = HubSource(path=None, mirror="nowhere")
ANSWERS: dict[str, st.SearchStrategy[Compared]] = {
    "classes": classes(),
    "two classes": classes(2),
    "sets": label_sets(),
    "numbers": numbers,
    "spans": tagged.map(spans_in),
    "texts": texts.map(of_texts),
    "hidden tokens": hidden.map(of_hidden),
}
OF_BOTH = ["accuracy", "macro_f1", "micro_f1", "log_loss", "auroc", "average_precision"]
NAMES = {
    "classes": [*OF_BOTH, "recall_at_k", "matthews_correlation", "expected_calibration_error"],
    "two classes": ["f1"],
    "sets": [*OF_BOTH, "recall_at_k"],
    "numbers": ["pearson", "spearman"],
    "spans": ["span_f1"],
    "texts": ["answer_f1", "exact_match"],
    "hidden tokens": ["token_accuracy", "token_loss", "perplexity"],
}
SETTINGS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "recall_at_k": st.builds(dict, k=st.integers(1, 2)),
    "expected_calibration_error": st.just({}) | st.builds(dict, bins=st.integers(1, 20)),
}

every_kind = pytest.mark.parametrize("kind", NAMES)


def close(value: Any) -> Any:
    return pytest.approx(value, rel=1e-9, abs=1e-9)


def drawn_metrics(data: st.DataObject, kind: str) -> list[Known]:
    settings = {name: data.draw(SETTINGS[name]) for name in NAMES[kind] if name in SETTINGS}
    return [CATALOGUE[name](**settings.get(name, {})) for name in NAMES[kind]]


def drawn_numbers(data: st.DataObject, count: int, most: int) -> NDArray[np.int64]:
    """Draw numbers from 0 up to any, none of which is left out."""
    _, numbers = np.unique(data.draw(integers(count, 0, most)), return_inverse=True)
    return numbers


def chosen(side: Any, places: list[int]) -> Any:
    return side[places] if isinstance(side, Tensor) else [side[place] for place in places]


def test_every_metric_is_drawn_here() -> None:
    assert {name for names in NAMES.values() for name in names} == CATALOGUE.keys()


@every_kind
@given(data=st.data())
def test_parts_of_any_size_add_up_to_the_score(data: st.DataObject, kind: str) -> None:
    outputs, labels = data.draw(ANSWERS[kind])
    # Processes may have nothing.
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, len(labels)), max_size=2))), len(labels)]
    for metric in drawn_metrics(data, kind):
        score = metric(outputs, labels)
        assert np.isfinite(score), metric
        assert from_record(json.loads(json.dumps(recorded(metric)))) == metric
        terms = metric.terms(outputs, labels)
        twice = metric.scores(terms, torch.ones(2, len(terms))).tolist()
        assert twice == [close(score)] * 2, metric
        if isinstance(metric, SumMetric):
            sums = metric.sums(outputs, labels).sum(0)
            assert float(metric.formula(sums)) == close(score), metric
            parts = [
                metric.total(outputs[start:end], labels[start:end]) for start, end in pairwise(cuts)
            ]
            assert float(metric.formula(torch.stack(parts).sum(0))) == close(score), metric


@every_kind
@given(data=st.data())
def test_a_resample_has_the_mean_over_languages_of_examples_repeated(
    data: st.DataObject, kind: str
) -> None:
    outputs, labels = data.draw(ANSWERS[kind])
    # Several answers may be of one example, and several examples of one unit.
    places = drawn_numbers(data, len(labels), 5)
    count = int(places.max()) + 1
    languages, units = (drawn_numbers(data, count, most) for most in (2, 5))
    weights = data.draw(integers((3, int(units.max()) + 1), 0, 2))
    drawn = [
        [
            np.arange(len(places)).repeat(times * (languages[places] == language)).tolist()
            for language in np.unique(languages[places][times > 0])
        ]
        for times in weights[:, units[places]]
    ]
    for metric in drawn_metrics(data, kind):
        terms, of = terms_of(metric, outputs, labels, tensor(places), count)
        known = MetricTerms(terms, of, tensor(languages), tensor(units))
        found = resampled(metric, known)(tensor(weights).float()).tolist()
        for score, by_language in zip(found, drawn, strict=True):
            expected = [metric(chosen(outputs, one), chosen(labels, one)) for one in by_language]
            # No report draws nothing.
            assert not expected or score == close(float(np.mean(expected))), metric


@given(tagged, st.data())
def test_resampled_texts_have_the_f1_of_their_spans(
    drawn: list[list[tuple[str, str]]], data: st.DataObject
) -> None:
    tags = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    task = SpanTagging(
        text=["words"], label="tags", labels=tags, metrics={"f1": metrics.SpanF1()}, source=SOURCE
    )
    found, right = (
        tensor([tags.index(tag[side]) for text in drawn for tag in text]) for side in (0, 1)
    )
    of = [place for place, text in enumerate(drawn) for _ in text]
    weights = data.draw(integers((2, len(drawn)), 0, 2))
    answers = Answers(certain(found, len(tags)), right, tensor(of))
    known = metric_terms(task, answers, None, lambda _: [])
    assert isinstance(known, MetricTerms)
    scores = resampled(metrics.SpanF1(), known)(tensor(weights).float()).tolist()
    for score, times in zip(scores, weights.tolist(), strict=True):
        if any(times):
            texts = [text for text, often in zip(drawn, times, strict=True) for _ in range(often)]
            assert score == close(metrics.SpanF1()(*spans_in(texts)))


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.booleans(), st.integers(1, 3)),
        min_size=1,
        max_size=12,
    ),
    st.booleans(),
)
def test_scores_of_several_languages_are_their_mean(
    drawn: list[tuple[str, int, bool, int]], is_parallel: bool
) -> None:
    accuracy = metrics.Accuracy()
    task = Tagging(
        text=["words"], label="tags", labels=["O", "A"], metrics={"score": accuracy},
        languages=["a", "b", "c"],
        parallel="id" if is_parallel else None,
        source=SOURCE,
    )  # fmt: skip
    table = {"lang": [row[0] for row in drawn], "id": [row[1] for row in drawn]}
    rows = Rows(Dataset.from_dict(table), "corpus", "")
    # Of each example so many words, all of them right or all but the first.
    of = [place for place, (*_, words) in enumerate(drawn) for _ in range(words)]
    right = [int(is_right or word > 0) for *_, is_right, words in drawn for word in range(words)]
    answers = Answers(certain(right), torch.ones(len(of), dtype=torch.long), tensor(of))
    by_language: dict[str, list[int]] = {}
    for place, found in zip(of, right, strict=True):
        by_language.setdefault(drawn[place][0], []).append(found)
    means = {language: float(np.mean(own)) for language, own in by_language.items()}
    expected: dict[str, Any] = {"score": np.mean([*means.values()])}
    expected |= {f"score.{language}": mean for language, mean in means.items()}
    assert scores_of(task, answers, rows) == pytest.approx(expected)
    known = metric_terms(task, answers, rows, lambda _: [])
    assert isinstance(known, MetricTerms)
    units = int(known.units.max()) + 1
    assert units == len({row[1] for row in drawn} if is_parallel else drawn)
    assert float(resampled(accuracy, known)(torch.ones(1, units))) == close(expected["score"])
