from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
from torch.nn import functional

from multiprune.data.source import HubSource
from multiprune.metrics import Accuracy
from multiprune.tasks.classification import Classification, MultiLabel, Regression
from multiprune.tasks.rows import IGNORED
from multiprune.tasks.soft_targets import softened_cross_entropy, softened_divergence
from multiprune.tasks.tagging import Tagging

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

TEMPERATURES = [0.5, 1.0, 2.0, 8.0]
COMMON = {
    "text": ["text"],
    "label": "label",
    "metrics": {"accuracy": Accuracy()},
    "source": HubSource(path=None, mirror="nowhere"),
}


def random_pair(*shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(2, *shape, generator=generator)).unbind(0)
    return student.requires_grad_(), teacher


def test_divergence_of_two_classes_by_hand() -> None:
    # At a temperature of 2, ln 9 / 2 is ln 3: the teacher says 3/4 to 1/4, the student 1/2 to 1/2.
    student, teacher = torch.tensor([[5.0, 5.0]]), torch.tensor([[math.log(9), 0.0]])
    expected = 4 * (0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5))
    assert softened_divergence(student, teacher, 2.0).item() == pytest.approx(expected, rel=1e-6)


def test_cross_entropy_of_one_decision_by_hand() -> None:
    student, teacher = torch.tensor([[0.0]]), torch.tensor([[math.log(9)]])
    expected = 4 * -(0.75 * math.log(0.5) + 0.25 * math.log(0.5))
    assert softened_cross_entropy(student, teacher, 2.0).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_divergence_is_that_of_torch(temperature: float) -> None:
    student, teacher = random_pair(7, 4)
    divergence = functional.kl_div(
        functional.log_softmax(student / temperature, -1),
        functional.softmax(teacher / temperature, -1),
        reduction="batchmean",
    )
    found = softened_divergence(student, teacher, temperature)
    torch.testing.assert_close(found, divergence * temperature**2)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_gradient_is_the_difference_of_distributions(temperature: float) -> None:
    # Hinton et al. (2015), equation 2, times T^2, and for decisions its binary form.
    student, teacher = random_pair(5, 3)
    (gradient,) = torch.autograd.grad(softened_divergence(student, teacher, temperature), student)
    difference = (student / temperature).softmax(-1) - (teacher / temperature).softmax(-1)
    torch.testing.assert_close(gradient, difference * temperature / 5)
    loss = softened_cross_entropy(student, teacher, temperature)
    (gradient,) = torch.autograd.grad(loss, student)
    difference = (student / temperature).sigmoid() - (teacher / temperature).sigmoid()
    torch.testing.assert_close(gradient, difference * temperature / 15)


@pytest.mark.parametrize("loss", [softened_divergence, softened_cross_entropy])
def test_nothing_is_below_agreement(loss: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    student, teacher = random_pair(6, 3)
    same = loss(teacher, teacher, 2.0)
    assert loss(student, teacher, 2.0) > same
    if loss is softened_divergence:
        assert same == 0


def test_certain_teachers_give_finite_losses() -> None:
    student, teacher = torch.tensor([[-300.0, 300.0]]), torch.tensor([[300.0, -300.0]])
    assert softened_divergence(student, teacher, 1.0).item() == pytest.approx(600)
    assert softened_divergence(teacher, teacher, 1.0).item() == 0
    assert softened_cross_entropy(student, teacher, 1.0).item() == pytest.approx(300)


def test_half_precision_is_computed_in_full() -> None:
    student, teacher = (one.detach().bfloat16() for one in random_pair(4, 3))
    for loss in (softened_divergence, softened_cross_entropy):
        found = loss(student, teacher, 2.0)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, loss(student.float(), teacher.float(), 2.0))


def test_classes_diverge() -> None:
    student, teacher = random_pair(5, 3)
    task = Classification(labels=["a", "b", "c"], **COMMON)  # type: ignore[arg-type]
    found = task.distillation_loss(student, teacher, torch.zeros(5).long(), 2.0)
    assert torch.equal(found, softened_divergence(student, teacher, 2.0))


def test_sets_are_decided_one_by_one() -> None:
    student, teacher = random_pair(5, 3)
    task = MultiLabel(labels=["a", "b", "c"], **COMMON)  # type: ignore[arg-type]
    found = task.distillation_loss(student, teacher, torch.zeros(5, 3).long(), 2.0)
    assert torch.equal(found, softened_cross_entropy(student, teacher, 2.0))


def test_numbers_are_compared_on_the_scale_of_outputs_at_any_temperature() -> None:
    task = Regression(minimum=0, maximum=10, **COMMON)  # type: ignore[arg-type]
    student, teacher = torch.tensor([[0.5], [0.0]]), torch.tensor([[-0.5], [0.5]])
    for temperature in TEMPERATURES:
        found = task.distillation_loss(student, teacher, torch.zeros(2), temperature)
        assert found.item() == pytest.approx((1 + 0.25) / 2)


def test_tags_count_where_there_is_a_label() -> None:
    task = Tagging(labels=["a", "b", "c"], **COMMON)  # type: ignore[arg-type]
    student, teacher = random_pair(2, 4, 3)
    labels = torch.tensor([[IGNORED, 0, 2, IGNORED], [1, IGNORED, IGNORED, IGNORED]])
    found = task.distillation_loss(student, teacher, labels, 2.0)
    chosen = [(0, 1), (0, 2), (1, 0)]
    rows = [torch.stack([one[place] for place in chosen]) for one in (student, teacher)]
    torch.testing.assert_close(found, softened_divergence(rows[0], rows[1], 2.0))
    (gradient,) = torch.autograd.grad(found, student)
    assert not gradient[labels == IGNORED].any()
