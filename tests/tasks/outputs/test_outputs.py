"""Kinds of answers, their descriptions, and a kind that somebody else has written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import pytest
import torch
from typing_extensions import override

import multiprune
from multiprune.data.source import HubSource
from multiprune.export.checkpoint import save_model
from multiprune.export.convert import ExportSettings, export_model
from multiprune.metrics import Accuracy
from multiprune.metrics.predicted import Classes
from multiprune.models.from_scratch import from_scratch
from multiprune.models.multitask import MultitaskModel
from multiprune.tasks.classification import Classification
from multiprune.tasks.labels import Labels
from multiprune.tasks.outputs.described import output_from
from multiprune.tasks.outputs.label_set import LabelSet
from multiprune.tasks.outputs.number import Number
from multiprune.tasks.outputs.one_class import OneClass
from multiprune.tasks.outputs.output import Prediction
from multiprune.tasks.outputs.sequence import SequenceOutput
from multiprune.tasks.outputs.span import AnswerSpan
from multiprune.tasks.outputs.tags import Tags
from multiprune.tasks.outputs.vocabulary import VocabularyToken

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from multiprune.metrics.predicted import Predicted
    from multiprune.tasks.outputs.output import Output

LABELS = Labels(["no", "yes"], [-1, 1])
OUTPUTS: list[Output] = [
    OneClass(LABELS),
    LabelSet(LABELS),
    Number(-1.5, 5),
    Tags(Labels(["O", "B-A"]), None),
    AnswerSpan(8, 16, 4),
    VocabularyToken(),
]


@pytest.mark.parametrize("output", OUTPUTS, ids=lambda one: str(one.kind))
def test_an_output_is_what_its_description_in_json_says(output: Output) -> None:
    stated = json.loads(json.dumps(output.description))
    found = output_from({**stated, "text": ["sentence"], "max_length": 64})
    assert found == output
    assert found.description == output.description
    assert output.difference(found) is None


def test_outputs_that_answer_something_else_differ_in_what_is_named() -> None:
    others = (LabelSet(LABELS), OneClass(Labels(["yes", "no"])), Number(0, 5), Number(-1.5, 4))
    first = (OneClass(LABELS), OneClass(LABELS), OneClass(LABELS), Number(-1.5, 5))
    found = [one.difference(other) for one, other in zip(first, others, strict=True)]
    assert [one and one.key for one in found] == ["kind", "labels", "kind", "bounds"]
    # How documents are cut into windows changes no answer to a token.
    assert Tags(LABELS, 4).difference(Tags(LABELS, None)) is None


@pytest.mark.parametrize(
    ("description", "said"),
    [
        ({}, "it has no 'kind'"),
        ({"kind": "rankings"}, "'rankings' is none of .*classes.*import the module"),
        ({"kind": "classes"}, "it has no 'labels'"),
        ({"kind": "classes", "labels": "no, yes"}, "labels must be names"),
        ({"kind": "number", "bounds": [1]}, "not enough values"),
        ({"kind": ["classes"]}, "unhashable|is none of"),
        ([], "list indices"),
    ],
)
def test_a_description_that_says_too_little_is_refused(description: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        output_from(description)


@dataclass(frozen=True)
class PredictedLevel(Prediction):
    """How far up a scale a text is."""

    level: int


@dataclass(frozen=True)
class Levels(SequenceOutput):
    """A level of a scale: as many thresholds are passed as outputs are above 0."""

    count: int

    kind: ClassVar[str] = "levels"
    card_example: ClassVar[str] = 'print((logits("{task}", {given})[0] > 0).sum())\n'

    @property
    @override
    def num_outputs(self) -> int:
        return self.count - 1

    @property
    @override
    def predicted(self) -> Predicted:
        return Classes(self.count)

    @property
    @override
    def described(self) -> Mapping[str, Any]:
        return {"count": self.count}

    @classmethod
    @override
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        return cls(description["count"])

    @property
    @override
    def label_space(self) -> Mapping[str, Any]:
        return {"kind": self.kind, "count": self.count}

    @property
    @override
    def meaning(self) -> str:
        return f"levels from 0 to {self.count - 1}, by thresholds"

    @override
    def predictions(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        passed = logits.double().sigmoid()
        ones, zeros = passed.new_ones(len(passed), 1), passed.new_zeros(len(passed), 1)
        return torch.cat([ones, passed], 1) - torch.cat([passed, zeros], 1), labels

    @override
    def shown(self, answers: Tensor) -> str:
        return str(int(answers[0]))

    @override
    def prediction(self, logits: Tensor) -> PredictedLevel:
        return PredictedLevel(int((logits > 0).sum()))


class Grading(Classification):
    """Learns a level of a scale."""

    @property
    @override
    def output(self) -> Any:
        return Levels(3)


def test_a_kind_of_answer_that_somebody_else_has_written_is_trained_exported_and_loaded(
    tmp_path: Path,
) -> None:
    encoder = from_scratch(layers=1, hidden=8, heads=2, intermediate=8)
    task = Grading(
        text=["sentence"],
        label="label",
        labels=["low", "middle", "high"],
        metrics={"accuracy": Accuracy()},
        source=HubSource(path=None, mirror="nowhere"),
    )
    model = MultitaskModel(encoder.model, {"grade": task}).eval()
    with torch.no_grad():
        model.heads["grade"].get_parameter("output.bias").copy_(torch.tensor([40.0, -40.0]))
    save_model(tmp_path / "model", model, encoder.tokenizer, {"grade": task})
    export_model(tmp_path / "model", tmp_path / "out", ExportSettings())
    loaded = multiprune.load(tmp_path / "out")
    assert loaded.predict("grade", ["the fox runs"]) == [PredictedLevel(1)]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "levels from 0 to 2, by thresholds" in card
    assert 'print((logits("grade", ["Here is a text."])[0] > 0).sum())' in card
