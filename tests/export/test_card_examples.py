"""The worked examples of model cards run, and print what ``predict`` answers."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tiny_text_to_text import TASKS as WORDED_TASKS
from tiny_text_to_text import tiny_t5
from torch import nn
from transformers import RobertaConfig, RobertaModel

import multiprune
from multiprune.data.source import HubSource
from multiprune.data.tokenizer import train_tokenizer
from multiprune.export.card_text import GIVEN
from multiprune.export.checkpoint import save_model
from multiprune.export.convert import ExportSettings, export_model
from multiprune.metrics import Accuracy, ExactMatch
from multiprune.models.encoder import Encoder
from multiprune.models.factory import multitask_model, tasks_for
from multiprune.models.multitask import MultitaskModel
from multiprune.tasks.answer_text import squad
from multiprune.tasks.classification import Classification, MultiLabel, Regression
from multiprune.tasks.outputs.label_set import PredictedLabels
from multiprune.tasks.outputs.span import PredictedAnswer
from multiprune.tasks.outputs.tags import PredictedTags
from multiprune.tasks.question_answering import QuestionAnswering
from multiprune.tasks.tagging import Tagging

if TYPE_CHECKING:
    from pathlib import Path

    from multiprune.tasks.task import Task

COMMON: dict[str, Any] = {
    "text": ["sentence"],
    "label": "label",
    "metrics": {"accuracy": Accuracy()},
    "source": HubSource(path=None, mirror="nowhere"),
}
TASKS: dict[str, Task] = {
    "classes": Classification(labels=["bad", "good"], **COMMON),
    "pairs": Classification(labels=["no", "yes"], **COMMON | {"text": ["premise", "hypothesis"]}),
    "sets": MultiLabel(labels=["short", "long", "odd"], **COMMON),
    "number": Regression(minimum=0, maximum=5, **COMMON),
    "tags": Tagging(labels=["other", "agent", "place"], **COMMON | {"text": ["words"]}),
    "questions": QuestionAnswering(
        **COMMON | {"text": ["question", "context"], "metrics": {"em": ExactMatch()}},
        label_start="start",
        normalize=squad,
    ),
}
TEXT, PAIR = [GIVEN[0]], [GIVEN[1]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    """A RoBERTa, whose byte-level tokenizer sees spaces."""
    corpus = tmp_path_factory.mktemp("corpus") / "texts.txt"
    corpus.write_text("Here is a text to try, and a context that has the answer in it\n" * 9)
    tokenizer = train_tokenizer([corpus], kind="bpe", size=330, max_length=64)
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=66,
        pad_token_id=1,
    )
    return Encoder(RobertaModel(config, add_pooling_layer=False), tokenizer)


def exported(encoder: Encoder, folder: Path, tasks: dict[str, Task], **settings: str) -> Path:
    """Write a model with heads that answer differently from text to text."""
    torch.manual_seed(0)
    model = MultitaskModel(encoder.model, tasks).eval()
    for module in model.heads.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=3)
    save_model(folder / "model", model, encoder.tokenizer, tasks, 32)
    export_model(folder / "model", folder / "out", ExportSettings(**settings))
    return folder / "out"


@dataclass
class Card:
    """Runs code as a reader of the card in a folder does."""

    folder: Path
    capsys: pytest.CaptureFixture[str]
    names: dict[str, Any] = field(default_factory=dict)

    def block(self, number: int) -> str:
        card = (self.folder / "README.md").read_text()
        return self.printed(card.split("```python\n")[number].split("```")[0])

    def printed(self, code: str) -> str:
        self.capsys.readouterr()
        with contextlib.chdir(self.folder):
            exec(compile(code, str(self.folder / "README.md"), "exec"), self.names)
        return self.capsys.readouterr().out.strip()


def answer(folder: Path, task: str) -> str:
    """Return what ``predict`` says about the texts of the examples, as they print it."""
    model = multiprune.load(folder)
    if task == "questions":
        question, context = "What is read?", "A context that has the answer in it."
        (found,) = model.predict(task, question, context)
        assert isinstance(found, PredictedAnswer)
        return found.text
    if task == "tags":
        (tags,) = model.predict(task, [["A", "text", "to", "try"]])
        assert isinstance(tags, PredictedTags)
        return "\n".join(f"{one} {tag}" for one, tag in zip(tags.words, tags.tags, strict=True))
    (one,) = model.predict(task, TEXT, PAIR if task == "pairs" else None)
    if isinstance(one, PredictedLabels):
        return str(one.labels)
    return str(getattr(one, "label", getattr(one, "value", None)))


def assert_answer(found: str, folder: Path, task: str) -> None:
    expected = answer(folder, task)
    if task == "number":
        assert float(found) == pytest.approx(float(expected), abs=1e-4)
    else:
        assert found == expected


@pytest.mark.parametrize("task", TASKS)
def test_example_prints_what_predict_answers(
    task: str, trained: Encoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = Card(exported(trained, tmp_path, {task: TASKS[task]}), capsys)
    assert_answer(card.block(1), tmp_path, task)
    assert card.names["tasks"][task]["max_length"] == 32
    given = TEXT, PAIR if len(TASKS[task].text) == 2 else None
    assert card.block(2) == str(multiprune.load(tmp_path).predict(task, *given))


def test_examples_run_with_onnx_whose_outputs_are_named_as_in_heads_json(
    trained: Encoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # torch.onnx itself calls values "div" and "embedding".
    tasks = {"div": TASKS["tags"], "embedding": TASKS["classes"], **TASKS}
    card = Card(exported(trained, tmp_path, tasks, format="onnx"), capsys)
    shown = card.block(1)
    names = [one.name for one in card.names["session"].get_outputs()]
    assert names == [*card.names["tasks"]] == [*tasks]
    model = multiprune.load(tmp_path)
    (tags,) = model.predict("div", [["A", "text", "to", "try"]])
    assert isinstance(tags, PredictedTags)
    assert [line.split()[1] for line in shown.splitlines()] == tags.tags
    for task, one in TASKS.items():
        given = ", ".join(f'["{text}"]' for text in GIVEN[: len(one.text)])
        code = one.output.card_example.format(task=task, given=given)
        assert_answer(card.printed(code), tmp_path, task)


def test_task_with_the_name_of_an_input_is_refused(trained: Encoder, tmp_path: Path) -> None:
    tasks = {"input_ids": TASKS["classes"]}
    with pytest.raises(ValueError, match="The task 'input_ids' has the name of an ONNX input"):
        exported(trained, tmp_path, tasks, format="onnx")


def test_example_of_text_to_text_prints_what_predict_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = tiny_t5()
    tasks = tasks_for(encoder, WORDED_TASKS)
    model = multitask_model(encoder, tasks).eval()
    save_model(tmp_path / "model", model, encoder.tokenizer, tasks)
    export_model(tmp_path / "model", tmp_path / "out", ExportSettings())
    assert Card(tmp_path / "out", capsys).block(1) == answer(tmp_path, "classes")
