"""Refuse models that need their own code, unless that is allowed."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

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


def check_attention(config: PretrainedConfig | None, source: str) -> None:
    """Refuse a configuration that has attention computed by a kernel, which is code of the hub.

    Raises:
        ValueError: if it names one.
    """
    named = getattr(config, "_attn_implementation", None)
    if isinstance(named, str) and "/" in named:
        raise ValueError(
            f"{source} asks for attention by code of {named}, which is not run: remove "
            "`attn_implementation` from its config.json."
        )


def check_shards(folder: Path) -> None:
    """Refuse an index of weights that names files outside of its folder.

    Raises:
        ValueError: if an index does, or is no index.
    """
    for file in sorted(folder.glob("*.index.json")):
        try:
            shards = {*json.loads(file.read_text())["weight_map"].values()}
        except (ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
            raise ValueError(
                f"{file} must map weights to files in its `weight_map`, but does not."
            ) from error
        if outside := sorted(str(name) for name in shards if Path(str(name)).name != name):
            raise ValueError(
                f"{file} must name files in its own folder, but names {outside[0]}, which is not "
                "read."
            )
