"""The models that are compared: those asked for, and the dense model of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from multiprune.export.checkpoint import model_folder
from multiprune.export.loading import load
from multiprune.measure.cost import (
    bytes_on_disk,
    matrix_elements,
    multiply_adds,
    parameter_bytes,
    parameters,
    zeros,
)
from multiprune.measure.memory import peak_memory
from multiprune.measure.reference import Blueprint
from multiprune.models.encoder import Encoder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from transformers import PreTrainedModel

    from multiprune.measure.latency import Size


@dataclass(frozen=True)
class Contestant:
    """An encoder that takes part.

    Attributes:
        name: the path it was asked for by, or ``dense of`` the first that was pruned from it.
        dense: the name of its dense model; its own if it is one.
        folder: where it lies; a dense model lies nowhere.
    """

    name: str
    dense: str
    encoder: PreTrainedModel
    folder: Path | None


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What is counted of a contestant.

    Attributes:
        nonzero: parameters but for the zeros in matrices.
        bytes: of its weights on disk; of a dense model, what they would take.
        peak_bytes: at the largest size, by device.
        multiply_adds: one a size.
        zeros_in_dense_shapes: whether zeros, more than 1 % of its matrices, are all that was
            pruned.
    """

    model: str
    dense: str
    parameters: int
    nonzero: int
    bytes: int
    peak_bytes: dict[str, int | None]
    multiply_adds: dict[Size, int]
    zeros_in_dense_shapes: bool


def contestants(paths: Sequence[Path], sizes: Sequence[Size]) -> list[Contestant]:
    """Load the models at ``paths``; return them, each configuration's dense model before them.

    Raises:
        ValueError: if a size is longer than a model has positions for.
    """
    found: list[Contestant] = []
    known: list[tuple[Blueprint, str]] = []
    for path in paths:
        folder = model_folder(path)
        encoder = _encoder(folder, sizes)
        blueprint = Blueprint.of(encoder).dense()
        dense = next((name for one, name in known if one == blueprint), f"dense of {path}")
        if (blueprint, dense) not in known:
            known.append((blueprint, dense))
            found.append(Contestant(dense, dense, blueprint.build(), None))
        found.append(Contestant(str(path), dense, encoder, folder))
    return sorted(found, key=lambda one: one.folder is not None)


def cost_of(
    one: Contestant, dense: PreTrainedModel, sizes: Sequence[Size], devices: Sequence[str]
) -> Cost:
    """Count what a contestant takes, and measure its memory at the largest batch and length."""
    encoder, zero = one.encoder, zeros(one.encoder)
    batch, length = max(size.batch for size in sizes), max(size.length for size in sizes)
    blueprint = Blueprint.of(encoder)
    return Cost(
        model=one.name,
        dense=one.dense,
        parameters=parameters(encoder),
        nonzero=parameters(encoder) - zero,
        bytes=parameter_bytes(encoder) if one.folder is None else bytes_on_disk(one.folder),
        peak_bytes={device: peak_memory(blueprint, batch, length, device) for device in devices},
        multiply_adds={size: multiply_adds(encoder, size.batch, size.length) for size in sizes},
        zeros_in_dense_shapes=zero > 0.01 * matrix_elements(encoder)
        and _shapes(encoder) == _shapes(dense),
    )


def _encoder(folder: Path, sizes: Sequence[Size]) -> PreTrainedModel:
    shipped = load(folder)
    longest = Encoder(shipped.encoder, shipped.tokenizer).max_length
    for size in sizes:
        if size.length > longest:
            raise ValueError(
                f"`lengths` must be at most {longest}, for which {folder} has positions, but one "
                f"is {size.length}."
            )
    return shipped.encoder


def _shapes(encoder: PreTrainedModel) -> dict[str, tuple[int, ...]]:
    return {name: tuple(one.shape) for name, one in encoder.named_parameters()}
