from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file
from shipped import HEADS, HIDDEN, LAYERS, NEURON_COUNT, cut, dense, drop_last, factor, low_rank
from tiny_encoders import CONFIGS, tiny_encoder
from torch import nn
from transformers import DistilBertConfig, DistilBertModel

from multiprune.export.checkpoint import save_encoder
from multiprune.measure.cost import (
    bytes_on_disk,
    multiply_adds,
    parameter_bytes,
    parameters,
    tokens,
    without_embeddings,
    zeros,
)
from multiprune.models.architectures import NEURONS, QUERY_KEY, VALUE
from multiprune.models.shrink import shrink_layer
from multiprune.models.structure import layers_of

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


def test_dropped_layer_costs_nothing() -> None:
    layer = by_hand(HIDDEN, HIDDEN, NEURON_COUNT)
    assert multiply_adds(drop_last(dense()), BATCH, LENGTH) == (LAYERS - 1) * layer


def test_layers_of_different_shapes_each_cost_their_own() -> None:
    encoder = dense()
    sizes = [(4, 5), (12, 1)]
    for layer, (values, neurons) in zip(layers_of(encoder), sizes, strict=True):
        kept = torch.arange(HIDDEN) < values
        shrink_layer(
            layer, {QUERY_KEY: kept, VALUE: kept, NEURONS: torch.arange(NEURON_COUNT) < neurons}
        )
    assert multiply_adds(encoder, BATCH, LENGTH) == sum(by_hand(HIDDEN, *one) for one in sizes)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_attention_counts_whatever_computes_it(attention: str) -> None:
    encoder = dense()
    encoder.set_attn_implementation(attention)
    products = LAYERS * HEADS * 2 * BATCH * LENGTH * LENGTH * (HIDDEN // HEADS)
    assert multiply_adds(encoder, BATCH, LENGTH) == by_hooks(encoder) + products


@pytest.mark.parametrize("factored", [False, True], ids=["cut", "cut and factored"])
@pytest.mark.parametrize("name", CONFIGS)
def test_every_architecture_costs_what_its_layers_multiply(name: str, *, factored: bool) -> None:
    encoder = cut(tiny_encoder(name, dtype=torch.float32))
    encoder.train(mode=False)
    if factored:
        factor(encoder, 3)
    # Half the heads are left. Where a layer attends to neighbours alone, kernels compute it all.
    width = encoder.config.hidden_size // 2
    products = encoder.config.num_hidden_layers * 2 * BATCH * LENGTH * LENGTH * width
    found = multiply_adds(encoder, BATCH, LENGTH) - by_hooks(encoder)
    # DeBERTa multiplies queries and keys with positions too.
    assert found > products if name.startswith("deberta") else found == products


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


@pytest.mark.parametrize(
    ("name", "looked_up"),
    # 40 words, 20 positions and 2 segments; ModernBERT turns by angles, and has words alone.
    [("bert", 62 * 32), ("albert", 62 * 16), ("modernbert", 40 * 32)],
)
def test_embeddings_are_told_apart_from_the_rest(name: str, looked_up: int) -> None:
    encoder = tiny_encoder(name)
    assert without_embeddings(encoder) == parameters(encoder) - looked_up


@pytest.mark.parametrize("bitmask", [False, True])
def test_bytes_are_those_of_the_file_with_the_weights(tmp_path: Path, *, bitmask: bool) -> None:
    save_encoder(tmp_path, dense(), bitmask=bitmask)
    save_file({"head": torch.zeros(10)}, tmp_path / "heads.safetensors")
    (file,) = set(tmp_path.glob("*.safetensors")) - {tmp_path / "heads.safetensors"}
    assert bytes_on_disk(tmp_path) == len(file.read_bytes())


def test_folder_without_weights_is_refused(tmp_path: Path) -> None:
    save_file({"head": torch.zeros(10)}, tmp_path / "heads.safetensors")
    with pytest.raises(FileNotFoundError, match="has no weights"):
        bytes_on_disk(tmp_path)
