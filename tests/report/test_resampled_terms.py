"""Scores of spans, of answers in words and of several languages, on resamples of the examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from multiprune.data.source import HubSource
from multiprune.report.findings.resampling import resampled_quotient, resamples
from multiprune.tasks import answer_text
from multiprune.tasks.answers import Answers
from multiprune.tasks.classification import Classification
from multiprune.tasks.metrics import accuracy, macro_f1
from multiprune.tasks.question_answering import QuestionAnswering
from multiprune.tasks.score_terms import ScoreTerms, score_terms
from multiprune.tasks.scores import scores_of
from multiprune.tasks.spans import SpanTagging, span_f1
from multiprune.tasks.tagging import Tagging
from multiprune.tasks.task import Rows

if TYPE_CHECKING:
    from multiprune.report.findings.resampling import Numbers, Weights
    from multiprune.tasks.task import Task

EXAMPLES, DRAWS = 24, 40
TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
LANGUAGES = ["de", "en", "zh"]
#: Languages take turns, and three rows in a row are one in three languages.
TABLE: dict[str, list[Any]] = {
    "lang": [LANGUAGES[row % 3] for row in range(EXAMPLES)],
    "id": [f"sentence {row // 3}" for row in range(EXAMPLES)],
    "question": ["what"] * EXAMPLES,
    "context": [f"one two three four five six {row}" for row in range(EXAMPLES)],
    "answers": [["two three", "six"] if row % 2 else ["one two"] for row in range(EXAMPLES)],
}


def settings(**changes: Any) -> dict[str, Any]:
    return {"label": "answers", "source": HubSource(path=None, mirror="nowhere"), **changes}


def questions(metric: Any, **changes: Any) -> tuple[Task, Answers]:
    task = QuestionAnswering(
        text=["question", "context"],
        label_start="starts",
        normalize=answer_text.squad,
        metrics={"score": metric},
        **settings(**changes),
    )
    # "one", "one two", "two three", ...: some right, some in part.
    spans = [(0, 3), (0, 7), (4, 13), (4, 18), (24, 27)]
    predictions = torch.tensor([spans[(5 * row + row // 4) % 5] for row in range(EXAMPLES)])
    return task, Answers(predictions, predictions, torch.arange(EXAMPLES))


def tags(kind: type[Tagging], metric: Any, **changes: Any) -> tuple[Task, Answers]:
    task = kind(text=["words"], labels=TAGS, metrics={"score": metric}, **settings(**changes))
    generator = torch.Generator().manual_seed(0)
    sizes = torch.randint(1, 9, (EXAMPLES,), generator=generator)
    labels = torch.randint(5, (int(sizes.sum()),), generator=generator)
    other = torch.randint(5, labels.shape, generator=generator)
    wrong = torch.rand(labels.shape, generator=generator) < 0.3
    examples = torch.arange(EXAMPLES).repeat_interleave(sizes)
    # Ranks take turns; the words of an example stay in their order.
    order = (examples % 2).argsort(stable=True)
    return task, Answers(torch.where(wrong, other, labels), labels, examples).chosen(order)


def classes(**changes: Any) -> tuple[Task, Answers]:
    task = Classification(
        text=["context"], labels=["a", "b"], metrics={"score": accuracy}, **settings(**changes)
    )
    labels = torch.arange(EXAMPLES) % 2
    predictions = (torch.arange(EXAMPLES) % 5 < 2).long()
    return task, Answers(predictions, labels, torch.arange(EXAMPLES))


def rows_of(places: list[int]) -> Rows:
    columns = {name: [column[place] for place in places] for name, column in TABLE.items()}
    return Rows(Dataset.from_dict(columns), "corpus.parquet", "fingerprint")


def repeated(task: Task, answers: Answers, units: list[int], weights: Weights) -> float:
    """Score a set in which each example is there as often as its unit was drawn."""
    places = [row for row in range(EXAMPLES) for _ in range(int(weights[units[row]]))]
    chosen = [(answers.examples == place).nonzero()[:, 0] for place in places]
    examples = torch.cat([torch.full_like(one, at) for at, one in enumerate(chosen)])
    found = answers.chosen(torch.cat(chosen))
    answered = Answers(found.predictions, found.labels, examples)
    return scores_of(task, answered, rows_of(places))["score"]


def drawn(terms: ScoreTerms, weights: Weights) -> Numbers:
    return resampled_quotient(*(one.numpy() for one in vars(terms).values()))(weights)


@pytest.mark.parametrize(
    ("languages", "parallel"), [([], None), (LANGUAGES, None), (LANGUAGES, "id")]
)
@pytest.mark.parametrize("kind", ["f1", "exact match", "spans", "words", "classes"])
def test_score_of_a_resample_is_that_of_examples_repeated(
    kind: str, languages: list[str], parallel: str | None
) -> None:
    declared = {"languages": languages, "parallel": parallel}
    task, answers = {
        "f1": lambda: questions(answer_text.f1, **declared),
        "exact match": lambda: questions(answer_text.exact_match, **declared),
        "spans": lambda: tags(SpanTagging, span_f1, **declared),
        "words": lambda: tags(Tagging, accuracy, **declared),
        "classes": lambda: classes(**declared),
    }[kind]()
    terms = score_terms(task, answers, rows_of([*range(EXAMPLES)]))
    if kind in ("words", "classes") and not languages:
        # Of these the report has all it needs in answers.
        assert terms is None
        return
    assert terms is not None
    units = [row // 3 if parallel else row for row in range(EXAMPLES)]
    (weights,) = resamples(max(units) + 1, DRAWS, seed=3)
    found = drawn(terms, weights)
    expected = [repeated(task, answers, units, one) for one in weights]
    assert found == pytest.approx(expected, abs=1e-6)
    assert len(set(found)) > 5


def test_translations_are_no_further_evidence() -> None:
    right = (torch.arange(100) < 60).long()
    # Each of a hundred sentences is answered alike in three languages.
    answers = Answers(
        right.repeat_interleave(3), torch.ones(300, dtype=torch.long), torch.arange(300)
    )
    table = {"lang": LANGUAGES * 100, "id": [row // 3 for row in range(300)]}
    rows = Rows(Dataset.from_dict(table), "corpus.parquet", "fingerprint")
    spread = {}
    for parallel in ("id", None):
        task, _ = classes(languages=LANGUAGES, parallel=parallel)
        terms = score_terms(task, answers, rows)
        assert terms is not None
        blocks = resamples(int(terms.units.max()) + 1, 2000, seed=0)
        spread[parallel] = np.concatenate([drawn(terms, one) for one in blocks]).std()
    binomial = (0.6 * 0.4 / 100) ** 0.5
    assert spread["id"] == pytest.approx(binomial, rel=0.06)
    assert spread[None] == pytest.approx(binomial / 3**0.5, rel=0.06)


def test_spans_that_nobody_finds_score_nothing() -> None:
    task, _ = tags(SpanTagging, span_f1)
    nothing = torch.zeros(3, dtype=torch.long)
    terms = score_terms(task, Answers(nothing, nothing, torch.arange(3)), None)
    assert terms is not None
    assert drawn(terms, np.ones((1, 3), np.float32)).tolist() == [0]


def test_scores_that_are_no_quotient_have_no_terms() -> None:
    task, answers = tags(Tagging, macro_f1, languages=LANGUAGES)
    assert score_terms(task, answers, rows_of([*range(EXAMPLES)])) is None


def test_parallel_rows_need_languages_and_their_column() -> None:
    with pytest.raises(ValueError, match=r"for tasks with `languages`, but is 'id' without any"):
        classes(parallel="id")
    task, _ = classes(languages=LANGUAGES, parallel="number")
    with pytest.raises(ValueError, match=r"corpus.parquet must have a column 'number'"):
        task.check_columns(rows_of([0]))
