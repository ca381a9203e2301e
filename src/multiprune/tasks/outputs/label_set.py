"""Multi-label output for a text or text pair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override

from multiprune.metrics.predicted import LabelSets, Predicted
from multiprune.tasks.outputs.labelled import LabelledOutput
from multiprune.tasks.outputs.output import Prediction
from multiprune.tasks.outputs.sequence import SequenceOutput

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor


@dataclass(frozen=True)
class PredictedLabels(Prediction):
    """The labels that are likelier than not, and the probability of each that there is."""

    labels: Sequence[str]
    probabilities: Mapping[str, float]


@dataclass(frozen=True)
class LabelSet(LabelledOutput, SequenceOutput):
    """Any of ``labels``: logits, and labels of 0 or 1, both of shape (examples, labels)."""

    kind: ClassVar[str] = "sets"
    card_example: ClassVar[str] = """\
scores = logits("{task}", {given})[0]  # of one text
print([one for one, score in zip(tasks["{task}"]["labels"], scores) if score > 0])
"""

    @property
    @override
    def predicted(self) -> Predicted:
        return LabelSets(len(self.labels))

    @override
    def predictions(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return logits.double().sigmoid(), labels

    @override
    def decided(self, predictions: Tensor) -> Tensor:
        return (predictions > 0.5).long()

    @override
    def shown(self, answers: Tensor) -> str:
        return ", ".join(self._present(answers[0]))

    @override
    def prediction(self, logits: Tensor) -> PredictedLabels:
        probabilities = dict(zip(self.labels, logits.sigmoid().tolist(), strict=True))
        return PredictedLabels(self._present(logits > 0), probabilities)

    def _present(self, decisions: Tensor) -> list[str]:
        pairs = zip(self.labels, decisions.tolist(), strict=True)
        return [label for label, is_present in pairs if is_present]
