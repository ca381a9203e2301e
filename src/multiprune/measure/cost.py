"""Multiply-adds, parameters, zeros and bytes of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from multiprune.budget.ledger import ParameterLedger, owned_parameters
from multiprune.export.checkpoint import BITMASK_WEIGHTS, WEIGHTS
from multiprune.export.onnx import FILE as ONNX

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn
    from transformers import PretrainedConfig, PreTrainedModel


def tokens(config: PretrainedConfig, batch: int, length: int) -> dict[str, Tensor]:
    """Return what an encoder reads: random tokens without padding, shape (batch, length)."""
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(config.vocab_size, (batch, length), generator=draw)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


@torch.no_grad()
def multiply_adds(encoder: PreTrainedModel, batch: int, length: int) -> int:
    """Count the multiplications of linear layers and of both products of attention.

    One forward pass is run. Norms, activations, softmax and look-ups are not counted.
    """
    # torch knows the kernels of CUDA; that of the CPU has another name.
    kernels = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}
    with FlopCounterMode(display=False, custom_mapping=kernels) as counter:
        encoder(**tokens(encoder.config, batch, length))
    return int(counter.get_total_flops()) // 2


def parameters(module: nn.Module) -> int:
    """Count parameters; one that is shared counts once."""
    return sum(one.numel() for one in module.parameters())


def without_embeddings(module: nn.Module) -> int:
    """Count the parameters that are not embeddings, which a forward pass only looks up."""
    return parameters(module) - ParameterLedger.of(module).dense["embeddings"]


def zeros(module: nn.Module) -> int:
    """Count the elements of matrices that are exactly zero."""
    matrices = [one for one in module.parameters() if one.ndim > 1]
    return sum(one.numel() - int(one.count_nonzero()) for one in matrices)


def parameter_bytes(module: nn.Module) -> int:
    """Return the bytes that parameters take, stored densely."""
    return sum(one.numel() * one.element_size() for one in module.parameters())


def weight_bytes(module: nn.Module) -> int:
    """Return the bytes of the parameters that each forward pass reads: no embeddings."""
    read = (one.parameter for one in owned_parameters(module) if one.part != "embeddings")
    return sum(one.numel() * one.element_size() for one in read)


def bytes_on_disk(folder: Path) -> int:
    """Return the size of the file with a shipped encoder's weights."""
    if (folder / ONNX).is_file():
        # Beside a large file lies another with its weights.
        return sum(file.stat().st_size for file in folder.glob(f"{ONNX}*"))
    for name in (WEIGHTS, BITMASK_WEIGHTS):
        if (folder / name).is_file():
            return (folder / name).stat().st_size
    raise FileNotFoundError(f"{folder} has no weights, neither {WEIGHTS} nor {BITMASK_WEIGHTS}.")


def _attention(query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]
