"""An encoder without some hidden dimensions computes what the masked one computes at the others."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tiny_encoders import HIDDEN, states_of, tiny_encoder, tokens
from torch import Tensor, nn
from torch.optim import AdamW
from transformers import AutoModel, BertModel

from multiprune.export.checkpoint import load_encoder, save_encoder
from multiprune.export.own_model import load_own, save_own
from multiprune.models.architectures import NEURONS, QUERY_KEY, VALUE
from multiprune.models.from_scratch import from_scratch
from multiprune.models.hidden import gate_gradients, hidden_states_of, norm_over
from multiprune.models.shrink import shrink_layer
from multiprune.models.structure import layers_of
from multiprune.pruning.hidden_state import HiddenState
from multiprune.tasks.outputs.heads import AlongHidden, SequenceHead
from multiprune.tasks.outputs.vocabulary import VocabularyHead

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ["bert", "roberta", "xlm_roberta", "distilbert", "camembert"]
every_architecture = pytest.mark.parametrize("name", NAMES)
KEPT = torch.arange(HIDDEN) % 3 != 1


@every_architecture
def test_cut_encoder_computes_what_the_masked_one_computes(name: str) -> None:
    encoder = tiny_encoder(name)
    states = hidden_states_of(encoder)
    state = HiddenState(states)
    mask(state, KEPT)
    masked = states_of(encoder)
    assert not masked[..., ~KEPT].any()
    before = sum(one.numel() for one in encoder.parameters())
    each = sum(getattr(one, name).numel() // HIDDEN for one, name, _ in states.parameters())
    state.cut(encoder)
    torch.testing.assert_close(states_of(encoder), masked[..., KEPT], rtol=0, atol=1e-12)
    assert encoder.config.hidden_size == int(KEPT.sum())
    after = sum(one.numel() for one in encoder.parameters())
    assert before - after == each * int((~KEPT).sum())


def test_next_step_is_that_of_the_masked_encoder() -> None:
    encoders = [tiny_encoder("bert") for _ in range(2)]
    both = [HiddenState(hidden_states_of(encoder)) for encoder in encoders]
    optimizers = [AdamW(one.parameters(), lr=0.01, eps=1e-4) for one in encoders]
    for encoder, state, optimizer in zip(encoders, both, optimizers, strict=True):
        for number in range(2):
            step(encoder, optimizer, number)
            mask(state, KEPT)
        if encoder is encoders[0]:
            state.cut(encoder, optimizer)
        step(encoder, optimizer, 2)
    mask(both[1], KEPT)
    small, masked = states_of(encoders[0]), states_of(encoders[1])
    torch.testing.assert_close(small, masked[..., KEPT], rtol=0, atol=1e-9)


def mask(state: HiddenState, kept: Tensor) -> None:
    if not state.parts.norms[0]._forward_hooks:
        state.attach()
    state.keep(kept)
    state.zero()


def step(encoder: Any, optimizer: AdamW, number: int) -> None:
    optimizer.zero_grad()
    states_of(encoder, number).square().sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def test_norm_over_kept_dimensions_is_that_of_torch_without_the_others() -> None:
    torch.manual_seed(0)
    norm = torch.nn.LayerNorm(HIDDEN, dtype=torch.float64)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    inputs = torch.randn(3, 5, HIDDEN, dtype=torch.float64)
    expected = torch.nn.functional.layer_norm(
        inputs[..., KEPT], (int(KEPT.sum()),), norm.weight[KEPT], norm.bias[KEPT], norm.eps
    )
    found = norm_over(inputs, norm, KEPT)
    torch.testing.assert_close(found[..., KEPT], expected)
    assert not found[..., ~KEPT].any()


@every_architecture
def test_gradients_of_gates_are_those_of_gates_in_the_graph(name: str) -> None:
    encoder = tiny_encoder(name)
    states = hidden_states_of(encoder)
    gates = torch.ones(HIDDEN, dtype=torch.float64, requires_grad=True)

    def close(_: Any, __: Any, output: Tensor) -> Tensor:
        return output * gates

    for norm in states.norms:
        norm.register_forward_hook(close)
    (states_of(encoder).sin().sum()).backward()  # type: ignore[no-untyped-call]
    assert gates.grad is not None
    torch.testing.assert_close(gate_gradients(states).double(), gates.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["modernbert", "albert", "electra", "deberta", "mpnet"])
def test_other_architectures_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="Hidden dimensions are known of bert, roberta"):
        hidden_states_of(tiny_encoder(name))


def test_heads_are_masked_and_cut_with_the_encoder() -> None:
    torch.manual_seed(0)
    encoder = tiny_encoder("bert")
    vocabulary = VocabularyHead(HIDDEN, HIDDEN, 40).double()
    sequence = SequenceHead(HIDDEN, 3, dropout=0.0).double()
    model = nn.ModuleDict({"encoder": encoder, "words": vocabulary, "classes": sequence})
    state = HiddenState(hidden_states_of(encoder, model))

    def answers() -> list[Tensor]:
        states, seen = states_of(encoder), torch.ones(3, 7)
        embeddings = encoder.get_input_embeddings().weight
        return [head(states, seen, embeddings) for head in (vocabulary, sequence)]

    mask(state, KEPT)
    masked = answers()
    state.cut(encoder)
    for found, expected in zip(answers(), masked, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert vocabulary.dense.weight.shape == (21, 21)
    assert vocabulary.norm.weight.shape == (21,)
    assert sequence.output.weight.shape == (3, 21)


def test_head_that_does_not_tell_what_it_reads_is_refused() -> None:
    encoder = tiny_encoder("bert")
    model = nn.ModuleDict({"encoder": encoder, "head": nn.Linear(HIDDEN, 3)})
    with pytest.raises(ValueError, match=r"what head, a Linear, reads: give .* `along_hidden`"):
        hidden_states_of(encoder, model)


def test_all_parameters_along_hidden_dimensions_are_found() -> None:
    # By their shapes, in a size that no other dimension has.
    encoder = from_scratch(layers=2, hidden=22, heads=2, intermediate=12).model
    model = nn.ModuleDict({"encoder": encoder, "head": Reading()})
    found = hidden_states_of(encoder, model).parameters()
    along = {(id(module.get_parameter(name)), dim) for module, name, dim in found}
    by_shape = {
        (id(one), dim)
        for one in model.parameters()
        for dim, size in enumerate(one.shape)
        if size == 22
    }
    # Heads have as many dimensions together, which are rows of their inputs' layers.
    own = {
        (id(module.get_parameter(name)), 0 if path.endswith(("query", "key", "value")) else 1)
        for path, module in encoder.named_modules()
        for name in ("weight", "bias")
        if path.endswith(("query", "key", "value"))
        or (path.endswith("attention.output.dense") and name == "weight")
    }
    assert along == by_shape - own


class Reading(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(22, 5)

    def along_hidden(self) -> AlongHidden:
        return AlongHidden([self.dense])


@every_architecture
@pytest.mark.parametrize("left", [21, 24])  # of which only 24 is a multiple of the heads
@pytest.mark.parametrize("heads", [4, 3])  # 24 is also what three heads of 8 have together
def test_saved_encoder_loads_with_the_shapes_that_it_has(
    name: str, left: int, heads: int, tmp_path: Path
) -> None:
    encoder = tiny_encoder(name, dtype=torch.float32)
    encoder.train(False)
    state = HiddenState(hidden_states_of(encoder))
    mask(state, torch.arange(HIDDEN) < left)
    for layer in layers_of(encoder):
        kept = torch.arange(4 * 8) < 8 * heads
        shrink_layer(layer, {QUERY_KEY: kept, VALUE: kept, NEURONS: torch.ones(24).bool()})
    state.cut(encoder)
    expected = states_of(encoder)
    save_encoder(tmp_path, encoder)
    assert json.loads((tmp_path / "config.json").read_text())["multiprune"]["pooler"] is False
    by_code = AutoModel.from_pretrained(tmp_path, trust_remote_code=True)
    again = tmp_path / "again"
    by_code.save_pretrained(again)
    loaded = load_encoder(again)
    for one in (load_encoder(tmp_path), by_code.eval(), loaded):
        assert one.config.hidden_size == left
        assert one.config.num_attention_heads == 4
        assert torch.equal(states_of(one), expected)


def test_pooler_reads_what_is_left(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config: Any = tiny_encoder("bert").config
    encoder: Any = BertModel(config)
    encoder.train(False)
    state = HiddenState(hidden_states_of(encoder))
    mask(state, KEPT)
    expected = encoder(**tokens()).pooler_output
    state.cut(encoder)
    torch.testing.assert_close(encoder(**tokens()).pooler_output, expected)
    assert encoder.pooler.dense.weight.shape == (HIDDEN, 21)
    save_own(tmp_path / "model", encoder)
    loaded = load_own(tmp_path / "model")
    torch.testing.assert_close(loaded(**tokens()).pooler_output, expected)


def test_what_is_compiled_leaves_out_what_is_masked_later() -> None:
    encoder = tiny_encoder("bert")
    state = HiddenState(hidden_states_of(encoder))
    state.attach()
    whole = states_of(encoder)
    encoder.compile(backend="eager")
    torch.testing.assert_close(states_of(encoder), whole)
    mask(state, KEPT)
    masked = states_of(encoder)
    assert not masked[..., ~KEPT].any()
    state.cut(encoder)
    cut = states_of(encoder)
    encoder._compiled_call_impl = None
    torch.testing.assert_close(states_of(encoder), cut, rtol=0, atol=1e-12)
    torch.testing.assert_close(cut, masked[..., KEPT], rtol=0, atol=1e-12)
