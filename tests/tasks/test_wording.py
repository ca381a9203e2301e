"""Tasks put in words: what is read, what is answered, and what cannot be."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from application import ROOT, composed
from datasets import Dataset
from hydra.utils import instantiate
from tiny_text_to_text import COMMON, TASKS, tiny_tokenizer

from multiprune.tasks.classification import Classification, MultiLabel, Regression
from multiprune.tasks.rows import Rows
from multiprune.tasks.tagging import Tagging
from multiprune.tasks.text_to_text import WordedClassification, default_template, worded

TOKENIZER = tiny_tokenizer()


def classes(**options: Any) -> Classification:
    return Classification(
        **{"text": ["premise", "hypothesis"], "labels": ["no", "yes"], **COMMON, **options}
    )


def refusal(task: Any) -> str:
    with pytest.raises(ValueError, match="'pairs'") as error:
        worded("pairs", task, TOKENIZER)
    return str(error.value)


def test_template_is_by_default_that_of_t5() -> None:
    # From appendix D of Raffel et al. (2020).
    assert (
        default_template("rte", ["sentence1", "sentence2"])
        == "rte sentence1: {sentence1} sentence2: {sentence2}"
    )
    assert (
        default_template("mnli", ["premise", "hypothesis"])
        == "mnli hypothesis: {hypothesis} premise: {premise}"
    )
    assert default_template("cola", ["sentence"]) == "cola sentence: {sentence}"


def test_model_reads_the_filled_template_whatever_is_in_the_texts() -> None:
    task = worded("pairs", classes(template="is {hypothesis} so if {premise}"), TOKENIZER)
    table = Dataset.from_dict(
        {"premise": ["the cat", "{one}"], "hypothesis": ["a dog", "b"], "label": [1, 0]}
    )
    columns, truncated = task.encode(Rows(table, "rows", ""), TOKENIZER, 64)
    expected = ["is a dog so if the cat", "is b so if {one}"]
    assert columns["input_ids"] == TOKENIZER(expected)["input_ids"]
    assert (columns["labels"], truncated) == ([1, 0], 0)


def test_words_are_by_default_the_names_of_the_labels() -> None:
    assert worded("pairs", classes(), TOKENIZER).wording.words == ["no", "yes"]


def test_tokens_are_those_of_the_words_and_the_end() -> None:
    wording = worded("pairs", classes(label_words=["not a dog", "red"]), TOKENIZER).wording
    assert wording.tokens == [TOKENIZER(words)["input_ids"] for words in ("not a dog", "red")]
    assert [one[-1] for one in wording.tokens] == [TOKENIZER.eos_token_id] * 2


def test_words_may_begin_alike() -> None:
    wording = worded("pairs", classes(label_words=["red", "red dog"]), TOKENIZER).wording
    assert wording.tokens[1][: len(wording.tokens[0]) - 1] == wording.tokens[0][:-1]


def test_wording_is_a_part_of_what_encoded_rows_depend_on() -> None:
    plain, other = (
        worded("pairs", task, TOKENIZER)
        for task in (classes(), classes(template="{premise} {hypothesis}"))
    )
    assert classes(template="{premise} {hypothesis}").cache_key == classes().cache_key
    assert plain.cache_key != other.cache_key
    assert classes().cache_key.items() <= plain.cache_key.items()


def test_worded_task_keeps_what_the_task_was() -> None:
    task = classes(loss_weight=0.5)
    kept = worded("pairs", task, TOKENIZER)
    assert (kept.text, kept.labels, kept.loss_weight) == (task.text, task.labels, 0.5)
    assert kept.metrics == task.metrics
    logits, labels = torch.tensor([[-1.0, -2.0], [-5.0, -4.0]]), torch.tensor([0, 0])
    assert kept.output.decided(kept.output.predictions(logits, labels)[0]).tolist() == [0, 1]


def test_loss_is_the_mean_over_the_tokens_of_the_right_words() -> None:
    task = worded("pairs", classes(label_words=["red", "one red dog"]), TOKENIZER)
    assert [len(one) for one in task.wording.tokens] == [2, 4]
    logits = torch.tensor([[-1.0, -9.0], [-9.0, -2.0], [-9.0, -3.0]])
    loss = task.loss(logits, torch.tensor([0, 1, 1]))
    assert float(loss) == pytest.approx((1 + 2 + 3) / (2 + 4 + 4))


@pytest.mark.slow
def test_every_classification_of_the_configuration_is_put_in_words() -> None:
    names = sorted(file.stem for file in (ROOT / "conf" / "task").glob("*.yaml"))
    found = 0
    for name in names:
        for key, task in instantiate(composed(f"task={name}").task, _convert_="all").items():
            # The example's labels are read from somebody's data.
            if isinstance(task, Classification) and task.labels is not None:
                assert isinstance(worded(key, task, TOKENIZER), WordedClassification)
                found += 1
    assert found >= 20


@pytest.mark.parametrize(
    ("task", "kind"),
    [
        (Tagging(text=["tokens"], labels=["a", "b"], **COMMON), "Tagging"),
        (Regression(text=["sentence"], minimum=0, maximum=5, **COMMON), "Regression"),
        (MultiLabel(text=["sentence"], labels=["a", "b"], **COMMON), "MultiLabel"),
    ],
)
def test_other_kinds_of_tasks_are_refused(task: Any, kind: str) -> None:
    assert refusal(task) == (
        "A text-to-text model chooses one of several labels for a text, but 'pairs' is a task of "
        f"the kind {kind}."
    )


@pytest.mark.parametrize(
    "template",
    [
        "{premise}",
        "{premise} {hypothesis} {label}",
        "{premise} {hypothesis} {}",
        "{premise:5} {hypothesis}",
        "{premise!r} {hypothesis}",
        "{premise.x} {hypothesis}",
        "no columns",
    ],
)
def test_template_that_does_not_fit_the_columns_is_refused(template: str) -> None:
    assert refusal(classes(template=template)) == (
        "`template` of 'pairs' must have the columns premise, hypothesis in braces and nothing "
        f"else, but is {template!r}."
    )


def test_template_with_a_single_brace_is_refused() -> None:
    assert "must have columns in braces, but is '{premise'" in refusal(classes(template="{premise"))


def test_number_of_words_must_be_that_of_labels() -> None:
    assert "must be one for each of 2 labels, but are ['so']" in refusal(
        classes(label_words=["so"])
    )


def test_words_must_differ_to_the_model() -> None:
    assert "'red' and ' red' are the same to the model" in refusal(
        classes(label_words=["red", " red"])
    )


@pytest.mark.parametrize("words", ["", "  "])
def test_words_of_no_token_are_refused(words: str) -> None:
    assert f"but {words!r} is not: it is split into []" in refusal(
        classes(label_words=["red", words])
    )


def test_words_of_unknown_tokens_are_refused() -> None:
    assert "but 'né' is not: it is split into ['▁', 'n', '<unk>']" in refusal(
        classes(label_words=["red", "né"])
    )


def test_tasks_of_the_tests_are_put_in_words() -> None:
    assert all(worded(name, task, TOKENIZER) for name, task in TASKS.items())
