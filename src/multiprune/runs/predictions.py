"""``predictions.safetensors``: predictions of a run for validation and test examples.

A tensor ``<split>/<task>/<field>`` for each field of ``Answers``, as decided and sorted by example,
and of ``MetricTerms`` or ``MetricDraws``, by which the task's score can be resampled.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from multiprune.metrics.terms import MetricDraws, MetricTerms
from multiprune.runs.atomic import atomic_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

FILE = "predictions.safetensors"

_NUMBERS = ("places", "languages", "units")
#: In files of earlier versions: of each example, what a score divides by what.
_QUOTIENT = ("numerators", "denominators")


@dataclass(frozen=True)
class Answers:
    """Predictions beside labels, one an example, or one a labelled token in tagging.

    Attributes:
        predictions: probabilities (answers, classes or labels), numbers (answers,), or
            (answers, 2), the characters where a span starts and ends; as decided, classes
            (answers,), or 0 and 1 for each of several labels.
        labels: of the shape of decided predictions.
        examples: (answers,), where in its split the example stands that an answer belongs to;
            -1 if that is not known.
    """

    predictions: Tensor
    labels: Tensor
    examples: Tensor

    def sorted(self) -> Answers:
        """Return the same answers by example, those of one example in their order."""
        return self.chosen(self.examples.argsort(stable=True))

    def chosen(self, which: Tensor) -> Answers:
        """Return the answers at some places, or where a mask is true."""
        return Answers(self.predictions[which], self.labels[which], self.examples[which])


@dataclass(frozen=True)
class Answered(Answers):
    """Answers, and the terms of the score.

    Attributes:
        terms: those of a metric of ours; None in files of earlier versions where answers alone
            give the score.
        draws: of another metric; None if it cannot be resampled.
        is_quotient: whether terms are those of an earlier version, the first divided by the second.
    """

    terms: MetricTerms | None = None
    draws: MetricDraws | None = None
    is_quotient: bool = False


#: By task, by split.
Predictions = dict[str, dict[str, Answered]]


def write_predictions(
    folder: Path,
    by_split: Mapping[str, Mapping[str, Answers]],
    terms: Mapping[str, Mapping[str, MetricTerms | MetricDraws]] | None = None,
) -> None:
    """Write what was answered, by split and task, and the ``terms`` of scores into ``folder``."""
    tensors = {
        f"{split}/{task}/{field}": _narrow(tensor, counts=field == "terms")
        for split, by_task in by_split.items()
        for task, answers in by_task.items()
        for field, tensor in _tensors(answers, (terms or {}).get(split, {}).get(task)).items()
    }
    with atomic_file(folder / FILE) as beside:
        beside.write_bytes(save(tensors))


def read_predictions(folder: Path) -> Predictions:
    """Return what ``write_predictions`` wrote.

    Raises:
        FileNotFoundError: if there is no such file, as in runs of earlier versions.
        ValueError: if it is damaged.
    """
    file = folder / FILE
    try:
        tensors = load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file} is not a complete safetensors file: {error}.") from error
    parts: dict[tuple[str, str], dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in tensors.items():
        split, task, field = name.split("/")
        parts[split, task][field] = tensor
    by_split: Predictions = {}
    for (split, task), found in parts.items():
        try:
            by_split.setdefault(split, {})[task] = _answered(found)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{file} must hold all of {split}/{task}, but: {error}.") from error
    return by_split


def _answered(found: dict[str, Tensor]) -> Answered:
    quotient = [found.pop(name) for name in _QUOTIENT if name in found]
    if quotient:
        found["terms"] = torch.stack(quotient, 1)
        found["places"] = torch.arange(len(quotient[0]))
    own = {name: found.pop(name) for name in _NUMBERS if name in found}
    numbers = {name: one.long() for name, one in own.items()}
    terms, draws = (found.pop(name, None) for name in ("terms", "draws"))
    answers = Answers(**found)
    return Answered(
        **vars(answers),
        terms=None if terms is None else MetricTerms(terms, **numbers),
        draws=None if draws is None else MetricDraws(draws, **numbers),
        is_quotient=bool(quotient),
    )


def _tensors(answers: Answers, terms: MetricTerms | MetricDraws | None) -> dict[str, Tensor]:
    return {**vars(answers.sorted()), **({} if terms is None else vars(terms))}


def _narrow(tensor: Tensor, *, counts: bool) -> Tensor:
    """Return numbers in as few bytes as hold them: a run has thousands of small integers.

    What may be ``counts`` need not remain of a type with fractions.
    """
    tensor = tensor.detach().cpu().contiguous()
    if tensor.is_floating_point():
        whole = tensor.to(torch.int8)
        if counts and torch.equal(whole.to(tensor.dtype), tensor):
            return whole
        single = tensor.float()
        return single if torch.equal(single.to(tensor.dtype), tensor) else tensor
    low, high = (int(one) for one in tensor.aminmax()) if tensor.numel() else (0, 0)
    for kind in (torch.int8, torch.int16, torch.int32):
        if torch.iinfo(kind).min <= low and high <= torch.iinfo(kind).max:
            return tensor.to(kind)
    return tensor
