"""A loss over no labels is 0 and moves nothing, in every kind of task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from tiny_text_to_text import tiny_tokenizer
from torch.nn import functional
from waits import Waits

from multiprune.data.source import HubSource
from multiprune.metrics import Accuracy, AnswerF1
from multiprune.models.from_scratch import character_tokenizer
from multiprune.models.hidden_states import LayerStates
from multiprune.tasks.answer_text import squad
from multiprune.tasks.classification import Classification, MultiLabel, Regression
from multiprune.tasks.masked_language import MaskedLanguage
from multiprune.tasks.packing import across_texts
from multiprune.tasks.question_answering import QuestionAnswering
from multiprune.tasks.rows import IGNORED
from multiprune.tasks.soft_targets import softened_divergence
from multiprune.tasks.tagging import Tagging
from multiprune.tasks.text_to_text import worded
from multiprune.training.distillation import hidden_state_loss

if TYPE_CHECKING:
    from torch import Tensor

    from multiprune.tasks.task import Task

COMMON: dict[str, Any] = {
    "text": ["text"],
    "label": "label",
    "metrics": {"accuracy": Accuracy()},
    "source": HubSource(path=None, mirror="nowhere"),
}
CLASSES = Classification(labels=["a", "b"], **COMMON)
QUESTIONS = {"text": ["question", "text"], "metrics": {"f1": AnswerF1()}, "label_start": "start"}

#: For each kind of task, the shape of its logits and labels of which none is one.
NOTHING: dict[str, tuple[Task, tuple[int, ...], Tensor]] = {
    "classes": (CLASSES, (0, 2), torch.empty(0, dtype=torch.long)),
    "words": (worded("x", CLASSES, tiny_tokenizer()), (0, 2), torch.empty(0, dtype=torch.long)),
    "sets": (MultiLabel(labels=["a", "b"], **COMMON), (0, 2), torch.empty(0, 2)),
    "number": (Regression(minimum=0, maximum=1, **COMMON), (0, 1), torch.empty(0)),
    "tags": (Tagging(labels=["a", "b"], **COMMON), (2, 3, 2), torch.full((2, 3), IGNORED)),
    "span": (
        QuestionAnswering(**COMMON | QUESTIONS, normalize=squad),
        (0, 3, 2),
        torch.empty(0, 5, 2, dtype=torch.long),
    ),
    "masked": (
        MaskedLanguage(**COMMON | {"label": ""}, probability=0.1, packing=across_texts).read_by(
            character_tokenizer()
        ),
        (0, 7),
        torch.full((2, 3), IGNORED),
    ),
}


@pytest.mark.parametrize("kind", NOTHING)
def test_loss_over_no_labels_is_0_and_moves_nothing(kind: str) -> None:
    task, shape, labels = NOTHING[kind]
    # Behind weights, as heads are, which get gradients from no example, too.
    weight = torch.ones(1, requires_grad=True)
    logits = weight * torch.ones(shape)
    losses = [
        task.loss(logits, labels),
        task.distillation_loss(logits, torch.zeros(shape), labels, 2.0),
    ]
    for loss in losses:
        assert loss.item() == 0
        (gradient,) = torch.autograd.grad(loss, weight, retain_graph=True)
        assert gradient.item() == 0


SOME = torch.tensor([[0, 1, IGNORED], [1, IGNORED, IGNORED]])
#: For each kind of task, the shape of its logits and labels of which some are none.
LABELS: dict[str, tuple[tuple[int, ...], Tensor]] = {
    "classes": ((2, 2), torch.tensor([0, 1])),
    "words": ((2, 2), torch.tensor([0, 1])),
    "sets": ((2, 2), torch.tensor([[0.0, 1.0], [1.0, 1.0]])),
    "number": ((2, 1), torch.tensor([0.5, 1.0])),
    "tags": ((2, 3, 2), SOME),
    "span": ((2, 3, 2), torch.tensor([[[1, 2], [0, 0], [4, 5], [5, 6], [IGNORED] * 2]] * 2)),
    "masked": ((3, 7), SOME),
}
#: Losses that wait for the device, and why.
WAITING = {"masked": "Logits are those of hidden tokens alone, as many as the labels say."}


@pytest.mark.parametrize("kind", NOTHING)
def test_losses_wait_for_nothing_unless_a_table_says_why(kind: str) -> None:
    task, (shape, labels) = NOTHING[kind][0], LABELS[kind]
    logits, teacher = torch.randn(shape, requires_grad=True), torch.randn(shape)
    waits = Waits()
    waits.claim([logits, teacher, labels])
    with waits:
        loss = task.loss(logits, labels) + task.distillation_loss(logits, teacher, labels, 2.0)
        loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() != 0
    assert bool(waits.found) == (kind in WAITING), waits.found


def test_tags_that_are_none_take_no_part() -> None:
    task, (shape, labels) = NOTHING["tags"][0], LABELS["tags"]
    logits, teacher = torch.randn(shape), torch.randn(shape)
    labelled = labels != IGNORED
    expected = functional.cross_entropy(logits[labelled], labels[labelled])
    torch.testing.assert_close(task.loss(logits, labels), expected)
    divergence = softened_divergence(logits[labelled], teacher[labelled], 2.0)
    torch.testing.assert_close(task.distillation_loss(logits, teacher, labels, 2.0), divergence)


def test_hidden_states_of_padding_alone_are_no_loss() -> None:
    states = torch.ones(2, 3, 4, requires_grad=True)
    student, teacher = ([LayerStates(one, False)] for one in (states, torch.zeros(2, 3, 4)))
    loss = hidden_state_loss(student, teacher, torch.zeros(2, 3, dtype=torch.long))
    (gradient,) = torch.autograd.grad(loss, states)
    assert loss.item() == 0
    assert not gradient.any()
