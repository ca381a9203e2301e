"""What the tests of waiting rest on: that all is noticed which reads what a device computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from waits import Waits

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

READERS: dict[str, Callable[[Tensor], object]] = {
    "item": lambda x: x[0, 0].item(),
    "bool": lambda x: bool(x.isfinite().all()),
    "if": lambda x: 1 if x[0, 0] else 2,
    "float": lambda x: float(x.sum()),
    "int": lambda x: int(x.count_nonzero()),
    "index": lambda x: [1, 2, 3, 4, 5][x.argmax()],
    "tolist": lambda x: x.tolist(),
    "numpy": lambda x: x.numpy(),
    "array": lambda x: np.asarray(x),
    "cpu": lambda x: x.cpu(),
    "to cpu": lambda x: x.to("cpu"),
    "nonzero": lambda x: x.nonzero(),
    "mask": lambda x: x[x > 0],
    "write by mask": lambda x: x.index_put_((x > 0,), torch.ones(())),
    "unique": torch.unique,
    "equal": lambda x: torch.equal(x, x + 1),
    "repeat": lambda x: x[0].repeat_interleave(x[0].long()),
    "singular values": lambda x: torch.linalg.svd(x),
    "sent and waited for": lambda _: torch.tensor([1.0], device="cpu"),
}
OTHERS: dict[str, Callable[[Tensor], object]] = {
    "arithmetic": lambda x: (x @ x.T).softmax(-1).masked_fill(x.sum() > 0, 0.0).clamp(min=1),
    "shape": lambda x: (len(x), x.shape, x.numel()),
    "places": lambda x: x[torch.arange(2), x.argmax(1)],
    "clipping": lambda x: torch.nn.utils.clip_grads_with_norm_([x], 1.0, x.norm()),
    "arrived": lambda x: x.to("cpu", non_blocking=True).tolist(),
    "of the processor": lambda _: torch.arange(3).tolist(),
}


def found(read: Callable[[Tensor], object]) -> list[str]:
    tensor, waits = torch.tensor([[1.0, 2.0], [3.0, 0.0]]), Waits()
    waits.claim([tensor])
    with waits:
        read(tensor * 2)
    return waits.found


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_reading_is_noticed(read: Callable[[Tensor], object]) -> None:
    assert len(found(read)) >= 1


@pytest.mark.parametrize("read", OTHERS.values(), ids=OTHERS)
def test_what_waits_for_nothing_is_none(read: Callable[[Tensor], object]) -> None:
    assert found(read) == []


def test_reading_in_backward_is_noticed() -> None:
    class Read(torch.autograd.Function):
        @staticmethod
        def forward(_: object, x: Tensor) -> Tensor:
            return x * 2

        @staticmethod
        def backward(_: object, gradient: Tensor) -> Tensor:
            return gradient * gradient.sum().item()

    weight, waits = torch.ones(2, requires_grad=True), Waits()
    waits.claim([weight])
    with waits:
        Read.apply(weight).sum().backward()  # type: ignore[no-untyped-call]
    assert len(waits.found) == 1
