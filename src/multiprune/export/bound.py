"""A bound on how large a model ``config.json`` of somebody else's folder can make."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch.nn.modules.module import register_module_parameter_registration_hook

from multiprune.models.modeling_multiprune import KEY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# A model that was cut is built dense, and its layers are replaced by smaller ones.
_REPLACED, _DROPPED_LAYER, _FEW = 4, 64, 500


@contextmanager
def bounded(config: Any, stored: int, file: Path) -> Iterator[None]:
    """Stop building a model that has far more parameters than ``file`` has tensors, ``stored``.

    Raises:
        ValueError: if it has.
    """
    dropped = (getattr(config, KEY, None) or {}).get("dropped") or ()
    most = _REPLACED * stored + _FEW
    # Layers without a tensor.
    most += _DROPPED_LAYER * min(len(dropped), most)
    built = 0

    def count(module: Any, name: str, parameter: Any) -> None:  # noqa: ARG001
        nonlocal built
        built += 1
        if built > most:
            raise ValueError(
                f"config.json asks for far more layers than {file.name} has tensors for, which are "
                f"{stored:,}."
            )

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()
