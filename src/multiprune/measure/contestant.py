"""The models of a benchmark: those requested, and the dense model of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from multiprune.export.checkpoint import model_folder
from multiprune.export.loading import load
from multiprune.export.onnx import FILE
from multiprune.export.text_to_text import check_is_encoder
from multiprune.measure.cost import (
    bytes_on_disk,
    multiply_adds,
    parameter_bytes,
    parameters,
    weight_bytes,
    without_embeddings,
    zeros,
)
from multiprune.measure.memory import peak_memory
from multiprune.measure.onnx_encoder import OnnxEncoder
from multiprune.measure.reference import Blueprint
from multiprune.models.encoder import Encoder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

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
    encoder: Encoder
    folder: Path | None


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What is counted of a contestant.

    Attributes:
        without_embeddings: parameters but for the embeddings, of words or positions.
        nonzero: parameters but for the zeros in matrices.
        bytes: of its weights on disk; of a dense model, what they would take.
        weight_bytes: of the weights that each forward pass reads, so of no embeddings.
        peak_bytes: at the largest size, by device.
        multiply_adds: one a size.
    """

    model: str
    dense: str
    parameters: int
    without_embeddings: int
    nonzero: int
    bytes: int
    weight_bytes: int
    peak_bytes: dict[str, int | None]
    multiply_adds: dict[Size, int]

    @property
    def zero_fraction(self) -> float:
        """Zeros in matrices as a fraction of the parameters."""
        return 1 - self.nonzero / self.parameters


def contestants(paths: Sequence[Path], sizes: Sequence[Size]) -> list[Contestant]:
    """Load the models at ``paths``; return them, each configuration's dense model before them.

    Raises:
        ValueError: if a size is longer than a model has positions for.
    """
    found: list[Contestant] = []
    known: list[tuple[Blueprint, str]] = []
    for path in paths:
        folder = path if (path / FILE).is_file() else model_folder(path)
        encoder = _encoder(folder, sizes)
        blueprint = Blueprint.of(encoder.model).dense()
        dense = next((name for one, name in known if one == blueprint), f"dense of {path}")
        if (blueprint, dense) not in known:
            known.append((blueprint, dense))
            reference = Encoder(blueprint.build(), encoder.tokenizer)
            found.append(Contestant(dense, dense, reference, None))
        found.append(Contestant(str(path), dense, encoder, folder))
    return sorted(found, key=lambda one: one.folder is not None)


def cost_of(one: Contestant, sizes: Sequence[Size], devices: Sequence[str]) -> Cost:
    """Count what a contestant takes, and measure its memory at the largest batch and length."""
    encoder = one.encoder.model
    file = one.encoder if isinstance(one.encoder, OnnxEncoder) else None
    batch, length = max(size.batch for size in sizes), max(size.length for size in sizes)
    blueprint = Blueprint.of(encoder)
    return Cost(
        model=one.name,
        dense=one.dense,
        parameters=parameters(encoder),
        without_embeddings=without_embeddings(encoder),
        nonzero=parameters(encoder) - (file.zeros() if file else zeros(encoder)),
        bytes=parameter_bytes(encoder) if one.folder is None else bytes_on_disk(one.folder),
        weight_bytes=file.weight_bytes() if file else weight_bytes(encoder),
        peak_bytes={
            device: None if file else peak_memory(blueprint, batch, length, device)
            for device in devices
        },
        multiply_adds={size: multiply_adds(encoder, size.batch, size.length) for size in sizes},
    )


def _encoder(folder: Path, sizes: Sequence[Size]) -> Encoder:
    if (folder / FILE).is_file():
        encoder: Encoder = OnnxEncoder.from_folder(folder)
    else:
        shipped = load(folder)
        check_is_encoder(shipped, "What is benchmarked")
        encoder = Encoder(shipped.encoder, shipped.tokenizer)
    for size in sizes:
        if size.length > encoder.max_length:
            raise ValueError(
                f"`lengths` must be at most {encoder.max_length}, for which {folder} has "
                f"positions, but one is {size.length}."
            )
    return encoder
