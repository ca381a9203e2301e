"""Regression output for a text or text pair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from multiprune.arguments import check_number
from multiprune.metrics.predicted import Numbers, Predicted
from multiprune.tasks.outputs.output import Prediction
from multiprune.tasks.outputs.sequence import SequenceOutput

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class PredictedNumber(Prediction):
    """A number, in the units of the task's labels."""

    value: float


@dataclass(frozen=True)
class Number(SequenceOutput):
    """A number from ``minimum`` to ``maximum``, for which the head has -1 to 1.

    So the losses of tasks with different units are of one size. Logits are of shape (examples, 1),
    labels of shape (examples,).
    """

    minimum: float
    maximum: float

    kind: ClassVar[str] = "number"
    # It would be off by nothing from itself.
    can_be_label: ClassVar[bool] = False
    card_example: ClassVar[str] = """\
score = float(logits("{task}", {given})[0, 0])  # of one text
low, high = tasks["{task}"]["bounds"]
print((score * (high - low) + low + high) / 2)
"""

    @property
    @override
    def num_outputs(self) -> int:
        return 1

    @property
    @override
    def predicted(self) -> Predicted:
        return Numbers()

    @property
    @override
    def described(self) -> Mapping[str, Any]:
        return {"bounds": [self.minimum, self.maximum]}

    @classmethod
    @override
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        minimum, maximum = description["bounds"]
        check_number("bounds", minimum)
        check_number("bounds", maximum, above=minimum)
        return cls(minimum, maximum)

    @property
    @override
    def label_space(self) -> Mapping[str, Any]:
        return {"kind": self.kind, **self.described}

    @property
    @override
    def meaning(self) -> str:
        return f"a number, -1 for {self.minimum} and 1 for {self.maximum}"

    def scaled(self, values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Map [minimum, maximum] to [-1, 1]."""
        return (2 * values - self.minimum - self.maximum) / (self.maximum - self.minimum)

    def unscaled(self, outputs: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Map [-1, 1] to [minimum, maximum]."""
        return (outputs * (self.maximum - self.minimum) + self.minimum + self.maximum) / 2

    @override
    def predictions(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return self.unscaled(logits.float().squeeze(-1)), labels

    @override
    def shown(self, answers: Tensor) -> str:
        return f"{float(answers[0]):.4g}"

    @override
    def prediction(self, logits: Tensor) -> PredictedNumber:
        return PredictedNumber(float(self.unscaled(logits.double())[0]))
