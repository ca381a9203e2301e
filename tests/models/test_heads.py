from typing import Any

import pytest
import torch
from torch import tensor

from multiprune.data.source import HubSource
from multiprune.metrics import Accuracy
from multiprune.models.from_scratch import from_scratch
from multiprune.tasks.classification import Classification, Regression
from multiprune.tasks.outputs.heads import SequenceHead, TokenHead, mean_of_tokens
from multiprune.tasks.tagging import Tagging
from multiprune.tasks.task import Task

COMMON: dict[str, Any] = {
    "text": ["sentence"],
    "label": "label",
    "metrics": {"accuracy": Accuracy()},
    "source": HubSource(path=None, mirror="nowhere"),
}
STATES = tensor([[[1.0, 2.0], [3.0, 6.0], [100.0, 100.0]], [[1.0, 0.0], [2.0, 0.0], [6.0, 3.0]]])
MASK = tensor([[1, 1, 0], [1, 1, 1]])


def test_mean_of_tokens_ignores_padding() -> None:
    assert mean_of_tokens(STATES, MASK).tolist() == [[2.0, 4.0], [3.0, 1.0]]


def test_mean_of_no_tokens_is_0() -> None:
    assert mean_of_tokens(STATES[:1], tensor([[0, 0, 0]])).tolist() == [[0.0, 0.0]]


def test_mean_of_tokens_keeps_the_precision_of_the_states() -> None:
    assert mean_of_tokens(STATES.bfloat16(), MASK).dtype == torch.bfloat16


def test_sequence_head_maps_the_mean_of_the_tokens() -> None:
    head = SequenceHead(2, 1, dropout=0.5).eval()
    head.output.weight.data = tensor([[10.0, -1.0]])
    head.output.bias.data = tensor([0.5])
    assert head(STATES, MASK).tolist() == [[20 - 4 + 0.5], [30 - 1 + 0.5]]


def test_token_head_maps_each_token() -> None:
    head = TokenHead(2, 1, dropout=0.5).eval()
    head.output.weight.data = tensor([[10.0, -1.0]])
    head.output.bias.data = tensor([0.5])
    assert head(STATES, MASK)[1].tolist() == [[10.5], [20.5], [57.5]]
    assert head(STATES, MASK).shape == (2, 3, 1)


@pytest.mark.parametrize(
    ("task", "kind", "outputs"),
    [
        (Classification(labels=["a", "b", "c"], **COMMON), SequenceHead, 3),
        (Regression(minimum=0, maximum=1, **COMMON), SequenceHead, 1),
        (Tagging(labels=["a", "b", "c", "d"], **COMMON), TokenHead, 4),
    ],
    ids=["classes", "number", "tags"],
)
def test_head_fits_the_task(task: Task, kind: type, outputs: int) -> None:
    encoder = from_scratch(layers=1, hidden=8, heads=2, intermediate=8).model
    head = task.output.head(encoder)
    assert type(head) is kind
    assert head.get_parameter("output.weight").shape == (outputs, 8)


def test_dropout_is_off_in_evaluation_only() -> None:
    head = SequenceHead(64, 2, dropout=0.5)
    states, mask = torch.ones(1, 1, 64), tensor([[1]])
    assert not torch.equal(head(states, mask), head(states, mask))
    head.eval()
    assert torch.equal(head(states, mask), head(states, mask))
