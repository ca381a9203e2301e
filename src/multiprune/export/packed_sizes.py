"""Disk size of packed models, compared with separate ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from safetensors.torch import save

from multiprune.budget.ledger import owned_parameters
from multiprune.export.bitmask import compress
from multiprune.export.card import table
from multiprune.export.checkpoint import HEADS, SHARED_WEIGHTS
from multiprune.export.packed import MASKS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import nn

    from multiprune.export.packed import Kept
    from multiprune.export.shipped import ShippedModel


@dataclass(frozen=True)
class Apart:
    """The bytes of one model by itself; those of its heads are in all of them.

    Attributes:
        bitmask: exported without zeros.
        dense: all its weights.
        heads: by task.
    """

    bitmask: int
    dense: int
    heads: dict[str, int]

    @classmethod
    def of(cls, model: ShippedModel) -> Apart:
        """Measure a model."""
        weights = model.encoder.state_dict()
        heads = {task: _bytes(head) for task, head in model.heads.items()}
        stored, metadata = compress(weights)
        return cls(
            bitmask=len(save(stored, metadata)) + sum(heads.values()),
            dense=_bytes(model.encoder) + sum(heads.values()),
            heads=heads,
        )


def size_tables(
    folder: Path,
    encoder: nn.Module,
    models: Sequence[Kept],
    mask_bytes: Sequence[int],
    apart: Sequence[Apart],
) -> str:
    """Return tables in Markdown of what lies in ``folder``, by task and together.

    ``encoder`` has all shared weights; ``models``, ``mask_bytes`` and ``apart`` belong together.
    """
    rows = []
    for model, size, alone in zip(models, mask_bytes, apart, strict=True):
        density = f"{linear_density(encoder, model):.4f}"
        first, *_ = model.tasks
        for task in model.tasks:
            mask = f"{size:,}" if task == first else f"that of {first}"
            rows.append([task, density, mask, f"{alone.heads[task]:,}"])
    files = {name: (folder / name).stat().st_size for name in (SHARED_WEIGHTS, MASKS, HEADS)}
    number = len(models)
    total = {name: f"{size:,}" for name, size in files.items()} | {
        "together": f"{sum(files.values()):,}",
        f"{number} exports with `--storage bitmask`": f"{sum(one.bitmask for one in apart):,}",
        f"{number} dense models": f"{sum(one.dense for one in apart):,}",
    }
    by_task = table(["task", "density", "bytes of mask", "bytes of head"], rows)
    return f"{by_task}\n{table(['', 'bytes'], [list(row) for row in total.items()])}"


def linear_density(encoder: nn.Module, model: Kept) -> float:
    """Return what a model keeps of the weights of the encoder's linear layers, as a fraction."""
    linear = [one.path for one in owned_parameters(encoder) if one.part == "encoder_linear"]
    kept = sum(int(model.masks[path].unpacked().sum()) for path in linear)
    return kept / sum(model.masks[path].size for path in linear)


def _bytes(module: nn.Module) -> int:
    return sum(one.nbytes for one in module.state_dict().values())
