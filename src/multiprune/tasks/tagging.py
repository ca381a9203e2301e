"""Token classification: one label a word, carried by the word's first sub-word."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch.nn import functional
from typing_extensions import override

from multiprune.arguments import check_number
from multiprune.tasks.columns import check_lists
from multiprune.tasks.labelled import LabelledTask
from multiprune.tasks.labels import known, label_reader
from multiprune.tasks.outputs.tags import Tags
from multiprune.tasks.rows import EXAMPLE, IGNORED, Rows
from multiprune.tasks.soft_targets import softened_divergence
from multiprune.tasks.word_labels import tags_of, unread, word_label
from multiprune.tasks.word_windows import word_windows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


@dataclass(kw_only=True)
class Tagging(LabelledTask):
    """Chooses one of ``labels`` for each word; the text column holds lists of words.

    A document that is too long is read in windows, and each word answered in the one where it
    stands farthest from an edge. There alone it is learned, too: a word counts once however many
    windows it is in, and is learned with the context that it is answered with.

    Words that are not read, because documents are cut or the tokenizer has no token for them, count
    as answered with ``O``, or wrongly if that is none of the labels.

    Labels are of shape (windows, tokens), as ``word_labels`` has them; those of words that are not
    read stand behind the tokens.

    Attributes:
        overlap: tokens that neighbouring windows share, at most half of a window; None cuts
            documents to ``data.max_length`` instead.
    """

    overlap: int | None = 32

    reads_words: ClassVar[bool] = True
    text_columns: ClassVar[Sequence[int]] = (1,)
    described_as: ClassVar[str] = Tags.kind
    usual_metrics: ClassVar[Sequence[str]] = ("accuracy", "macro_f1")

    @classmethod
    @override
    def described_settings(cls, description: Mapping[str, Any]) -> dict[str, Any]:
        return {**super().described_settings(description), "overlap": description["overlap"]}

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        if self.overlap is not None:
            check_number("overlap", self.overlap, at_least=0, whole=True)

    @property
    @override
    def output(self) -> Tags:
        return Tags(known(self.labels), self.overlap)

    @property
    @override
    def cache_key(self) -> Mapping[str, Any]:
        return {**super().cache_key, "overlap": self.overlap}

    @override
    def encode_labels(self, rows: Rows) -> list[Any]:
        reader = label_reader(rows, self.label, known(self.labels))
        tagged = enumerate(rows.table[self.label][:], rows.first)
        return [reader.ids(tags, row=row) for row, tags in tagged]

    @override
    def wordless(self, rows: Rows) -> list[int]:
        columns = (self.text[0], self.label)
        if not {*columns} <= {*rows.table.column_names}:
            return []
        pairs = zip(*(rows.table[column][:] for column in columns), strict=True)
        # Tags of no words are a mistake.
        return [row for row, pair in enumerate(pairs) if pair == ([], [])]

    @override
    def check_columns(self, rows: Rows) -> None:
        super().check_columns(rows)
        check_lists(rows, self.label)
        pairs = zip(rows.table[self.text[0]][:], rows.table[self.label][:], strict=True)
        for row, (words, tags) in enumerate(pairs, rows.first):
            if len(words) != len(tags):
                raise ValueError(
                    f"Column {self.label!r} of {rows.origin} must hold one tag a word, but row "
                    f"{row} has {len(tags)} tags for {len(words)} words."
                )

    @override
    def encode(
        self, rows: Rows, tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> tuple[dict[str, list[Any]], int]:
        self.check_columns(rows)
        tags = self.encode_labels(rows)
        documents = rows.table[self.text[0]][:]
        windows = word_windows(documents, tokenizer, max_length=max_length, overlap=self.overlap)
        left = [dict(enumerate(of_words)) for of_words in tags]
        labels = [
            [IGNORED if word < 0 else word_label(left[example].pop(word), word) for word in words]
            for example, words in zip(windows.examples, windows.words, strict=True)
        ]
        for example, row in zip(windows.examples, labels, strict=True):
            row += [unread(word_label(tag, word)) for word, tag in left[example].items()]
            left[example] = {}
        return {**windows.inputs, EXAMPLE: windows.examples, "labels": labels}, windows.cut

    @override
    def unread_words(self, table: Dataset) -> int:
        import pyarrow.compute

        labels = pyarrow.compute.list_flatten(table.with_format("arrow")["labels"][:])
        return int(pyarrow.compute.sum(pyarrow.compute.less(labels, IGNORED)).as_py() or 0)

    @override
    def label_tensor(self, labels: Sequence[Any], length: int) -> Tensor:
        behind = [[unread(one) for one in row if one < IGNORED] for row in labels]
        padded = torch.full((len(labels), length + max(map(len, behind))), IGNORED)
        for row, (numbers, others) in enumerate(zip(labels, behind, strict=True)):
            tokens = len(numbers) - len(others)
            padded[row, :tokens] = torch.tensor(numbers[:tokens], dtype=torch.long)
            padded[row, length : length + len(others)] = torch.tensor(others, dtype=torch.long)
        return padded

    @override
    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        tags = tags_of(labels[:, : logits.shape[1]])
        total = functional.cross_entropy(
            logits.float().flatten(0, 1), tags.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        # Where there is none, without a look at how many there are.
        return total / (tags != IGNORED).sum().clamp(min=1)

    @override
    def loss_terms(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self.output.answers_by_example(labels[:, : logits.shape[1]])

    @override
    def distillation_loss(
        self, logits: Tensor, teacher: Tensor, labels: Tensor, temperature: float
    ) -> Tensor:
        labelled = labels[:, : logits.shape[1]] != IGNORED
        return softened_divergence(logits, teacher, temperature, labelled)
