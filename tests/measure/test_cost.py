from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file
from shipped import HEADS, HIDDEN, LAYERS, NEURON_COUNT, cut, dense, low_rank
from torch import nn
from transformers import DistilBertConfig, DistilBertModel

from multiprune.measure.cost import (
    bytes_on_disk,
    multiply_adds,
    parameter_bytes,
    parameters,
    tokens,
    zeros,
)

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel

BATCH, LENGTH = 3, 7


def by_hand(hidden: int, attention: int, neurons: int) -> int:
    """Count a layer: four linear layers of attention, two products, two of the neurons."""
    linear = 4 * hidden * attention + 2 * hidden * neurons
    return BATCH * LENGTH * (linear + 2 * LENGTH * attention)


def by_hooks(encoder: PreTrainedModel) -> int:
    """Count the multiplications of linear layers by the shapes that go in and out."""
    counts: list[int] = []

    def count(module: nn.Linear, _: Any, output: torch.Tensor) -> None:
        counts.append(output.numel() * module.in_features)

    for module in encoder.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(count)
    encoder(**tokens(encoder.config, BATCH, LENGTH))
    return sum(counts)


def test_dense_encoder_costs_what_a_count_by_hand_gives() -> None:
    expected = LAYERS * by_hand(HIDDEN, HIDDEN, NEURON_COUNT)
    assert multiply_adds(dense(), BATCH, LENGTH) == expected


def test_cut_encoder_costs_what_is_left() -> None:
    expected = LAYERS * by_hand(HIDDEN, HIDDEN // 2, NEURON_COUNT // 4)
    assert multiply_adds(cut(), BATCH, LENGTH) == expected


def test_product_of_two_costs_both() -> None:
    rank = 3
    saved = 2 * HIDDEN * NEURON_COUNT - 2 * rank * (HIDDEN + NEURON_COUNT)
    expected = multiply_adds(dense(), BATCH, LENGTH) - BATCH * LENGTH * saved
    assert multiply_adds(low_rank(rank), BATCH, LENGTH) == expected


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_attention_counts_whatever_computes_it(attention: str) -> None:
    encoder = dense()
    encoder.set_attn_implementation(attention)
    products = LAYERS * HEADS * 2 * BATCH * LENGTH * LENGTH * (HIDDEN // HEADS)
    assert multiply_adds(encoder, BATCH, LENGTH) == by_hooks(encoder) + products


def test_another_architecture_costs_what_a_count_by_hand_gives() -> None:
    config = DistilBertConfig(vocab_size=50, n_layers=1, dim=16, n_heads=2, hidden_dim=24)
    encoder = DistilBertModel(config)
    encoder.train(mode=False)
    assert multiply_adds(encoder, BATCH, LENGTH) == by_hand(16, 16, 24)


def test_tokens_are_the_same_every_time_and_within_the_vocabulary() -> None:
    config = dense().config
    first, second = (tokens(config, BATCH, LENGTH)["input_ids"] for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape == (BATCH, LENGTH)
    assert first.min() >= 0
    assert first.max() < config.vocab_size


def test_zeros_are_those_of_matrices_alone() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
    nn.init.zeros_(module[0].get_parameter("bias"))
    assert zeros(module) == 0
    nn.init.constant_(module[0].get_parameter("weight")[0], 0.0)
    assert zeros(module) == 3
    assert parameters(module) == 3 * 2 + 2 + 2 + 2
    assert parameter_bytes(module.to(torch.bfloat16)) == 2 * 12


def test_bytes_are_those_of_the_files(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(10)}, tmp_path / "a.safetensors")
    save_file({"b": torch.zeros(5)}, tmp_path / "b.safetensors")
    (tmp_path / "config.json").write_text("{}")
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    assert bytes_on_disk(tmp_path) == sum(len(file.read_bytes()) for file in files)


def test_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="must hold weights"):
        bytes_on_disk(tmp_path)
