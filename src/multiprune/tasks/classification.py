"""Sequence-level tasks: classification, multi-label classification and regression."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch.nn import functional
from typing_extensions import override

from multiprune.arguments import check_number
from multiprune.tasks.columns import Columns, check_lists
from multiprune.tasks.labelled import LabelledTask
from multiprune.tasks.labels import known, label_reader
from multiprune.tasks.losses import no_loss
from multiprune.tasks.outputs.label_set import LabelSet
from multiprune.tasks.outputs.number import Number
from multiprune.tasks.outputs.one_class import OneClass
from multiprune.tasks.soft_targets import softened_cross_entropy, softened_divergence
from multiprune.tasks.task import Task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from multiprune.tasks.rows import Rows


@dataclass(kw_only=True)
class Classification(LabelledTask):
    """Chooses one of ``labels`` for a text or a pair of texts.

    Attributes:
        labels: their names, by id, or the integers that the data have for them; None to read them
            from the training data.
        template: what a text-to-text model reads, with the text columns in braces; an encoder reads
            the columns themselves.
        label_words: what a text-to-text model answers, in the order of ``labels``.
    """

    template: str | None = None
    label_words: Sequence[str] | None = None

    described_as: ClassVar[str] = OneClass.kind
    usual_metrics: ClassVar[Sequence[str]] = ("accuracy", "macro_f1")

    @classmethod
    @override
    def described_settings(cls, description: Mapping[str, Any]) -> dict[str, Any]:
        words = {"template": description.get("template"), "label_words": description.get("words")}
        return super().described_settings(description) | words

    @property
    @override
    def output(self) -> OneClass:
        return OneClass(known(self.labels))

    @property
    @override
    def columns(self) -> Columns:
        return replace(super().columns, classes=self.label)

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


@dataclass(kw_only=True)
class MultiLabel(LabelledTask):
    """Decides on each of ``labels`` by itself; the label column holds lists of ids or names.

    Attributes:
        labels: as those of ``Classification``.
        indicators: whether it holds lists of 0 and 1 instead, one for each label.
    """

    indicators: bool = False

    described_as: ClassVar[str] = LabelSet.kind
    usual_metrics: ClassVar[Sequence[str]] = ("micro_f1", "macro_f1")

    @classmethod
    @override
    def described_settings(cls, description: Mapping[str, Any]) -> dict[str, Any]:
        indicators = description.get("indicators", False)
        return {**super().described_settings(description), "indicators": indicators}

    @property
    @override
    def description(self) -> dict[str, Any]:
        return super().description | ({"indicators": True} if self.indicators else {})

    @property
    @override
    def output(self) -> LabelSet:
        return LabelSet(known(self.labels))

    @property
    @override
    def cache_key(self) -> Mapping[str, Any]:
        return {**super().cache_key, "indicators": self.indicators}

    @property
    @override
    def names_labels(self) -> bool:
        return not self.indicators

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


@dataclass(kw_only=True)
class Regression(Task):
    """Predicts a number between ``minimum`` and ``maximum``, by squared error.

    The model's output is on a scale where the range is -1 to 1, so that the losses of tasks with
    different units are of one size.
    """

    minimum: float
    maximum: float

    described_as: ClassVar[str] = Number.kind
    usual_metrics: ClassVar[Sequence[str]] = ("pearson", "spearman")

    @classmethod
    @override
    def described_settings(cls, description: Mapping[str, Any]) -> dict[str, Any]:
        return dict(zip(("minimum", "maximum"), description["bounds"], strict=True))

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
    def marks_unlabelled(self) -> bool:
        return not self.minimum <= -1 <= self.maximum

    @property
    @override
    def output(self) -> Number:
        return Number(self.minimum, self.maximum)

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

    @override
    def label_tensor(self, labels: Sequence[Any], length: int) -> Tensor:
        return torch.tensor(labels, dtype=torch.float32)

    @override
    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        if not len(labels):
            return no_loss(logits)
        return functional.mse_loss(logits.float().squeeze(-1), self.output.scaled(labels))

    @override
    def distillation_loss(
        self, logits: Tensor, teacher: Tensor, labels: Tensor, temperature: float
    ) -> Tensor:
        if not len(labels):
            return no_loss(logits)
        return functional.mse_loss(logits.float(), teacher.float())
