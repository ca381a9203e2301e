"""An upper bound on the model size that an untrusted ``config.json`` can request."""

from __future__ import annotations

import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from torch.nn.modules.module import register_module_parameter_registration_hook

from multiprune.models.modeling_multiprune import KEY
from multiprune.runs.schema import check_schema, read_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

# A model that was cut is built dense, and its layers are replaced by smaller ones.
_REPLACED, _DROPPED_LAYER, _FEW = 4, 64, 500

# Of a head or another part that a file does not have, which is for others to refuse.
_MORE, _FEW_ELEMENTS = 2, 2**20

# What transformers looks for, in this order.
_FILES = (
    *("model.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "pytorch_model.bin.index.json"),
)


class TooLargeError(ValueError):
    """What ``config.json`` asks for is far larger than its weights."""


@dataclass(frozen=True)
class Stored:
    """What the header of a file of weights says: how many tensors, of how many elements."""

    file: Path
    tensors: int
    elements: int


def stored_in(source: str) -> Stored | None:
    """Return what a folder, or a model of the hub, holds; None if no header says so."""
    from transformers.utils.hub import cached_file

    quiet = dict.fromkeys(
        (f"_raise_exceptions_for_{what}" for what in ("missing_entries", "connection_errors")),
        False,
    )
    for name in _FILES:
        if (found := cached_file(source, name, **quiet)) is not None:
            return _header(source, Path(found))
    return None


def check_fits(build: Callable[[], nn.Module], config: Any, stored: Stored) -> None:
    """Refuse a model that is far larger than its file before any memory is taken.

    Raises:
        TooLargeError: if it is.
    """
    try:
        with torch.device("meta"), bounded(config, stored.tensors, stored.file):
            outline = build()
    except (TooLargeError, MemoryError):
        raise
    except Exception:
        # What cannot be built at all is for whoever builds it.
        return
    asked = sum(one.numel() for one in outline.parameters())
    if asked > _MORE * stored.elements + _FEW_ELEMENTS:
        raise TooLargeError(
            f"config.json asks for {asked:,} parameters, far more than {stored.file.name} holds, "
            f"which are {stored.elements:,}."
        )


def _header(source: str, file: Path) -> Stored | None:
    if file.suffix == ".json":
        return _headers(source, file)
    if file.suffix == ".safetensors":
        with safe_open(file, "pt") as opened:
            sizes = [prod(opened.get_slice(name).get_shape()) for name in opened.keys()]  # noqa: SIM118
        return Stored(file, len(sizes), sum(sizes))
    # A pickle of torch keeps its tensors as files of an archive; those of before 2020 do not.
    if not zipfile.is_zipfile(file):
        return None
    with zipfile.ZipFile(file) as archive:
        sizes = [one.file_size for one in archive.infolist() if "/data/" in one.filename]
    return Stored(file, len(sizes), sum(sizes))


def _headers(source: str, index: Path) -> Stored | None:
    """Return what the files hold that an index names."""
    from transformers.utils.hub import cached_file

    content = read_json(index)
    check_schema(dict[str, Any], content, name=index.name)
    check_schema(dict[str, str], named := content.get("weight_map"), name=index.name)
    files = [cached_file(source, name) for name in {*named.values()}]
    parts = [None if file is None else _header(source, Path(file)) for file in files]
    known = [one for one in parts if one is not None]
    if len(known) < len(parts):
        return None
    return Stored(index, sum(one.tensors for one in known), sum(one.elements for one in known))


@contextmanager
def bounded(config: Any, stored: int, file: Path) -> Iterator[None]:
    """Stop building a model that has far more parameters than ``file`` has tensors, ``stored``.

    Raises:
        TooLargeError: if it has.
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
            raise TooLargeError(
                f"config.json asks for far more layers than {file.name} has tensors for, which are "
                f"{stored:,}."
            )

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()
