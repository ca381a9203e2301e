"""A task from what an exported model says of it, for whoever has not the run's configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from multiprune.metrics.catalogue import named_metrics
from multiprune.tasks.answer_text import squad
from multiprune.tasks.classification import Classification, MultiLabel, Regression
from multiprune.tasks.question_answering import QuestionAnswering
from multiprune.tasks.spans import SpanTagging, marks_spans
from multiprune.tasks.tagging import Tagging

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from multiprune.tasks.task import Source, Task

    Stated = Mapping[str, Any]


def task_from_meaning(name: str, meaning: Stated, source: Source) -> Task:
    """Return a task with the metrics that are usual for its kind; ``meaning`` is its ``meaning``.

    What is not stated is as usual: answers are compared as in SQuAD, and rows have no languages.

    Raises:
        ValueError: if ``meaning`` does not say enough.
    """
    if meaning["kind"] not in _KINDS:
        raise ValueError(
            f"How {name!r} is evaluated is known from its run alone: name it with `--data-of`."
        )
    try:
        common = {"text": meaning["text"], "label": meaning["label"], "source": source}
        return _KINDS[meaning["kind"]](meaning, common)
    except KeyError as error:
        raise ValueError(f"The meaning of {name!r} must have {error}, but has not.") from error


def _classes(meaning: Stated, common: Stated) -> Task:
    return Classification(
        **common,
        labels=_labels(meaning),
        template=meaning.get("template"),
        label_words=meaning.get("words"),
        metrics=named_metrics(["accuracy", "macro_f1"]),
    )


def _sets(meaning: Stated, common: Stated) -> Task:
    return MultiLabel(
        **common,
        labels=_labels(meaning),
        indicators=meaning.get("indicators", False),
        metrics=named_metrics(["micro_f1", "macro_f1"]),
    )


def _number(meaning: Stated, common: Stated) -> Task:
    minimum, maximum = meaning["bounds"]
    metrics = named_metrics(["pearson", "spearman"])
    return Regression(**common, minimum=minimum, maximum=maximum, metrics=metrics)


def _tags(meaning: Stated, common: Stated) -> Task:
    given = {**common, "labels": _labels(meaning), "overlap": meaning["overlap"]}
    if marks_spans(meaning["labels"]):
        return SpanTagging(**given, metrics=named_metrics(["span_f1"]))
    return Tagging(**given, metrics=named_metrics(["accuracy", "macro_f1"]))


def _span(meaning: Stated, common: Stated) -> Task:
    lengths = {name: meaning[name] for name in ("overlap", "question_length", "answer_length")}
    return QuestionAnswering(
        **common,
        **lengths,
        label_start=meaning["label_start"],
        normalize=squad,
        metrics=named_metrics(["answer_f1", "exact_match"]),
    )


def _labels(meaning: Stated) -> list[Any]:
    """Return labels as the data have them: names, or integers."""
    labels: list[Any] = meaning.get("values") or meaning["labels"]
    return labels


_KINDS: Mapping[str, Callable[[Stated, Stated], Task]] = {
    "classes": _classes,
    "sets": _sets,
    "number": _number,
    "tags": _tags,
    "span": _span,
}
