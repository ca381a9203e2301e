from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn
from waits import Waits

from multiprune.pruning.known_value import KnownValue

if TYPE_CHECKING:
    from collections.abc import Callable


def reads(known: KnownValue, tensor: Tensor) -> int:
    """Return how often the tensor is read to learn its value, which must be right."""
    waits = Waits()
    waits.claim([tensor])
    with waits:
        found = known.of(tensor)
    assert found == tensor.item()
    return len(waits.found)


def test_a_value_is_read_once() -> None:
    known, tensor = KnownValue(), torch.tensor(3.0)
    assert [reads(known, tensor) for _ in range(3)] == [1, 0, 0]


def test_a_value_that_is_noted_is_not_read() -> None:
    known, tensor = KnownValue(), torch.tensor(3.0)
    known.note(tensor.add_(1), 4.0)
    assert reads(known, tensor) == 0


def loaded(tensor: Tensor) -> None:
    module = nn.Module()
    module.register_buffer("value", tensor)
    module.load_state_dict({"value": torch.tensor(9.0)})


@pytest.mark.parametrize(
    "write", [loaded, lambda x: x.fill_(8), lambda x: torch._foreach_add_([x], 1), Tensor.zero_]
)
def test_a_value_that_somebody_wrote_is_read_again(write: Callable[[Tensor], object]) -> None:
    known, tensor = KnownValue(), torch.tensor(3.0)
    known.of(tensor)
    write(tensor)
    assert [reads(known, tensor) for _ in range(2)] == [1, 0]


def test_a_value_of_another_tensor_is_read() -> None:
    known, tensor = KnownValue(), torch.tensor(3.0)
    known.of(tensor)
    assert reads(known, torch.tensor(4.0)) == 1


def test_a_copy_knows_the_value_of_what_was_copied_with_it() -> None:
    known, tensor = KnownValue(), torch.tensor(3.0)
    known.of(tensor.add_(1))
    copied, its = copy.deepcopy((known, tensor))
    its.add_(1)
    assert (copied.of(its), known.of(tensor)) == (5, 4)
