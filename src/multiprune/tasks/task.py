"""What a task is: columns, a label space, a loss and metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from multiprune.arguments import check_number
from multiprune.metrics.as_metric import as_metric
from multiprune.tasks.columns import Columns, check_present, check_texts, check_values, row_slices
from multiprune.tasks.languages import LANGUAGE, check_declaration

if TYPE_CHECKING:
    from pathlib import Path

    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from multiprune.metrics.metric import Metric
    from multiprune.metrics.outputs import Output
    from multiprune.runs.predictions import Answers

#: Marks a token that has no label of its own: special tokens and the rest of a word.
IGNORED = -100

#: Column of encoded rows that says which example a row is of, where an example has several.
EXAMPLE = "example"


@dataclass(frozen=True)
class Rows:
    """The rows of one split, where they came from, and a hash of what they hold.

    ``first`` is the number of the first one, where they are a part of the rows of a split.
    """

    table: Dataset
    origin: str
    fingerprint: str
    first: int = 0


class Source(Protocol):
    """Where the rows of a task come from."""

    def load(
        self,
        split: str,
        *,
        mirror: Path | None,
        languages: Sequence[str] | None = None,
        columns: Columns | None = None,
    ) -> Rows | None:
        """Return the rows of ``train``, ``validation`` or ``test``; None if there is no such split.

        ``mirror`` is the folder of a local mirror to read instead of the hub. ``languages`` are
        those whose rows will be used (None is all): rows in others may be left out. So may columns
        that are not among ``columns`` (None is all).
        """


@dataclass(frozen=True)
class Batch:
    """Examples of one task: encoder inputs of shape ``(examples, tokens)``, and labels.

    ``rows`` says where among the encoded rows of their split the examples stand, and ``examples``
    where among the rows that were encoded, if that is known.
    """

    task: str
    inputs: Mapping[str, Tensor]
    labels: Tensor
    rows: Sequence[int] = ()
    examples: Sequence[int] = ()

    def to(self, device: torch.device) -> Batch:
        """Return this batch on ``device``; from pinned memory, CUDA copies while it computes."""
        return self._with_each(lambda one: one.to(device, non_blocking=device.type == "cuda"))

    def pin_memory(self) -> Batch:
        """Return this batch in pinned memory."""
        return self._with_each(Tensor.pin_memory)

    def _with_each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        inputs = {name: change(tensor) for name, tensor in self.inputs.items()}
        return replace(self, inputs=inputs, labels=change(self.labels))


class Compared(NamedTuple):
    """What the metrics of a task take, one entry an answer, or one an example.

    Attributes:
        outputs: of the form that ``Task.output`` says.
        labels: likewise.
        examples: (entries,), where in its split the example stands that an entry is of.
    """

    outputs: Any
    labels: Any
    examples: Tensor


@dataclass(kw_only=True)
class Task(ABC):
    """One thing to learn from text.

    Attributes:
        text: the columns that the encoder reads.
        label: the column that is learned.
        metrics: by name, of this package or of torchmetrics; the first is the task's score.
        source: where the rows come from.
        loss_weight: what the task's loss is multiplied with.
        languages: of the rows, in their column ``lang``; empty for tasks without that column.
        train_languages: those that are trained on; None is all.
        language_groups: of languages, by name; scores are averaged over each.
        parallel: the column whose value is the same in rows that say the same in several languages;
            None if each row says something else.
    """

    text: Sequence[str]
    label: str
    metrics: Mapping[str, Metric]
    source: Source
    loss_weight: float = 1.0
    languages: Sequence[str] = ()
    train_languages: Sequence[str] | None = None
    language_groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    parallel: str | None = None

    #: Whether the model answers for each token rather than for the whole sequence.
    per_token: ClassVar[bool] = False
    #: Whether it answers with a token of the encoder's own vocabulary.
    over_vocabulary: ClassVar[bool] = False
    #: Whether the encoder reads something else each time that an example is trained on.
    is_corrupted: ClassVar[bool] = False
    #: Whether an example is a row of the source, rather than made of parts of several.
    examples_are_rows: ClassVar[bool] = True
    #: Whether text columns hold lists of words rather than texts.
    reads_words: ClassVar[bool] = False
    #: How many text columns the task can read.
    text_columns: ClassVar[Sequence[int]] = (1, 2)

    def __post_init__(self) -> None:
        if isinstance(self.text, str) or not isinstance(self.text, Sequence):
            raise ValueError(f"`text` must be a list of columns, but is {self.text!r}.")
        if len(self.text) not in self.text_columns:
            most = " or ".join(map(str, self.text_columns))
            raise ValueError(f"`text` must name {most} column(s), but names {list(self.text)}.")
        if not self.metrics:
            raise ValueError("A task needs at least one metric, but has none.")
        if not isinstance(self.metrics, Mapping):
            raise ValueError(
                "`metrics` must be metrics by name, as in {accuracy: …}, but is "
                f"{self.metrics!r}."
            )
        if not hasattr(self.source, "load"):
            raise ValueError(
                f"`source` must be where rows come from, such as a FileSource, but is "
                f"{self.source!r}."
            )
        self.metrics = {name: as_metric(name, one) for name, one in self.metrics.items()}
        if self.metrics[self.score_name].lower_is_better:
            raise ValueError(
                "The first metric is the task's score, of which more must be better, but is "
                f"{self.score_name!r}."
            )
        check_number("loss_weight", self.loss_weight, at_least=0)
        check_declaration(self.languages, self.train_languages, self.language_groups)
        if self.parallel is not None and not self.languages:
            raise ValueError(
                f"`parallel` is for tasks with `languages`, but is {self.parallel!r} without any."
            )

    def read_by(self, tokenizer: PreTrainedTokenizerBase) -> Task:  # noqa: ARG002
        """Return this task for encoders with a tokenizer.

        Raises:
            ValueError: if the tokenizer lacks what the task needs.
        """
        return self

    @property
    @abstractmethod
    def num_outputs(self) -> int:
        """The number of outputs of the task's head."""

    @property
    @abstractmethod
    def output(self) -> Output:
        """What the task predicts, and in which form metrics are given that."""

    @property
    @abstractmethod
    def definition(self) -> Mapping[str, Any]:
        """What the encoded rows depend on, besides the rows and the tokenizer; for the cache."""

    @property
    def meaning(self) -> Mapping[str, Any]:
        """What the outputs of the task's head mean; for whoever has the model and not this task."""
        return self.definition

    @abstractmethod
    def encode_labels(self, rows: Rows) -> list[Any]:
        """Return the labels of all rows as the loss wants them.

        Raises:
            ValueError: if a label lies outside the label space (names file, column and value).
        """

    @abstractmethod
    def label_tensor(self, labels: Sequence[Any], length: int) -> Tensor:
        """Stack encoded labels of a batch padded to ``length`` tokens."""

    def corrupted(self, batch: Batch, draw: Sequence[int]) -> Batch:  # noqa: ARG002
        """Return a batch as the encoder reads it.

        What is random depends on ``draw`` and the number of each row alone: not on the other rows
        of the batch, nor on how it is shared among ranks.
        """
        return batch

    @abstractmethod
    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of a batch."""

    @abstractmethod
    def distillation_loss(
        self, logits: Tensor, teacher: Tensor, labels: Tensor, temperature: float
    ) -> Tensor:
        """Return how far the logits of a batch are from a teacher's, on the scale of ``loss``.

        ``labels`` say no more than what counts. ``temperature`` softens distributions.
        """

    @abstractmethod
    def predictions(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return probabilities or values, and the labels to compare them with."""

    def decided(self, predictions: Tensor) -> Tensor:
        """Return the answers that predictions come to: classes, not their probabilities."""
        return predictions

    def answers_by_example(self, labels: Tensor) -> Tensor:
        """Return how many answers ``predictions`` gives to each example of a batch."""
        return torch.ones(len(labels), dtype=torch.long, device=labels.device)

    def loss_terms(self, logits: Tensor, labels: Tensor) -> Tensor:  # noqa: ARG002
        """Return of how many terms ``loss`` is the mean, for each example of a batch."""
        return self.answers_by_example(labels)

    def wordless(self, rows: Rows) -> list[int]:  # noqa: ARG002
        """Return which rows have no word to answer for, whatever the tokenizer is."""
        return []

    def unread_words(self, table: Dataset) -> int:  # noqa: ARG002
        """Return how many words that have labels are in none of the encoded rows of a split."""
        return 0

    def combined(self, answers: Answers) -> Answers:
        """Return the answers to examples, where several encoded rows of each were answered."""
        return answers

    @property
    def compares_rows(self) -> bool:
        """Whether ``compared`` reads the rows that were answered."""
        return False

    def compared(self, answers: Answers, rows: Rows | None) -> Compared:  # noqa: ARG002
        """Return predictions and labels as the metrics take them; ``rows`` are of the split."""
        return Compared(answers.predictions, answers.labels, answers.examples)

    @abstractmethod
    def shown(self, answers: Tensor) -> str:
        """Write the decided answers to one example, or its labels, as a person reads them."""

    @property
    def score_name(self) -> str:
        """The name of the metric that is the task's score."""
        return next(iter(self.metrics))

    def encode(
        self, rows: Rows, tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> tuple[dict[str, list[Any]], int]:
        """Tokenize rows; return the columns of the encoded rows, and how many were truncated.

        Raises:
            ValueError: if a column is missing or a value does not fit (names file and column).
        """
        self.check_columns(rows)
        labels = self.encode_labels(rows)
        encoding = tokenizer(
            *self.texts(rows),
            truncation=True,
            max_length=max_length,
            return_attention_mask=False,
        )
        columns = {name: list(values) for name, values in encoding.items()}
        truncated = sum(bool(one.overflowing) for one in encoding.encodings or [])
        return columns | {"labels": labels}, truncated

    def encode_parts(
        self, rows: Rows, tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> Iterator[tuple[dict[str, list[Any]], int]]:
        """Yield what ``encode`` returns of all rows, for some of them at a time."""
        for part in row_slices(rows):
            columns, truncated = self.encode(part, tokenizer, max_length)
            if EXAMPLE in columns:
                columns[EXAMPLE] = [part.first + example for example in columns[EXAMPLE]]
            yield columns, truncated

    def texts(self, rows: Rows) -> list[list[Any]]:
        """Return what the tokenizer reads of all rows: one list, or two whose entries are pairs."""
        return [rows.table[column][:] for column in self.text]

    @property
    def label_columns(self) -> Sequence[str]:
        """The columns that labels are read from."""
        return (self.label,)

    @property
    def columns(self) -> Columns:
        """All columns that the task reads."""
        others = [*self.label_columns, *filter(None, [self.parallel])]
        return Columns(text=self.text, others=others + [LANGUAGE] * bool(self.languages))

    @property
    def marks_unlabelled(self) -> bool:
        """Whether a label of -1 means that the label is not public, as it does on the hub."""
        return True

    def check_columns(self, rows: Rows) -> None:
        """Raise if a column of the task is missing or empty, or holds something else than texts."""
        names = self.columns.without(LANGUAGE).names
        check_present(names, rows.table.column_names, rows.origin)
        check_values(rows, names)
        check_texts(rows, self.text, words=self.reads_words)
