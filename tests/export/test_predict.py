"""A shipped model answers in words, as its task decides in training, however texts are given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from application import ROOT
from datasets import Dataset
from masked_task import masked_task
from shipped_world import SENTENCES, TASKS, TOKENIZER
from tiny_text_to_text import SENTENCES as WORDED
from tiny_text_to_text import TASKS as WORDED_TASKS
from tiny_text_to_text import tiny_t5

import multiprune
from multiprune.data.batches import EncodedTask
from multiprune.export.checkpoint import save_model
from multiprune.export.pack import pack
from multiprune.metrics import Accuracy, ExactMatch
from multiprune.models.factory import multitask_model, tasks_for
from multiprune.models.from_scratch import from_scratch
from multiprune.models.multitask import MultitaskModel
from multiprune.tasks.answer_text import squad
from multiprune.tasks.answers import answers_to, decided, joined
from multiprune.tasks.classification import MultiLabel
from multiprune.tasks.outputs.label_set import PredictedLabels
from multiprune.tasks.outputs.number import PredictedNumber
from multiprune.tasks.outputs.one_class import PredictedLabel
from multiprune.tasks.outputs.span import PredictedAnswer
from multiprune.tasks.outputs.tags import PredictedSpan, PredictedTags
from multiprune.tasks.question_answering import QuestionAnswering
from multiprune.tasks.rows import Rows
from multiprune.tasks.spans import SpanTagging

if TYPE_CHECKING:
    from pathlib import Path

    from multiprune.export.shipped import ShippedModel
    from multiprune.runs.predictions import Answers
    from multiprune.tasks.task import Task

COMMON: dict[str, Any] = {
    "label": "label",
    "metrics": {"accuracy": Accuracy()},
    "source": TASKS["classes"].source,
}
ALL: dict[str, Task] = {
    **TASKS,
    "sets": MultiLabel(text=["sentence"], labels=["short", "long"], **COMMON),
    "spans": SpanTagging(text=["tokens"], labels=["O", "B-X", "I-X"], overlap=4, **COMMON),
    "questions": QuestionAnswering(
        **COMMON | {"text": ["question", "context"], "metrics": {"em": ExactMatch()}},
        label_start="start",
        normalize=squad,
        overlap=4,
        question_length=4,
        answer_length=3,
    ),
}
MAX_LENGTH = 12
#: The second is cut to the length of training, or read in windows.
TEXTS = ["the fox runs", "the red dog chased one cat and the fox runs by the big old pond", "dog"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    encoder = from_scratch(layers=2, hidden=16, heads=2, intermediate=12).model
    model = MultitaskModel(encoder, ALL).eval()
    for head in model.heads.values():
        torch.nn.init.normal_(head.output.weight, std=3)  # type: ignore[arg-type, union-attr]
    place = tmp_path_factory.mktemp("run") / "model"
    save_model(place, model, TOKENIZER, ALL, MAX_LENGTH)
    return place


@pytest.fixture(scope="module")
def model(folder: Path) -> ShippedModel:
    loaded: ShippedModel = multiprune.load(folder)
    return loaded


@torch.no_grad()
def in_training(model: ShippedModel, name: str, columns: dict[str, list[Any]]) -> Answers:
    """Return what a task answers by the path of training: encoded rows, batches, decisions."""
    rows = Rows(Dataset.from_dict(columns), "memory", "")
    task = ALL[name]
    encoded, _ = task.encode(rows, TOKENIZER, MAX_LENGTH)
    table = Dataset.from_dict(encoded)
    split = EncodedTask(
        name=name,
        task=task,
        splits={"test": table},
        truncated=0,
        padding_token=TOKENIZER.pad_token_id,
    )
    batches = [split.batch("test", [row]) for row in range(len(table))]
    parts = [answers_to(task, one, model(name, one.inputs)) for one in batches]
    return decided(task, task.output.combined(joined(parts)).sorted())


def test_classes_sets_and_numbers_are_those_of_training(model: ShippedModel) -> None:
    expected = in_training(model, "classes", {"sentence": TEXTS, "label": [0, 0, 0]})
    found = model.predict("classes", TEXTS)
    logits = model.logits("classes", TEXTS)
    for place, one in enumerate(found):
        assert isinstance(one, PredictedLabel)
        assert one.label == ["bad", "good", "fair"][expected.predictions[place]]
        torch.testing.assert_close(
            torch.tensor([*one.probabilities.values()]), logits[place].softmax(-1)
        )
    decided = in_training(model, "sets", {"sentence": TEXTS, "label": [[0], [0], [0]]}).predictions
    for place, one in enumerate(model.predict("sets", TEXTS)):
        assert isinstance(one, PredictedLabels)
        named = [
            name for name, present in zip(one.probabilities, decided[place], strict=True) if present
        ]
        assert list(one.labels) == named == [n for n, p in one.probabilities.items() if p > 0.5]
    numbers = in_training(
        model, "number", {"sentence": TEXTS, "label": [0.0, 1.0, 2.0]}
    ).predictions
    for place, one in enumerate(model.predict("number", TEXTS)):
        assert isinstance(one, PredictedNumber)
        assert one.value == pytest.approx(float(numbers[place]), abs=1e-4)


@pytest.mark.parametrize("name", ["tags", "spans"])
def test_every_word_of_a_long_text_has_the_tag_of_training(model: ShippedModel, name: str) -> None:
    words = [text.split() for text in TEXTS]
    labels: Any = ALL[name].description["labels"]
    columns: dict[str, list[Any]] = {"tokens": words, "label": [[0] * len(one) for one in words]}
    expected = [labels[tag] for tag in in_training(model, name, columns).predictions]
    # Strings without signs are split into the same words.
    for given in (words, TEXTS):
        found = model.predict(name, given, batch_size=2)
        assert all(isinstance(one, PredictedTags) for one in found)
        assert [tag for one in found for tag in one.tags] == expected  # type: ignore[attr-defined]
        assert [one.words for one in found] == words  # type: ignore[attr-defined]
    assert len({*expected}) > 1


def test_spans_have_the_characters_of_the_text(model: ShippedModel) -> None:
    text = "(the fox-dog), runs by"
    (found,) = model.predict("spans", text)
    assert isinstance(found, PredictedTags)
    assert found.words == ["(", "the", "fox-dog", ")", ",", "runs", "by"]
    (given,) = model.predict("spans", [found.words])
    assert isinstance(given, PredictedTags)
    assert given.tags == found.tags
    assert found.spans
    for one, text_of_words in ((found, text), (given, "( the fox-dog ) , runs by")):
        for span in one.spans:
            assert isinstance(span, PredictedSpan)
            assert text_of_words[span.start : span.end] == span.text
            assert span.label == "X"
    assert [span.text.replace(" ", "") for span in given.spans] == [
        span.text.replace(" ", "") for span in found.spans
    ]


def test_answers_to_questions_are_those_of_training(model: ShippedModel) -> None:
    questions = ["one fox", "the dog runs by"]
    contexts = TEXTS[:2]
    columns: dict[str, list[Any]] = {
        "question": questions,
        "context": contexts,
        "label": [["the"], ["the"]],
        "start": [[0], [0]],
    }
    expected = in_training(model, "questions", columns).predictions.tolist()
    found = model.predict("questions", questions, contexts)
    for one, context, (start, end) in zip(found, contexts, expected, strict=True):
        assert isinstance(one, PredictedAnswer)
        assert (one.start, one.end, one.text) == (start, end, context[start:end])


def test_all_tasks_answer_from_one_pass(
    model: ShippedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    forward = model.encoder.forward

    def counted(*args: Any, **inputs: Any) -> Any:
        seen.append(len(inputs["input_ids"]))
        return forward(*args, **inputs)

    monkeypatch.setattr(model.encoder, "forward", counted)
    found = model.predict_all(SENTENCES)
    # Of this tokenizer, words have the same tokens in lists and in texts.
    assert seen == [len(SENTENCES)]
    assert list(found) == ["classes", "number", "tags", "sets", "spans"]
    assert_same(found, {task: model.predict(task, SENTENCES) for task in found})
    pairs = model.predict_all(SENTENCES, TEXTS[:2])
    assert_same(
        pairs, {task: model.predict(task, SENTENCES, TEXTS[:2]) for task in ("pairs", "questions")}
    )


def assert_same(found: Any, expected: Any) -> None:
    """Compare predictions, whose numbers depend on the batch in their last bits."""
    assert type(found) is type(expected)
    if isinstance(found, dict):
        assert list(found) == list(expected)
        assert_same([*found.values()], [*expected.values()])
    elif isinstance(found, list):
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif isinstance(found, float):
        assert found == pytest.approx(expected, abs=1e-4)
    elif isinstance(found, str | int | None):
        assert found == expected
    else:
        assert_same(vars(found), vars(expected))


def test_batches_change_nothing(model: ShippedModel) -> None:
    assert_same(model.predict("tags", TEXTS, batch_size=1), model.predict("tags", TEXTS))


def test_one_string_is_one_text(model: ShippedModel) -> None:
    assert model.logits("classes", "the fox runs").shape == (1, 3)
    assert_same(model.predict("classes", TEXTS[0]), model.predict("classes", TEXTS[:1]))
    assert len(model.predict("pairs", "the fox runs", "one dog")) == 1
    assert model.predict("classes", []) == []


def test_texts_are_cut_to_the_length_of_training(model: ShippedModel) -> None:
    assert model.max_length("classes") == MAX_LENGTH
    assert model.logits("spans", [TEXTS[1].split()]).shape[1] == MAX_LENGTH


@pytest.mark.parametrize(
    ("task", "texts", "pairs", "message"),
    [
        ("classes", ["dog"], ["dog"], "'classes' reads sentence: leave out `pairs`"),
        ("pairs", ["dog"], None, "reads premise and hypothesis: pass the second texts as `pairs`"),
        ("pairs", ["dog", "cat"], ["dog"], "must have the same length, but have 2 and 1"),
        ("classes", [["dog"]], None, r"must be a string, but number 0 is \['dog'\]"),
        ("tags", ["dog", 3], None, "must be a string or a list of words, but number 1 is 3"),
        ("other", ["dog"], None, "The task must be one of classes, .* but is 'other'"),
    ],
)
def test_what_a_task_does_not_read_is_refused(
    model: ShippedModel, task: str, texts: Any, pairs: Any, message: str
) -> None:
    for ask in (model.predict, model.logits):
        with pytest.raises((TypeError, ValueError), match=message):
            ask(task, texts, pairs)


def test_tasks_over_the_vocabulary_have_logits_only(tmp_path: Path) -> None:
    encoder = from_scratch(layers=1, hidden=16, heads=2, intermediate=12)
    tasks = {"mlm": masked_task().read_by(encoder.tokenizer)}
    save_model(tmp_path / "model", MultitaskModel(encoder.model, tasks), encoder.tokenizer, tasks)
    loaded = multiprune.load(tmp_path / "model")
    with pytest.raises(ValueError, match="mlm predicts tokens of the vocabulary: use `logits`"):
        loaded.predict("mlm", "the dog")
    with pytest.raises(ValueError, match="None of the tasks mlm answers a single text by name"):
        loaded.predict_all("the dog")


def test_text_to_text_answers_by_name(tmp_path: Path) -> None:
    encoder = tiny_t5()
    tasks = tasks_for(encoder, WORDED_TASKS)
    save_model(tmp_path / "t5", multitask_model(encoder, tasks).eval(), encoder.tokenizer, tasks)
    loaded = multiprune.load(tmp_path / "t5")
    logits = loaded.logits("classes", WORDED)
    for one, row in zip(loaded.predict("classes", WORDED), logits, strict=True):
        assert isinstance(one, PredictedLabel)
        assert one.label == ["bad", "good", "fair"][int(row.argmax())]
        assert one.probabilities[one.label] == pytest.approx(float(row.softmax(-1).max()), abs=1e-4)
    assert list(loaded.predict_all(WORDED)) == ["classes"]


def test_packed_models_answer_each_with_its_own_weights(tmp_path: Path) -> None:
    for number, names in enumerate((["classes", "tags"], ["number"])):
        torch.manual_seed(0)
        encoder = from_scratch(layers=1, hidden=16, heads=2, intermediate=12).model
        weight = encoder.get_parameter("encoder.layer.0.intermediate.dense.weight")
        weight.data[number::2] = 0
        tasks = {name: TASKS[name] for name in names}
        own = MultitaskModel(encoder, tasks)
        save_model(tmp_path / str(number) / "model", own, TOKENIZER, tasks)
    pack([tmp_path / "0", tmp_path / "1"], tmp_path / "packed")
    expected: dict[str, Any] = {}
    for run in ("0", "1"):
        expected |= multiprune.load(tmp_path / run).predict_all(SENTENCES)
    found = multiprune.load(tmp_path / "packed").predict_all(SENTENCES)
    assert_same(found, {task: expected[task] for task in found})
    assert len(found) == 3


def test_words_without_tokens_have_no_tag_of_their_own(model: ShippedModel) -> None:
    (spans,) = model.predict("spans", [["dog", "", "runs"]])
    (tags,) = model.predict("tags", [["dog", "", "runs"]])
    assert isinstance(spans, PredictedTags)
    assert isinstance(tags, PredictedTags)
    assert (spans.tags[1], tags.tags[1]) == ("O", None)
    assert spans.probabilities[1] == 0


def test_documents_that_training_cut_are_cut(model: ShippedModel) -> None:
    cut = model.only("spans")
    cut.meaning["spans"] = {**cut.meaning["spans"], "overlap": None}
    (one,) = cut.predict("spans", [["dog"] * 40])
    assert isinstance(one, PredictedTags)
    read = MAX_LENGTH - 2
    assert [bool(one) for one in one.probabilities] == [True] * read + [False] * (40 - read)


def test_example_of_the_readme_runs(
    model: ShippedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = (ROOT / "README.md").read_text().split("```python\n")[1:]
    (example,) = [one.split("```")[0] for one in blocks if ".predict(" in one.split("```")[0]]
    renamed = {"entailment": TASKS["pairs"], "classes": TASKS["classes"]}
    trained = MultitaskModel(model.encoder, renamed).eval()
    save_model(tmp_path / "my-model", trained, TOKENIZER, renamed)
    monkeypatch.chdir(tmp_path)
    lines = example.strip().splitlines()
    names: dict[str, Any] = {}
    exec("\n".join(lines[:-2]), names)
    (one,), all_tasks = (eval(line, names) for line in lines[-2:])
    assert set(one.probabilities) == {"no", "yes"}
    assert [len(found) for found in all_tasks.values()] == [2]
