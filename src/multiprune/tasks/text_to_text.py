"""Classification as text to text: templates and label words."""

from __future__ import annotations

import string
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from typing_extensions import override

from multiprune.tasks.classification import Classification
from multiprune.tasks.labels import known
from multiprune.tasks.losses import no_loss
from multiprune.tasks.outputs.worded_class import WordedClass, Wording

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from multiprune.tasks.rows import Rows
    from multiprune.tasks.task import Task


@dataclass(kw_only=True)
class WordedClassification(Classification):
    """Chooses one of ``labels`` by the log-probability of its words.

    The logits, shape (examples, labels), are log-probabilities of whole words: sums over tokens.
    """

    wording: Wording

    @property
    @override
    def output(self) -> WordedClass:
        return WordedClass(known(self.labels), self.wording)

    @property
    @override
    def cache_key(self) -> Mapping[str, Any]:
        return {**super().cache_key, "template": self.wording.template}

    @override
    def texts(self, rows: Rows) -> list[list[Any]]:
        columns = zip(*super().texts(rows), strict=True)
        return [[self.wording.filled(dict(zip(self.text, one, strict=True))) for one in columns]]

    @override
    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy of the tokens of the right words, the mean over all of them."""
        if not len(labels):
            return no_loss(logits)
        lengths = torch.tensor([len(one) for one in self.wording.tokens])
        lengths = lengths.to(labels.device, non_blocking=True)
        return -logits.float().gather(1, labels[:, None]).sum() / lengths[labels].sum()

    @override
    def log_probabilities(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the log-probability of all words of the labels."""
        return logits.gather(1, labels[:, None]).squeeze(1)


def worded(name: str, task: Task, tokenizer: PreTrainedTokenizerBase) -> WordedClassification:
    """Return a task as a text-to-text model reads and answers it.

    Without a template of its own it is read as T5's preprocessing writes GLUE: its name, and its
    columns by name in alphabetical order, ``rte sentence1: ... sentence2: ...`` (Raffel et al.
    2020, appendix D). Without words of their own, labels are answered by their names.

    Raises:
        ValueError: if the task is of another kind than classification, the template does not fit
            its columns, or its words cannot be told apart.
    """
    if type(task) is not Classification:
        raise ValueError(
            f"A text-to-text model chooses one of several labels for a text, but {name!r} is a "
            f"task of the kind {type(task).__name__}."
        )
    labels = known(task.labels)
    words = labels if task.label_words is None else task.label_words
    if len(words) != len(labels):
        raise ValueError(
            f"`label_words` of {name!r} must be one for each of {len(labels)} labels, but are "
            f"{list(words)}."
        )
    template = task.template or default_template(name, task.text)
    check_template(name, template, task.text)
    wording = Wording(template, [*words], label_tokens(name, words, tokenizer))
    kept = {field.name: getattr(task, field.name) for field in fields(task)}
    return WordedClassification(**kept, wording=wording)


def default_template(name: str, columns: Sequence[str]) -> str:
    """Return a template of a task's name and its columns, in the order of their names."""
    return " ".join([name, *(f"{column}: {{{column}}}" for column in sorted(columns))])


def check_template(name: str, template: str, columns: Sequence[str]) -> None:
    """Raise a ValueError unless a template names each text column, and nothing else."""
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(
            f"`template` of {name!r} must have columns in braces, but is {template!r}: {error}."
        ) from error
    named = {field for _, field, _, _ in parts if field is not None}
    plain = not any(spec or conversion for _, _, spec, conversion in parts)
    if named != set(columns) or not plain:
        raise ValueError(
            f"`template` of {name!r} must have the columns {', '.join(columns)} in braces and "
            f"nothing else, but is {template!r}."
        )


def label_tokens(
    name: str, words: Sequence[str], tokenizer: PreTrainedTokenizerBase
) -> list[list[int]]:
    """Return the tokens of every label's words, the end of the sequence last.

    Raises:
        ValueError: if words are split into no token or into unknown ones, or two labels have the
            same.
    """
    end = tokenizer.eos_token_id
    if end is None:
        raise ValueError(
            "The tokenizer of a text-to-text model must have a token for the end of a sequence, "
            "but has none."
        )
    found: dict[tuple[int, ...], str] = {}
    for one in words:
        tokens = tuple(tokenizer(one, add_special_tokens=False)["input_ids"])
        if not tokens or tokenizer.unk_token_id in tokens:
            raise ValueError(
                f"`label_words` of {name!r} must be made of tokens that the model knows, but "
                f"{one!r} is not: it is split into {tokenizer.convert_ids_to_tokens(list(tokens))}."
            )
        if tokens in found:
            raise ValueError(
                f"`label_words` of {name!r} must differ, but {found[tokens]!r} and {one!r} are the "
                "same to the model."
            )
        found[tokens] = one
    return [[*tokens, end] for tokens in found]
