from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from shipped import HEADS, HIDDEN, LAYERS, NEURON_COUNT, dense
from tiny_encoders import SEVERAL_LAYERS, tiny_encoder, tokens

from multiprune.export.checkpoint import load_encoder, save_encoder
from multiprune.measure.cost import parameters, without_embeddings
from multiprune.measure.ladder import GRANULARITIES, Rung, ladder
from multiprune.models.structure import layers_of

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel

HEAD_SIZE = HIDDEN // HEADS
#: Weights and biases of its query, key and value; and its columns of the output.
OF_A_HEAD = 3 * HEAD_SIZE * (HIDDEN + 1) + HIDDEN * HEAD_SIZE
#: Its weights and its bias; and its column of the output.
OF_A_NEURON = HIDDEN + 1 + HIDDEN
#: Two biases of outputs, and two norms.
OF_ANY_LAYER = 2 * HIDDEN + 4 * HIDDEN


def encoder_by_hand(heads: int, neurons: int, layers: int = LAYERS) -> int:
    """Count all but embeddings; of a layer that is gone, both norms stay."""
    full = layers * (heads * OF_A_HEAD + neurons * OF_A_NEURON + OF_ANY_LAYER)
    return 2 * HIDDEN + full + (LAYERS - layers) * 4 * HIDDEN


def rungs(encoder: PreTrainedModel, share: float = 0.5) -> dict[str, Rung]:
    return {rung.granularity: rung for rung in ladder(encoder, [share])}


def sizes(encoder: PreTrainedModel) -> list[tuple[int, int]]:
    return [(layer.heads, layer.neurons) for layer in layers_of(encoder)]


@pytest.mark.parametrize(
    ("share", "heads", "neurons", "layers"), [(0.5, 2, 16, 1), (0.75, 3, 24, 1), (0.01, 1, 1, 1)]
)
def test_sizes_are_those_counted_by_hand(
    share: float, heads: int, neurons: int, layers: int
) -> None:
    embeddings = parameters(dense()) - encoder_by_hand(HEADS, NEURON_COUNT)
    found = rungs(dense(), share)
    expected = {
        "heads": encoder_by_hand(heads, NEURON_COUNT),
        "neurons": encoder_by_hand(HEADS, neurons),
        "heads and neurons": encoder_by_hand(heads, neurons),
        "layers": encoder_by_hand(HEADS, NEURON_COUNT, layers),
    }
    for granularity, count in expected.items():
        assert without_embeddings(found[granularity].encoder) == count, granularity
        assert parameters(found[granularity].encoder) == count + embeddings, granularity


def test_vocabulary_loses_rows_and_nothing_else() -> None:
    before = dense()
    found = rungs(before, 0.25)["vocabulary"].encoder
    count = before.config.vocab_size // 4
    assert found.config.vocab_size == count
    lost = (before.config.vocab_size - count) * HIDDEN
    assert parameters(found) == parameters(before) - lost
    assert without_embeddings(found) == without_embeddings(before)
    # Tokens that stay are read as before.
    ids = torch.arange(count).view(1, -1)
    with torch.no_grad():
        states = [one(input_ids=ids).last_hidden_state for one in (before, found)]
    torch.testing.assert_close(*states)


def test_a_granularity_leaves_the_others_alone() -> None:
    found = {name: rung.encoder for name, rung in rungs(dense()).items()}
    assert sizes(found["heads"]) == [(HEADS // 2, NEURON_COUNT)] * LAYERS
    assert sizes(found["neurons"]) == [(HEADS, NEURON_COUNT // 2)] * LAYERS
    assert sizes(found["heads and neurons"]) == [(HEADS // 2, NEURON_COUNT // 2)] * LAYERS
    assert sizes(found["vocabulary"]) == [(HEADS, NEURON_COUNT)] * LAYERS
    whole = dense().get_submodule("encoder.layer.0").state_dict()
    left = found["layers"].get_submodule("encoder.layer.0").state_dict()
    assert all(torch.equal(left[name], tensor) for name, tensor in whole.items())
    assert not [name for name, _ in found["layers"].named_modules() if "layer.1.inter" in name]


@pytest.mark.parametrize("name", SEVERAL_LAYERS)
def test_every_rung_of_every_architecture_runs(name: str) -> None:
    encoder = tiny_encoder(name)
    encoder.train(mode=False)
    batch = tokens()
    for rung in ladder(encoder, [0.5]):
        ids = batch["input_ids"] % rung.encoder.config.vocab_size
        states = rung.encoder(input_ids=ids, attention_mask=batch["attention_mask"])
        assert states.last_hidden_state.isfinite().all(), rung.name


def test_dense_encoder_stays_and_lends_its_embeddings() -> None:
    encoder = dense()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    found = rungs(encoder)
    assert all(torch.equal(before[name], tensor) for name, tensor in encoder.state_dict().items())
    assert encoder.config.vocab_size == len(before["embeddings.word_embeddings.weight"])
    own = encoder.get_parameter("embeddings.word_embeddings.weight")
    for granularity, rung in found.items():
        weight = rung.encoder.get_parameter("embeddings.word_embeddings.weight")
        assert (weight is own) == (granularity != "vocabulary")
        linear = rung.encoder.get_parameter("encoder.layer.0.output.dense.weight")
        assert linear is not encoder.get_parameter("encoder.layer.0.output.dense.weight")


def test_order_is_that_of_shares_within_each_granularity() -> None:
    names = [rung.name for rung in ladder(dense(), [0.75, 0.5])]
    assert names == [f"{kind} {share}" for kind in GRANULARITIES for share in ("0.75", "0.5")]


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_what_is_written_is_read_again(granularity: str, tmp_path: Path) -> None:
    encoder = rungs(dense())[granularity].encoder
    save_encoder(tmp_path, encoder)
    assert parameters(load_encoder(tmp_path)) == parameters(encoder)


@pytest.mark.parametrize("share", [0.0, 1.0, 1.5])
def test_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=f"must be between 0 and 1, but one is {share}"):
        list(ladder(dense(), [0.5, share]))
