"""Masked language modelling as a task."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch.nn import functional
from typing_extensions import override

from multiprune.arguments import check_number
from multiprune.tasks.columns import row_slices
from multiprune.tasks.masking import MaskVocabulary, mask_vocabulary, masked, random_numbers
from multiprune.tasks.outputs.vocabulary import VocabularyToken, at_labels
from multiprune.tasks.packing import Packing, beside_texts, check_knows_words, packed_parts
from multiprune.tasks.rows import IGNORED, Rows
from multiprune.tasks.soft_targets import softened_divergence
from multiprune.tasks.task import Batch, Task

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class MaskedLanguage(Task):
    """Predicts tokens that are hidden from the encoder; rows are texts without labels.

    An example, as caps and intervals count them, is a block of texts. Encoded labels say, for each
    token, where in the block its word begins, and ``corrupted`` turns them into the tokens that
    were hidden.

    Attributes:
        probability: that a token, or a word, is hidden.
        whole_words: hide words, not tokens.
        packing: what a block is made of.
        vocabulary: what is read in place of hidden tokens; known from ``read_by`` on.
    """

    label: str = ""
    probability: float
    packing: Packing
    whole_words: bool = False
    vocabulary: MaskVocabulary | None = None

    is_corrupted: ClassVar[bool] = True
    examples_are_rows: ClassVar[bool] = False
    text_columns: ClassVar[Sequence[int]] = (1,)

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("probability", self.probability, above=0, at_most=1)
        if not callable(self.packing):
            raise ValueError(
                "`packing` must be a function, as by `packing.path=multiprune.tasks.packing."
                f"beside_texts`, but is {self.packing!r}."
            )
        if self.languages:
            raise ValueError(
                "Masked language modelling joins texts of all languages to blocks, but has "
                f"`languages` {', '.join(self.languages)}: make a task of each."
            )

    @override
    def read_by(self, tokenizer: PreTrainedTokenizerBase) -> MaskedLanguage:
        if self.whole_words:
            check_knows_words(tokenizer)
        return replace(self, vocabulary=mask_vocabulary(tokenizer))

    @property
    @override
    def output(self) -> VocabularyToken:
        return VocabularyToken()

    @property
    @override
    def cache_key(self) -> Mapping[str, Any]:
        return {**super().cache_key, "packing": self.packing.__name__}

    @property
    @override
    def marks_unlabelled(self) -> bool:
        return False

    @property
    @override
    def label_columns(self) -> Sequence[str]:
        return ()

    @property
    @override
    def reads_beside(self) -> bool:
        return self.packing is beside_texts

    @override
    def encode_labels(self, rows: Rows) -> list[Any]:
        """Return nothing for each row: texts are their own labels."""
        return [None] * len(rows.table)

    @override
    def encode(
        self, rows: Rows, tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> tuple[dict[str, list[Any]], int]:
        """Return the columns of blocks; nothing is lost where texts are cut."""
        columns: dict[str, list[Any]] = {}
        for part, _ in self.encode_parts(rows, tokenizer, max_length):
            for name, values in part.items():
                columns.setdefault(name, []).extend(values)
        return columns, 0

    @override
    def encode_parts(
        self, rows: Rows, tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> Iterator[tuple[dict[str, list[Any]], int]]:
        count = 0
        texts = self._all_texts(rows)
        for columns, count in packed_parts(texts, self.packing, tokenizer, max_length):  # noqa: B007
            yield columns, 0
        if not count:
            raise ValueError(
                f"Column {self.text[0]!r} of {rows.origin} must hold text that the tokenizer "
                f"knows, but all {len(rows.table):,} rows are empty or unknown to it."
            )
        if empty := len(rows.table) - count:
            log.warning("%s: skipped %d rows without text.", rows.origin, empty)

    def _all_texts(self, rows: Rows) -> Iterator[str]:
        for part in row_slices(rows):
            self.check_columns(part)
            yield from part.table[self.text[0]][:]

    @override
    def label_tensor(self, labels: Sequence[Any], length: int) -> Tensor:
        padded = torch.full((len(labels), length), IGNORED)
        for row, words in enumerate(labels):
            padded[row, : len(words)] = torch.as_tensor(words)
        return padded

    @override
    def corrupted(self, batch: Batch, draw: Sequence[int]) -> Batch:
        tokens = batch.inputs["input_ids"]
        numbers = random_numbers([[*draw, row] for row in batch.rows], tokens.shape[1])
        read, labels = masked(
            tokens,
            batch.labels,
            numbers,
            self._vocabulary,
            probability=self.probability,
            whole_words=self.whole_words,
        )
        return replace(batch, inputs={**batch.inputs, "input_ids": read}, labels=labels)

    @override
    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy, the mean over all hidden tokens; 0 if there is none.

        As in all tasks, batches that are accumulated and those of ranks weigh the same, though one
        may hide more tokens than another.
        """
        hidden = labels[labels != IGNORED]
        total = functional.cross_entropy(at_labels(logits, labels).float(), hidden, reduction="sum")
        return total / max(1, len(hidden))

    @override
    def distillation_loss(
        self, logits: Tensor, teacher: Tensor, labels: Tensor, temperature: float
    ) -> Tensor:
        return softened_divergence(
            at_labels(logits, labels), at_labels(teacher, labels), temperature
        )

    @property
    def _vocabulary(self) -> MaskVocabulary:
        if self.vocabulary is None:
            raise ValueError(
                "The tokenizer of the masked language modelling task is not set: call "
                "`read_by` first."
            )
        return self.vocabulary
