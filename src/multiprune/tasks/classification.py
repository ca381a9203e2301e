"""Tasks with one answer a sequence: classes, sets of labels, or a number."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional
from typing_extensions import override

from multiprune.arguments import check_number
from multiprune.metrics.outputs import Classes, LabelSets, Numbers, Output
from multiprune.tasks.columns import Columns, check_lists
from multiprune.tasks.labels import checked_labels, known, label_reader, marks_unlabelled
from multiprune.tasks.losses import no_loss
from multiprune.tasks.soft_targets import softened_cross_entropy, softened_divergence
from multiprune.tasks.task import Rows, Task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor


@dataclass(kw_only=True)
class Classification(Task):
    """Chooses one of ``labels`` for a text or a pair of texts.

    Attributes:
        labels: their names, by id, or the integers that the data have for them; None to read them
            from the training data.
        template: what a text-to-text model reads, with the text columns in braces; an encoder reads
            the columns themselves.
        label_words: what a text-to-text model answers, in the order of ``labels``.
    """

    labels: Sequence[Any]
    template: str | None = None
    label_words: Sequence[str] | None = None

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        if self.labels is not None:
            self.labels = checked_labels(self.labels)

    @property
    @override
    def num_outputs(self) -> int:
        return len(known(self.labels))

    @property
    @override
    def output(self) -> Output:
        return Classes(self.num_outputs)

    @property
    @override
    def definition(self) -> Mapping[str, Any]:
        return {
            "kind": "classes",
            "text": [*self.text],
            "label": self.label,
            **known(self.labels).definition,
        }

    @property
    @override
    def columns(self) -> Columns:
        return replace(super().columns, classes=self.label)

    @property
    @override
    def marks_unlabelled(self) -> bool:
        return marks_unlabelled(self.labels)

    @override
    def encode_labels(self, rows: Rows) -> list[Any]:
        return label_reader(rows, self.label, known(self.labels)).ids(rows.table[self.label][:])

    @override
    def label_tensor(self, labels: Sequence[Any], length: int) -> Tensor:
        return torch.tensor(labels)

    @override
    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        if not len(labels):
            return no_loss(logits)
        return functional.cross_entropy(logits.float(), labels)

    @override
    def distillation_loss(
        self, logits: Tensor, teacher: Tensor, labels: Tensor, temperature: float
    ) -> Tensor:
        return softened_divergence(logits, teacher, temperature)

    @override
    def predictions(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return logits.double().softmax(-1), labels

    @override
    def decided(self, predictions: Tensor) -> Tensor:
        return predictions.argmax(-1)

    @override
    def shown(self, answers: Tensor) -> str:
        name: str = self.labels[int(answers[0])]
        return name


@dataclass(kw_only=True)
class MultiLabel(Task):
    """Decides on each of ``labels`` by itself; the label column holds lists of ids or names.

    Attributes:
        labels: as those of ``Classification``.
        indicators: whether it holds lists of 0 and 1 instead, one for each label.
    """

    labels: Sequence[Any]
    indicators: bool = False

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        if self.labels is not None:
            self.labels = checked_labels(self.labels)

    @property
    @override
    def num_outputs(self) -> int:
        return len(known(self.labels))

    @property
    @override
    def output(self) -> Output:
        return LabelSets(self.num_outputs)

    @property
    @override
    def definition(self) -> Mapping[str, Any]:
        labels = known(self.labels).definition
        form = {"indicators": True} if self.indicators else {}
        return {"kind": "sets", "text": [*self.text], "label": self.label, **labels, **form}

    @override
    def check_columns(self, rows: Rows) -> None:
        super().check_columns(rows)
        check_lists(rows, self.label)

    @override
    def encode_labels(self, rows: Rows) -> list[Any]:
        sets = enumerate(rows.table[self.label][:], rows.first)
        if self.indicators:
            return [self._indicators(values, rows, row) for row, values in sets]
        reader = label_reader(rows, self.label, known(self.labels))
        present = (reader.ids(values, row=row) for row, values in sets)
        return [[int(index in ids) for index in range(len(self.labels))] for ids in present]

    def _indicators(self, values: Sequence[Any], rows: Rows, row: int) -> list[int]:
        if len(values) != len(self.labels) or not {*values} <= {0, 1}:
            raise ValueError(
                f"Column {self.label!r} of {rows.origin} must hold 0 or 1 for each of "
                f"{len(self.labels)} labels, but row {row} holds {list(values)}."
            )
        return [int(one) for one in values]

    @override
    def label_tensor(self, labels: Sequence[Any], length: int) -> Tensor:
        return torch.tensor(labels)

    @override
    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        if not len(labels):
            return no_loss(logits)
        return functional.binary_cross_entropy_with_logits(logits.float(), labels.float())

    @override
    def distillation_loss(
        self, logits: Tensor, teacher: Tensor, labels: Tensor, temperature: float
    ) -> Tensor:
        return softened_cross_entropy(logits, teacher, temperature)

    @override
    def predictions(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return logits.double().sigmoid(), labels

    @override
    def decided(self, predictions: Tensor) -> Tensor:
        return (predictions > 0.5).long()

    @override
    def shown(self, answers: Tensor) -> str:
        present = zip(self.labels, answers[0].tolist(), strict=True)
        return ", ".join(label for label, one in present if one)


@dataclass(kw_only=True)
class Regression(Task):
    """Predicts a number between ``minimum`` and ``maximum``, by squared error.

    The model's output is on a scale where the range is -1 to 1, so that the losses of tasks with
    different units are of one size.
    """

    minimum: float
    maximum: float

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("minimum", self.minimum)
        check_number("maximum", self.maximum)
        if not self.minimum < self.maximum:
            raise ValueError(
                f"`minimum` must be below `maximum`, but they are {self.minimum} and "
                f"{self.maximum}."
            )

    @property
    @override
    def num_outputs(self) -> int:
        return 1

    @property
    @override
    def marks_unlabelled(self) -> bool:
        return not self.minimum <= -1 <= self.maximum

    @property
    @override
    def output(self) -> Output:
        return Numbers()

    @property
    @override
    def definition(self) -> Mapping[str, Any]:
        bounds = [self.minimum, self.maximum]
        return {"kind": "number", "text": [*self.text], "label": self.label, "bounds": bounds}

    @override
    def encode_labels(self, rows: Rows) -> list[Any]:
        values = rows.table[self.label][:]
        for row, value in enumerate(values, rows.first):
            number = isinstance(value, int | float) and math.isfinite(value)
            if not number or not self.minimum <= value <= self.maximum:
                raise ValueError(
                    f"Column {self.label!r} of {rows.origin} must hold numbers from "
                    f"{self.minimum} to {self.maximum}, but row {row} is {value!r}."
                )
        return [float(value) for value in values]

    def scaled(self, values: Tensor) -> Tensor:
        """Map [minimum, maximum] to [-1, 1]."""
        return (2 * values - self.minimum - self.maximum) / (self.maximum - self.minimum)

    def unscaled(self, outputs: Tensor) -> Tensor:
        """Map [-1, 1] to [minimum, maximum]."""
        return (outputs * (self.maximum - self.minimum) + self.minimum + self.maximum) / 2

    @override
    def label_tensor(self, labels: Sequence[Any], length: int) -> Tensor:
        return torch.tensor(labels, dtype=torch.float32)

    @override
    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        if not len(labels):
            return no_loss(logits)
        return functional.mse_loss(logits.float().squeeze(-1), self.scaled(labels))

    @override
    def distillation_loss(
        self, logits: Tensor, teacher: Tensor, labels: Tensor, temperature: float
    ) -> Tensor:
        if not len(labels):
            return no_loss(logits)
        return functional.mse_loss(logits.float(), teacher.float())

    @override
    def predictions(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return self.unscaled(logits.float().squeeze(-1)), labels

    @override
    def shown(self, answers: Tensor) -> str:
        return f"{float(answers[0]):.4g}"
