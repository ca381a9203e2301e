"""Classification output for a text or text pair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override

from multiprune.metrics.predicted import Classes, Predicted
from multiprune.tasks.outputs.labelled import LabelledOutput
from multiprune.tasks.outputs.output import Prediction
from multiprune.tasks.outputs.sequence import SequenceOutput

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor


@dataclass(frozen=True)
class PredictedLabel(Prediction):
    """The likeliest of several labels, and the probability of each."""

    label: str
    probabilities: Mapping[str, float]


@dataclass(frozen=True)
class OneClass(LabelledOutput, SequenceOutput):
    """One of ``labels``: logits of shape (examples, labels), labels of shape (examples,)."""

    kind: ClassVar[str] = "classes"
    card_example: ClassVar[str] = """\
scores = logits("{task}", {given})[0]  # of one text
print(tasks["{task}"]["labels"][int(scores.argmax())])
"""

    @property
    @override
    def predicted(self) -> Predicted:
        return Classes(len(self.labels))

    @property
    @override
    def classes(self) -> Sequence[str]:
        return self.labels

    @override
    def predictions(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return logits.double().softmax(-1), labels

    @override
    def decided(self, predictions: Tensor) -> Tensor:
        return predictions.argmax(-1)

    @override
    def shown(self, answers: Tensor) -> str:
        return self.labels[int(answers[0])]

    @override
    def prediction(self, logits: Tensor) -> PredictedLabel:
        probabilities = dict(zip(self.labels, logits.softmax(-1).tolist(), strict=True))
        return PredictedLabel(self.labels[int(logits.argmax())], probabilities)
