"""Scores of spans, of answers in words and of several languages, on resamples of the examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.functional import one_hot
from typing_extensions import override

from multiprune.data.source import HubSource
from multiprune.metrics import AUROC, Accuracy, AnswerF1, ExactMatch, MacroF1, Metric, SpanF1
from multiprune.metrics.predicted import Classes
from multiprune.metrics.terms import MetricDraws, MetricTerms, resampled
from multiprune.report.resampled import resamples
from multiprune.runs.predictions import Answers
from multiprune.tasks import answer_text
from multiprune.tasks.classification import Classification
from multiprune.tasks.question_answering import QuestionAnswering
from multiprune.tasks.rows import Rows
from multiprune.tasks.scores import metric_terms, scores_of
from multiprune.tasks.spans import SpanTagging
from multiprune.tasks.tagging import Tagging

if TYPE_CHECKING:
    from collections.abc import Iterator

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


def questions(metric: Metric, **changes: Any) -> tuple[Task, Answers]:
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


def tags(kind: type[Tagging], metric: Metric, **changes: Any) -> tuple[Task, Answers]:
    task = kind(text=["words"], labels=TAGS, metrics={"score": metric}, **settings(**changes))
    generator = torch.Generator().manual_seed(0)
    sizes = torch.randint(1, 9, (EXAMPLES,), generator=generator)
    labels = torch.randint(5, (int(sizes.sum()),), generator=generator)
    other = torch.randint(5, labels.shape, generator=generator)
    wrong = torch.rand(labels.shape, generator=generator) < 0.3
    examples = torch.arange(EXAMPLES).repeat_interleave(sizes)
    # Ranks take turns; the words of an example stay in their order.
    order = (examples % 2).argsort(stable=True)
    outputs = one_hot(torch.where(wrong, other, labels), 5) + torch.rand(len(labels), 5) / 3
    return task, Answers(outputs, labels, examples).chosen(order)


def classes(metric: Metric, **changes: Any) -> tuple[Task, Answers]:
    task = Classification(
        text=["context"], labels=["a", "b"], metrics={"score": metric}, **settings(**changes)
    )
    labels = torch.arange(EXAMPLES) % 2
    likely = (torch.arange(EXAMPLES) * 5 % 13 + 3 * labels) / 16
    return task, Answers(torch.stack([1 - likely, likely], 1), labels, torch.arange(EXAMPLES))


def rows_of(places: list[int]) -> Rows:
    columns = {name: [column[place] for place in places] for name, column in TABLE.items()}
    return Rows(Dataset.from_dict(columns), "corpus.parquet", "fingerprint")


ROWS = rows_of([*range(EXAMPLES)])


def seeded(units: int) -> Iterator[Tensor]:
    return resamples(units, DRAWS, seed=3)


def repeated(task: Task, answers: Answers, units: list[int], weights: Tensor) -> float:
    """Score a set in which each example is there as often as its unit was drawn."""
    places = [row for row in range(EXAMPLES) for _ in range(int(weights[units[row]]))]
    chosen = [(answers.examples == place).nonzero()[:, 0] for place in places]
    examples = torch.cat([torch.full_like(one, at) for at, one in enumerate(chosen)])
    found = answers.chosen(torch.cat(chosen))
    answered = Answers(found.predictions, found.labels, examples)
    return scores_of(task, answered, rows_of(places))["score"]


def drawn(metric: Any, terms: MetricTerms, weights: Tensor) -> list[float]:
    scores: list[float] = resampled(metric, terms)(weights).tolist()
    return scores


@pytest.mark.parametrize(
    ("languages", "parallel"), [([], None), (LANGUAGES, None), (LANGUAGES, "id")]
)
@pytest.mark.parametrize(
    "kind",
    ["f1", "exact match", "spans", "words", "classes", "macro f1", "auroc", "auroc of words"],
)
def test_score_of_a_resample_is_that_of_examples_repeated(
    kind: str, languages: list[str], parallel: str | None
) -> None:
    declared = {"languages": languages, "parallel": parallel}
    task, answers = {
        "f1": lambda: questions(AnswerF1(), **declared),
        "exact match": lambda: questions(ExactMatch(), **declared),
        "spans": lambda: tags(SpanTagging, SpanF1(), **declared),
        "words": lambda: tags(Tagging, Accuracy(), **declared),
        "classes": lambda: classes(Accuracy(), **declared),
        "macro f1": lambda: classes(MacroF1(), **declared),
        "auroc": lambda: classes(AUROC(), **declared),
        "auroc of words": lambda: tags(Tagging, AUROC(), **declared),
    }[kind]()
    terms = metric_terms(task, answers, ROWS, seeded)
    assert isinstance(terms, MetricTerms)
    units = [row // 3 if parallel else row for row in range(EXAMPLES)]
    (weights,) = resamples(max(units) + 1, DRAWS, seed=3)
    found = drawn(task.metrics["score"], terms, weights)
    expected = [repeated(task, answers, units, one) for one in weights]
    assert found == pytest.approx(expected, abs=1e-6)
    assert len(set(found)) > 5


def test_languages_without_an_example_in_a_resample_do_not_count() -> None:
    task, answers = classes(Accuracy(), languages=LANGUAGES)
    terms = metric_terms(task, answers, ROWS, seeded)
    assert isinstance(terms, MetricTerms)
    of_two, of_one = torch.ones(EXAMPLES), torch.zeros(EXAMPLES)
    of_two[::3], of_one[1] = 0, 2
    found = drawn(Accuracy(), terms, torch.stack([of_two, of_one]))
    right = (task.output.decided(answers.predictions) == answers.labels).double()
    expected = [float(right[1::3].mean() + right[2::3].mean()) / 2, float(right[1])]
    assert found == pytest.approx(expected)
    assert 0 < found[0] < 1


def test_translations_are_no_further_evidence() -> None:
    right = (torch.arange(100) < 60).long()
    # Each of a hundred sentences is answered alike in three languages.
    outputs = one_hot(right.repeat_interleave(3))
    answers = Answers(outputs, torch.ones(300, dtype=torch.long), torch.arange(300))
    table = {"lang": LANGUAGES * 100, "id": [row // 3 for row in range(300)]}
    rows = Rows(Dataset.from_dict(table), "corpus.parquet", "fingerprint")
    spread = {}
    for parallel in ("id", None):
        task, _ = classes(Accuracy(), languages=LANGUAGES, parallel=parallel)
        terms = metric_terms(task, answers, rows, seeded)
        assert isinstance(terms, MetricTerms)
        blocks = resamples(int(terms.units.max()) + 1, 2000, seed=0)
        found = [score for one in blocks for score in drawn(Accuracy(), terms, one)]
        spread[parallel] = float(torch.tensor(found).std())
    binomial = (0.6 * 0.4 / 100) ** 0.5
    assert spread["id"] == pytest.approx(binomial, rel=0.06)
    assert spread[None] == pytest.approx(binomial / 3**0.5, rel=0.06)


def test_spans_that_nobody_finds_score_nothing() -> None:
    task, _ = tags(SpanTagging, SpanF1())
    nothing = torch.zeros(3, dtype=torch.long)
    answers = Answers(one_hot(nothing, 5), nothing, torch.arange(3))
    terms = metric_terms(task, answers, None, seeded)
    assert isinstance(terms, MetricTerms)
    assert drawn(SpanF1(), terms, torch.ones(1, 3)) == [0]


class Mine(Metric):
    """The accuracy, of which nobody here knows."""

    accepts = (Classes,)

    @override
    def __call__(self, outputs: Tensor, labels: Tensor) -> float:
        assert len(labels) > 0
        return Accuracy()(outputs, labels)


class Broken(Mine):
    @override
    def __call__(self, outputs: Tensor, labels: Tensor) -> float:
        raise TypeError("it is broken")


@pytest.mark.parametrize(
    ("languages", "parallel"), [([], None), (LANGUAGES, None), (LANGUAGES, "id")]
)
@pytest.mark.parametrize("kind", [Tagging, Classification])
def test_metrics_of_ones_own_are_drawn_by_the_run(
    kind: type[Task], languages: list[str], parallel: str | None
) -> None:
    declared = {"languages": languages, "parallel": parallel}

    def made(metric: Metric) -> tuple[Task, Answers]:
        if kind is Tagging:
            return tags(Tagging, metric, **declared)
        return classes(metric, **declared)

    found = metric_terms(*made(Mine()), ROWS, seeded)
    assert isinstance(found, MetricDraws)
    terms = metric_terms(*made(Accuracy()), ROWS, seeded)
    assert isinstance(terms, MetricTerms)
    (weights,) = seeded(int(terms.units.max()) + 1)
    assert float(found.draws[0]) == pytest.approx(scores_of(*made(Mine()), ROWS)["score"])
    assert found.draws[1:].tolist() == pytest.approx(drawn(Accuracy(), terms, weights))
    assert torch.equal(found.units, terms.units)


def test_metrics_of_ones_own_that_fail_or_are_slow_are_not_drawn(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert metric_terms(*classes(Broken()), None, seeded) is None
    assert "Metric 'score' is not resampled: it is broken" in caplog.text
    monkeypatch.setattr("multiprune.tasks.scores._MOST_ANSWERS", EXAMPLES - 1)
    assert metric_terms(*classes(Mine()), None, seeded) is None


def test_parallel_rows_need_languages_and_their_column() -> None:
    with pytest.raises(ValueError, match=r"for tasks with `languages`, but is 'id' without any"):
        classes(Accuracy(), parallel="id")
    task, _ = classes(Accuracy(), languages=LANGUAGES, parallel="number")
    with pytest.raises(ValueError, match=r"corpus.parquet must have a column 'number'"):
        task.check_columns(rows_of([0]))
