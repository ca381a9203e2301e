from typing import Any

import pytest
import torch
from torch import Tensor

from multiprune.data.collate import collate
from multiprune.data.source import HubSource
from multiprune.metrics import Accuracy
from multiprune.models.from_scratch import from_scratch
from multiprune.models.multitask import MultitaskModel
from multiprune.tasks.classification import Classification
from multiprune.tasks.tagging import Tagging
from multiprune.tasks.task import Batch, Task

COMMON: dict[str, Any] = {
    "text": ["sentence"],
    "label": "label",
    "metrics": {"accuracy": Accuracy()},
    "source": HubSource(path=None, mirror="nowhere"),
}
TASKS: dict[str, Task] = {
    "classes": Classification(labels=["a", "b", "c"], **COMMON),
    "more_classes": Classification(labels=["a", "b"], **COMMON),
    "tags": Tagging(labels=["a", "b", "c", "d"], **COMMON),
}


@pytest.fixture
def model() -> MultitaskModel:
    torch.manual_seed(0)
    encoder = from_scratch(layers=2, hidden=16, heads=2, intermediate=32)
    return MultitaskModel(encoder.model, TASKS).eval()


def batch(name: str, lengths: list[int]) -> Batch:
    """Make sequences of these lengths, of which each starts like the longest."""
    tokens = [list(range(40, 40 + length)) for length in lengths]
    labels: list[Any] = (
        [[0] * length for length in lengths] if name == "tags" else [0] * len(lengths)
    )
    columns = {"input_ids": tokens, "labels": labels}
    return collate(name, TASKS[name], columns, padding_token=0)


@torch.no_grad()
def logits(model: MultitaskModel, name: str, lengths: list[int]) -> Tensor:
    found: Tensor = model(batch(name, lengths))
    return found


def test_no_task_is_refused() -> None:
    encoder = from_scratch(layers=1, hidden=8, heads=2, intermediate=8)
    with pytest.raises(ValueError, match="No tasks were given"):
        MultitaskModel(encoder.model, {})


def test_logits_have_the_shape_of_the_task(model: MultitaskModel) -> None:
    assert logits(model, "classes", [3, 5]).shape == (2, 3)
    assert logits(model, "more_classes", [3, 5]).shape == (2, 2)
    assert logits(model, "tags", [3, 5]).shape == (2, 5, 4)


def test_padding_does_not_change_the_logits_of_a_sequence(model: MultitaskModel) -> None:
    alone, padded = logits(model, "classes", [4]), logits(model, "classes", [4, 19])
    torch.testing.assert_close(padded[:1], alone, rtol=0, atol=1e-6)
    assert not torch.allclose(padded[1], alone[0])


def test_padding_does_not_change_the_logits_of_tokens(model: MultitaskModel) -> None:
    alone, padded = logits(model, "tags", [4]), logits(model, "tags", [4, 19])
    torch.testing.assert_close(padded[:1, :4], alone, rtol=0, atol=1e-6)


def test_gradients_reach_the_encoder_and_the_head_of_the_batch_only(model: MultitaskModel) -> None:
    model(batch("classes", [3, 5])).sum().backward()
    with_gradient = {name for name, one in model.named_parameters() if one.grad is not None}
    heads = {name for name in with_gradient if name.startswith("heads.")}
    assert heads == {"heads.classes.output.weight", "heads.classes.output.bias"}
    assert with_gradient - heads == {
        name for name, _ in model.named_parameters() if name.startswith("encoder.")
    }
