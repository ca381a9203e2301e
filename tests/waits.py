"""What would make the processor wait for a device, found on the CPU, where nothing has to wait.

A tensor counts as the device's if it is of the model or of a batch, or was computed from such.
Who reads its values, or needs them for a shape, waits for all that the device has to do before.
"""

from __future__ import annotations

import traceback
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

# Operators whose result, or its shape, is on the processor.
_READERS = frozenset(
    [
        *("_local_scalar_dense", "equal", "nonzero", "masked_select", "bincount"),
        *("_unique2", "unique_dim", "unique_consecutive", "is_nonzero"),
        *("_linalg_svd", "_linalg_eigh", "linalg_qr", "_linalg_solve_ex", "linalg_inv_ex"),
    ]
)
# Methods that reach the values past all operators.
_METHODS = ("tolist", "numpy", "__array__")


class Waits(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes, while it is entered, each place that reads what a device has yet to compute."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        #: What was read, and by which lines of code, the innermost last.
        self.found: list[str] = []
        self._ours: dict[int, StorageWeakRef] = {}
        self._patches = ExitStack()

    def claim(self, tensors: Iterable[Tensor]) -> None:
        """Take tensors for those of the device."""
        for tensor in tensors:
            # A weak reference: its place in memory is not used again.
            storage = StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]
            self._ours[storage.cdata] = storage

    def holds(self, tensor: Any) -> bool:
        """Whether a tensor is of the device."""
        return isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata in self._ours

    @override
    def __enter__(self) -> Waits:
        for name in _METHODS:
            original = getattr(Tensor, name)
            self._patches.enter_context(patch.object(Tensor, name, self._noted(name, original)))
        for name in ("cpu", "to"):
            original = getattr(Tensor, name)
            self._patches.enter_context(patch.object(Tensor, name, self._fetched(original)))
        self._patches.enter_context(patch.object(torch, "tensor", self._sent(torch.tensor)))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    @override
    def __exit__(self, *args: Any) -> None:
        super().__exit__(*args)  # type: ignore[no-untyped-call]
        self._patches.close()

    @override
    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        given = [one for one in tree_leaves((args, kwargs or {})) if isinstance(one, Tensor)]
        held = [one for one in given if self.holds(one)]
        name = func.overloadpacket.__name__
        reads = name in _READERS or _picks_by_mask(name, args) or _repeats(name, args, kwargs)
        if held and reads:
            self._note(name)
        made = func(*args, **(kwargs or {}))
        if held:
            self.claim(one for one in tree_leaves(made) if isinstance(one, Tensor))
        return made

    def _noted(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def method(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
            if self.holds(tensor):
                self._note(name)
            return original(tensor, *args, **kwargs)

        return method

    def _fetched(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def method(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
            if not self.holds(tensor) or "cpu" not in (original.__name__, *args):
                return original(tensor, *args, **kwargs)
            if not kwargs.get("non_blocking"):
                self._note("cpu")
            with no_dispatch():
                return tensor.detach().clone()

        return method

    def _sent(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def function(*args: Any, device: Any = None, **kwargs: Any) -> Tensor:
            if device is not None:
                self._note("tensor")
            made: Tensor = original(*args, device=device, **kwargs)
            return made

        return function

    def _note(self, name: str) -> None:
        lines = [
            f"{frame.filename.rpartition('site-packages/')[2]}:{frame.lineno}"
            for frame in traceback.extract_stack()
            if "/torch/" not in frame.filename and not frame.filename.endswith("waits.py")
        ]
        self.found.append(f"{name} ({' < '.join(lines[:-7:-1])})")


def _picks_by_mask(name: str, args: Any) -> bool:
    """Whether an operator picks those places that a mask names: as many as it has."""
    if name not in ("index", "index_put", "index_put_", "_index_put_impl_"):
        return False
    masks = (torch.bool, torch.uint8)
    return any(isinstance(one, Tensor) and one.dtype in masks for one in args[1])


def _repeats(name: str, args: Any, kwargs: Any) -> bool:
    """Whether an operator repeats elements as often as a tensor says."""
    counts = args[1] if len(args) > 1 else args[0] if args else None
    return (
        name == "repeat_interleave"
        and isinstance(counts, Tensor)
        and not (kwargs or {}).get("output_size")
    )
