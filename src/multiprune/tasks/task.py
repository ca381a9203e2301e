"""The interface of tasks: columns, output, loss and metrics."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from typing_extensions import override

from multiprune.arguments import check_number
from multiprune.metrics.as_metric import as_metric
from multiprune.tasks.languages import check_declaration
from multiprune.tasks.row_encoder import RowEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from multiprune.metrics.metric import Metric
    from multiprune.metrics.predicted import Predicted
    from multiprune.runs.predictions import Answers
    from multiprune.tasks.outputs.output import Output
    from multiprune.tasks.rows import Rows, Source


@dataclass(frozen=True)
class Batch:
    """Examples of one task: encoder inputs of shape ``(examples, tokens)``, and labels.

    ``rows`` says where among the encoded rows of their split the examples stand, and ``examples``
    where among the rows that were encoded, if that is known. ``is_padded`` is known of a batch that
    was moved from the CPU: later, a look at its mask would wait for the device.
    """

    task: str
    inputs: Mapping[str, Tensor]
    labels: Tensor
    rows: Sequence[int] = ()
    examples: Sequence[int] = ()
    is_padded: bool | None = None

    def to(self, device: torch.device) -> Batch:
        """Return this batch on ``device``; from pinned memory, CUDA copies while it computes."""
        moved = self._with_each(lambda one: one.to(device, non_blocking=device.type == "cuda"))
        return replace(moved, is_padded=padding_in(self.inputs, self.is_padded))

    def pin_memory(self) -> Batch:
        """Return this batch in pinned memory."""
        return self._with_each(Tensor.pin_memory)

    def _with_each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        inputs = {name: change(tensor) for name, tensor in self.inputs.items()}
        return replace(self, inputs=inputs, labels=change(self.labels))


def padding_in(inputs: Mapping[str, Tensor], known: bool | None) -> bool | None:
    """Whether inputs have padding; what was known before where it would wait for a device."""
    mask = inputs.get("attention_mask")
    return known if mask is None or not mask.is_cpu else not bool(mask.all())


class Compared(NamedTuple):
    """What the metrics of a task take, one entry an answer, or one an example.

    Attributes:
        outputs: of the form that ``Task.predicted`` says.
        labels: likewise.
        examples: (entries,), where in its split the example stands that an entry is of.
    """

    outputs: Any
    labels: Any
    examples: Tensor


@dataclass(kw_only=True)
class Task(RowEncoder):
    """One thing to learn from text.

    Attributes:
        metrics: by name, of this package or of torchmetrics; the first is the task's score.
        source: where the rows come from.
        loss_weight: what the task's loss is multiplied with.
        train_languages: those that are trained on; None is all.
        language_groups: of languages, by name; scores are averaged over each.
    """

    metrics: Mapping[str, Metric]
    source: Source
    loss_weight: float = 1.0
    train_languages: Sequence[str] | None = None
    language_groups: Mapping[str, Sequence[str]] = field(default_factory=dict)

    #: Whether the encoder reads something else each time that an example is trained on.
    is_corrupted: ClassVar[bool] = False
    #: The kind of its output, if a description of that says what the task is.
    described_as: ClassVar[str | None] = None
    #: What is measured of such a task where nobody says so.
    usual_metrics: ClassVar[Sequence[str]] = ()

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.metrics:
            raise ValueError("`metrics` is empty; a task needs at least one metric.")
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
                f"The first metric must be better when higher, but is {self.score_name!r}."
            )
        check_number("loss_weight", self.loss_weight, at_least=0)
        check_declaration(self.languages, self.train_languages, self.language_groups)

    @property
    @abstractmethod
    def output(self) -> Output:
        """What the task answers with."""

    @property
    def predicted(self) -> Predicted:
        """In which form the task's metrics are given what was predicted."""
        return self.output.predicted

    @property
    def description(self) -> dict[str, Any]:
        """What is said of the task beside its head, for whoever has the model and not this task."""
        return {**self.output.description, "text": [*self.text], "label": self.label}

    @classmethod
    def is_described_by(cls, description: Mapping[str, Any]) -> bool:
        """Whether a description, as of ``description``, is of such a task."""
        return "described_as" in vars(cls) and cls.described_as == description["kind"]

    @classmethod
    def described_settings(cls, description: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG003
        """Return what a description says of the settings that other tasks do not have.

        Raises:
            KeyError: if it does not say enough.
        """
        return {}

    @property
    def cache_key(self) -> Mapping[str, Any]:
        """What the encoded rows depend on, besides the rows and the tokenizer."""
        return {"kind": self.output.kind, "text": [*self.text], "label": self.label}

    def read_by(self, tokenizer: PreTrainedTokenizerBase) -> Task:  # noqa: ARG002
        """Return this task for encoders with a tokenizer.

        Raises:
            ValueError: if the tokenizer lacks what the task needs.
        """
        return self

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

    def loss_terms(self, logits: Tensor, labels: Tensor) -> Tensor:  # noqa: ARG002
        """Return of how many terms ``loss`` is the mean, for each example of a batch."""
        return self.output.answers_by_example(labels)

    def log_probabilities(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the log-probability of the labels of each example, of shape (examples,).

        It is the sum over answers of what ``loss`` averages, with its sign; for a number, the
        squared error stands for it.
        """
        counts = self.loss_terms(logits, labels)
        losses = [
            self.loss(own, labels[one : one + 1]) if counts[one] else own.sum() * 0
            for one, own in enumerate(self.output.logits_by_example(logits, labels))
        ]
        return -torch.stack(losses) * counts

    @property
    def compares_rows(self) -> bool:
        """Whether ``compared`` reads the rows that were answered."""
        return False

    def compared(self, answers: Answers, rows: Rows | None) -> Compared:  # noqa: ARG002
        """Return predictions and labels as the metrics take them; ``rows`` are of the split."""
        return Compared(answers.predictions, answers.labels, answers.examples)

    @property
    def score_name(self) -> str:
        """The name of the metric that is the task's score."""
        return next(iter(self.metrics))
