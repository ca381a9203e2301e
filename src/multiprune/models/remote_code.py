"""Models that are published with their own code, which is run only where that is allowed."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from multiprune.models.modeling_multiprune import KEY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PretrainedConfig


@contextmanager
def refused(source: str, allowed_by: str) -> Iterator[None]:
    """Say in one sentence that ``source`` needs its own code, and which key allows it.

    Raises:
        ValueError: if that code would have had to be run.
    """
    try:
        yield
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise ValueError(
            f"{source} is loaded by code of its own, which is not run; {allowed_by} allows it."
        ) from error


def register_code(config: PretrainedConfig, source: str) -> None:
    """Let the model of a configuration be the class in ``source`` that it names, if it does."""
    from transformers import AutoModel
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    named = getattr(config, "auto_map", None) or {}
    # What is named in an exported folder is what this package has, too.
    if "AutoModel" in named and not hasattr(config, KEY):
        kind: Any = get_class_from_dynamic_module(named["AutoModel"], source)
        kind.register_for_auto_class("AutoModel")
        AutoModel.register(type(config), kind, exist_ok=True)
