"""Token classification: one label a word, carried by the word's first sub-word."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch.nn import functional
from typing_extensions import override

from multiprune.tasks.columns import check_lists
from multiprune.tasks.labels import checked_labels, known, label_reader
from multiprune.tasks.soft_targets import softened_divergence
from multiprune.tasks.task import IGNORED, Rows, Task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor
    from transformers import BatchEncoding


@dataclass(kw_only=True)
class Tagging(Task):
    """Chooses one of ``labels`` for each word; the text column holds lists of words.

    Labels are as those of ``Classification``.
    """

    labels: Sequence[Any]

    per_token: ClassVar[bool] = True
    reads_words: ClassVar[bool] = True
    text_columns: ClassVar[Sequence[int]] = (1,)

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
    def definition(self) -> Mapping[str, Any]:
        labels = known(self.labels).definition
        return {"kind": "tags", "text": [*self.text], "label": self.label, **labels}

    @property
    @override
    def tokenizer_options(self) -> Mapping[str, Any]:
        return {"is_split_into_words": True}

    @override
    def encode_labels(self, rows: Rows) -> list[Any]:
        reader = label_reader(rows, self.label, known(self.labels))
        return [reader.ids(tags, row=row) for row, tags in enumerate(rows.table[self.label][:])]

    @override
    def check_columns(self, rows: Rows) -> None:
        super().check_columns(rows)
        check_lists(rows, self.label)
        pairs = zip(rows.table[self.text[0]][:], rows.table[self.label][:], strict=True)
        for row, (words, tags) in enumerate(pairs):
            if len(words) != len(tags):
                raise ValueError(
                    f"Column {self.label!r} of {rows.origin} must hold one tag a word, but row "
                    f"{row} has {len(tags)} tags for {len(words)} words."
                )

    @override
    def align(self, labels: list[Any], encoding: BatchEncoding) -> list[Any]:
        return [
            first_subword_labels(encoding.word_ids(row), tags) for row, tags in enumerate(labels)
        ]

    @override
    def label_tensor(self, labels: Sequence[Any], length: int) -> Tensor:
        padded = torch.full((len(labels), length), IGNORED)
        for row, tags in enumerate(labels):
            padded[row, : len(tags)] = torch.tensor(tags)
        return padded

    @override
    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(
            logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED
        )

    @override
    def distillation_loss(
        self, logits: Tensor, teacher: Tensor, labels: Tensor, temperature: float
    ) -> Tensor:
        labelled = labels != IGNORED
        return softened_divergence(logits[labelled], teacher[labelled], temperature)

    @override
    def predictions(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        labelled = labels != IGNORED
        return logits.argmax(-1)[labelled], labels[labelled]

    @override
    def answers_by_example(self, labels: Tensor) -> Tensor:
        return (labels != IGNORED).sum(-1)

    @override
    def shown(self, answers: Tensor) -> str:
        return " ".join(self.labels[tag] for tag in answers.tolist())


def first_subword_labels(word_ids: Sequence[int | None], tags: Sequence[int]) -> list[int]:
    """Give each word's tag to its first sub-word, and ``IGNORED`` to all other tokens."""
    labels, previous = [], None
    for word in word_ids:
        labels.append(IGNORED if word is None or word == previous else tags[word])
        previous = word
    return labels
