"""A task that is made of what an exported model says reads and compares as the trained one does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from datasets import Dataset
from masked_task import masked_task
from tiny_text_to_text import TASKS as WORDED
from tiny_text_to_text import tiny_t5

from multiprune.data.source import FileSource
from multiprune.metrics import Accuracy, AnswerF1, MicroF1, Pearson, SpanF1
from multiprune.models.factory import tasks_for
from multiprune.models.from_scratch import character_tokenizer
from multiprune.tasks.answer_text import squad
from multiprune.tasks.classification import Classification, MultiLabel, Regression
from multiprune.tasks.described import task_from
from multiprune.tasks.question_answering import QuestionAnswering
from multiprune.tasks.rows import Rows
from multiprune.tasks.scores import check_metrics
from multiprune.tasks.spans import SpanTagging
from multiprune.tasks.tagging import Tagging

if TYPE_CHECKING:
    from multiprune.tasks.task import Task

SOURCE = FileSource(files={})


def task(kind: type[Task], metric: Any, **settings: Any) -> Task:
    given: dict[str, Any] = {"text": ["a"], "label": "gold", "source": SOURCE}
    return kind(**given | {"metrics": {"one": metric}} | settings)


QUESTIONS = {"text": ["q", "c"], "label_start": "start", "normalize": squad}
TASKS = {
    "names": task(Classification, Accuracy(), labels=["no", "yes"]),
    "integers": task(Classification, Accuracy(), labels=[-1, 4]),
    "sets": task(MultiLabel, MicroF1(), labels=["x", "y", "z"]),
    "indicators": task(MultiLabel, MicroF1(), labels=["x", "y", "z"], indicators=True),
    "number": task(Regression, Pearson(), minimum=-1, maximum=5),
    "tags": task(Tagging, Accuracy(), labels=["noun", "verb"], overlap=None),
    "spans": task(SpanTagging, SpanF1(), labels=["O", "B-X", "I-X"], overlap=3),
    "questions": task(QuestionAnswering, AnswerF1(), **QUESTIONS, overlap=5, question_length=7),
}
ROWS: dict[str, dict[str, list[Any]]] = {
    "names": {"a": ["the fox", "dog"], "gold": ["no", "yes"]},
    "integers": {"a": ["the fox", "dog"], "gold": [4, -1]},
    "sets": {"a": ["the fox", "dog"], "gold": [["z", "x"], []]},
    "indicators": {"a": ["the fox", "dog"], "gold": [[1, 0, 1], [0, 0, 0]]},
    "number": {"a": ["the fox", "dog"], "gold": [-1, 2.5]},
    "tags": {"a": [["the", "fox"], ["runs"]], "gold": [["noun", "verb"], ["verb"]]},
    "spans": {"a": [["the", "fox"], ["runs"]], "gold": [["B-X", "I-X"], ["O"]]},
    "questions": {
        "q": ["who"], "c": ["the fox runs"], "gold": [["fox", "the fox"]], "start": [[4, 0]]
    },
}  # fmt: skip


def stated(trained: Task) -> Any:
    return json.loads(json.dumps(dict(trained.description)))


@pytest.mark.parametrize("name", TASKS)
def test_task_is_the_one_that_was_trained(name: str) -> None:
    trained = TASKS[name]
    made = task_from(name, stated(trained), SOURCE)
    assert type(made) is type(trained)
    assert made.description == trained.description
    assert (made.output, made.marks_unlabelled) == (trained.output, trained.marks_unlabelled)
    rows = Rows(Dataset.from_dict(ROWS[name]), "memory", "")
    encoded = [one.encode(rows, character_tokenizer(), 16) for one in (made, trained)]
    # Labels of questions are arrays.
    assert repr(encoded[0]) == repr(encoded[1])
    check_metrics({name: made})


@pytest.mark.parametrize("name", WORDED)
def test_task_in_words_is_worded_as_it_was(name: str) -> None:
    encoder = tiny_t5()
    trained = tasks_for(encoder, WORDED)[name]
    # Under another name its template would be another, were it not stated.
    made = tasks_for(encoder, {"other": task_from("other", stated(trained), SOURCE)})
    assert made["other"].description == trained.description


@pytest.mark.parametrize("name", TASKS)
def test_what_is_not_stated_is_named(name: str) -> None:
    whole = stated(TASKS[name])
    optional = {"kind", "values", "indicators", "per_token", "reads_words"}
    for key in whole.keys() - optional:
        part = {other: value for other, value in whole.items() if other != key}
        if key != "labels" or "values" not in whole:
            with pytest.raises(ValueError, match=f"description of '{name}' must have '{key}'"):
                task_from(name, part, SOURCE)


def test_hidden_tokens_are_known_to_the_run_alone() -> None:
    with pytest.raises(ValueError, match="How 'mlm' is evaluated is known from its run alone"):
        task_from("mlm", masked_task().description, SOURCE)
