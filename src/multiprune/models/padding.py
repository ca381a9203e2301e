"""Tell transformers whether a batch has padding, to avoid a device sync in each pass."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor
    from transformers import PreTrainedModel

_ATTENTION = ("sdpa", "eager")


@contextmanager
def padding_is_known(encoder: PreTrainedModel, *, is_padded: bool | None) -> Iterator[None]:
    """Have masks of attention made, or left out, without a look at the tokens of a batch.

    What is computed stays the same. Where a batch has no padding, transformers leaves the mask out,
    so that attention may be faster; it waits for the device to see that. None says that it is not
    known. Compiled encoders always make masks.
    """
    if is_padded is None or encoder._compiled_call_impl is not None:
        yield
        return

    def known(make: Any) -> Any:
        def mask(*args: Any, **kwargs: Any) -> Tensor | None:
            if is_padded:
                kwargs |= {"allow_is_bidirectional_skip": False, "allow_is_causal_skip": False}
            else:
                kwargs["attention_mask"] = None
            made: Tensor | None = make(*args, **kwargs)
            return made

        return mask

    before = {name: ALL_MASK_ATTENTION_FUNCTIONS[name] for name in _ATTENTION}
    for name, make in before.items():
        ALL_MASK_ATTENTION_FUNCTIONS[name] = known(make)
    try:
        yield
    finally:
        for name, make in before.items():
            ALL_MASK_ATTENTION_FUNCTIONS[name] = make
