"""A layer that is cut computes what the masked one computed, and trains as it would have."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tiny_encoders import (
    ALIASES,
    CONFIGS,
    HEAD_SIZE,
    HEADS_PER_LAYER,
    HIDDEN,
    INTERMEDIATE,
    RESIZABLE,
    SEVERAL_LAYERS,
    TEXT_TO_TEXT,
    states_of,
    tiny_encoder,
    tokens,
)
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from typing_extensions import override

from multiprune.models.architectures import COLUMNS, NEURONS, QUERY_KEY, ROWS, VALUE
from multiprune.models.modeling_multiprune import DroppedLayer, pruned_class
from multiprune.models.shrink import is_cut, resize_layer, shapes_of, shrink_layer
from multiprune.models.structure import Layer, along, layers_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from transformers import PreTrainedModel

Kept = dict[str, Tensor]


def subset(size: int, count: int, generator: torch.Generator) -> Tensor:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[torch.randperm(size, generator=generator)[:count]] = True
    return mask


def units(heads: Tensor, query_key: Tensor, value: Tensor, neurons: Tensor) -> Kept:
    return {
        QUERY_KEY: (query_key & heads[:, None]).reshape(-1),
        VALUE: (value & heads[:, None]).reshape(-1),
        NEURONS: neurons,
    }


def heads_and_neurons(number: int) -> Kept:
    """Keep 3 heads of the first layer, 1 of the next, and so on; and 10 neurons, then 1."""
    generator = torch.Generator().manual_seed(number)
    everything = torch.ones(HEADS_PER_LAYER, HEAD_SIZE, dtype=torch.bool)
    heads = subset(HEADS_PER_LAYER, (3, 1)[number % 2], generator)
    neurons = subset(INTERMEDIATE, (10, 1)[number % 2], generator)
    return units(heads, everything, everything, neurons)


def head_dimensions(number: int) -> Kept:
    """Keep 3 heads of 5 dimensions, then 4 of 1, and so on; each head has its own dimensions."""
    generator = torch.Generator().manual_seed(number)
    count = (5, 1)[number % 2]
    rows = [[subset(HEAD_SIZE, count, generator) for _ in range(HEADS_PER_LAYER)] for _ in range(2)]
    heads = subset(HEADS_PER_LAYER, (3, 4)[number % 2], generator)
    return units(heads, torch.stack(rows[0]), torch.stack(rows[1]), torch.ones(INTERMEDIATE).bool())


def nothing_of(dropped: int) -> Callable[[int], Kept]:
    """Drop one layer, and keep some of the other."""
    nothing = {QUERY_KEY: HIDDEN, VALUE: HIDDEN, NEURONS: INTERMEDIATE}
    gone = {kind: torch.zeros(size, dtype=torch.bool) for kind, size in nothing.items()}
    return lambda number: gone if number == dropped else heads_and_neurons(number)


def without(block: str) -> Callable[[int], Kept]:
    """Drop the attention or the feed-forward network of the last layer, and keep some of others."""

    def kept(number: int) -> Kept:
        some = heads_and_neurons(number)
        gone = {VALUE: (QUERY_KEY, VALUE), NEURONS: (NEURONS,)}[block] if number == 1 else ()
        return some | {kind: torch.zeros_like(some[kind]) for kind in gone}

    return kept


WHOLE = units(
    torch.ones(HEADS_PER_LAYER, dtype=torch.bool),
    torch.ones(HEADS_PER_LAYER, HEAD_SIZE, dtype=torch.bool),
    torch.ones(HEADS_PER_LAYER, HEAD_SIZE, dtype=torch.bool),
    torch.ones(INTERMEDIATE, dtype=torch.bool),
)


@dataclass(frozen=True)
class Case:
    name: str
    what: str
    kept: Callable[[int], Kept]

    @override
    def __str__(self) -> str:
        return f"{self.name}-{self.what}"


CASES = [
    *(Case(name, "heads_and_neurons", heads_and_neurons) for name in CONFIGS),
    *(Case(name, "head_dimensions", head_dimensions) for name in RESIZABLE),
    *(Case(name, "first_layer", nothing_of(0)) for name in SEVERAL_LAYERS),
    *(Case(name, "last_layer", nothing_of(1)) for name in SEVERAL_LAYERS),
    *(Case(name, "last_attention", without(VALUE)) for name in (*SEVERAL_LAYERS, *ALIASES)),
    *(Case(name, "last_feed_forward", without(NEURONS)) for name in (*SEVERAL_LAYERS, *ALIASES)),
    *(Case(name, "heads_and_neurons", heads_and_neurons) for name in TEXT_TO_TEXT),
    *(Case(name, "head_dimensions", head_dimensions) for name in TEXT_TO_TEXT),
    # The bias of positions is that of the dense heads, whichever layers have lost some.
    Case("t5", "decoder_alone", lambda number: heads_and_neurons(number) if number > 1 else WHOLE),
]
every_case = pytest.mark.parametrize("case", CASES, ids=str)
every_encoder_case = pytest.mark.parametrize(
    "case", [case for case in CASES if case.name in CONFIGS], ids=str
)
every_architecture = pytest.mark.parametrize("name", [*CONFIGS, *TEXT_TO_TEXT])
every_encoder = pytest.mark.parametrize("name", CONFIGS)


def adamw(parameters: Iterable[Tensor]) -> Optimizer:
    # A small `eps` would blow up the rounding errors of gradients that are zero, as a key's bias's.
    return AdamW(parameters, lr=0.01, weight_decay=0.1, eps=1e-4)


def momentum(parameters: Iterable[Tensor]) -> Optimizer:
    return SGD(parameters, lr=0.01, momentum=0.9)


TRAINED = [(case, adamw) for case in CASES]
TRAINED += [(case, momentum) for case in CASES if case.name == "bert"]


def masks_of(layer: Layer, kept: Kept) -> list[tuple[Tensor, Tensor]]:
    """Pair each parameter of a layer's linear layers with what is kept of it."""
    found = []
    for linear, slices in layer.linear_layers():
        mask = along(slices, kept)
        matrix = mask[:, None] if slices.dim == ROWS else mask[None]
        found.append((linear.weight, matrix.expand_as(linear.weight)))
        if linear.bias is not None:
            whole = mask.any().expand(len(linear.bias))
            found.append((linear.bias, whole if slices.dim == COLUMNS else mask))
    return found


@torch.no_grad()
def apply_masks(layers: list[Layer], kept: Callable[[int], Kept]) -> None:
    for number, layer in enumerate(layers):
        for parameter, mask in masks_of(layer, kept(number)):
            parameter.mul_(mask)


def masked(case: Case) -> tuple[PreTrainedModel, list[Layer]]:
    encoder = tiny_encoder(case.name)
    layers = layers_of(encoder)
    apply_masks(layers, case.kept)
    return encoder, layers


def cut(case: Case) -> PreTrainedModel:
    encoder, layers = masked(case)
    for number, layer in enumerate(layers):
        shrink_layer(layer, case.kept(number))
    return encoder


def step(encoder: PreTrainedModel, optimizer: Optimizer, number: int) -> None:
    optimizer.zero_grad()
    states_of(encoder, number).square().sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def assert_close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def owned(optimizer: Optimizer) -> list[int]:
    return [id(one) for group in optimizer.param_groups for one in group["params"]]


@every_case
def test_cut_encoder_computes_what_the_masked_one_computed(case: Case) -> None:
    encoder, layers = masked(case)
    before = states_of(encoder)
    assert not torch.allclose(before, states_of(tiny_encoder(case.name)), rtol=0, atol=1e-6)
    for number, layer in enumerate(layers):
        assert not is_cut(layer)
        shrink_layer(layer, case.kept(number))
        assert is_cut(layer) == (case.kept(number) is not WHOLE)
    assert_close(states_of(encoder), before)


@every_case
def test_cut_layers_hold_as_many_weights_as_are_kept(case: Case) -> None:
    encoder, layers = masked(case)
    expected = []
    for number, layer in enumerate(layers):
        expected += [int(mask.sum()) for _, mask in masks_of(layer, case.kept(number))]
        shrink_layer(layer, case.kept(number))
    left = [one for layer in layers for one in encoder.get_submodule(layer.path).modules()]
    linear = {one for one in left if isinstance(one, nn.Linear)}
    assert sum(one.numel() for part in linear for one in part.parameters()) == sum(expected)
    for one in linear:
        assert one.weight.shape == (one.out_features, one.in_features)


@pytest.mark.parametrize(
    ("case", "make"), TRAINED, ids=[f"{case}-{make.__name__}" for case, make in TRAINED]
)
def test_next_steps_are_those_of_the_masked_encoder(
    case: Case, make: Callable[[Iterable[Tensor]], Optimizer]
) -> None:
    whole, layers = masked(case)
    optimizer = make(whole.parameters())
    for number in range(2):
        step(whole, optimizer, number)
        apply_masks(layers, case.kept)
    small, small_optimizer = copy.deepcopy((whole, optimizer))
    for number, layer in enumerate(layers_of(small)):
        shrink_layer(layer, case.kept(number), small_optimizer)
    assert owned(small_optimizer) == [id(one) for one in small.parameters()]
    for number in (2, 3):
        step(whole, optimizer, number)
        apply_masks(layers, case.kept)
        step(small, small_optimizer, number)
    for number, layer in enumerate(layers):
        shrink_layer(layer, case.kept(number), optimizer)
    expected = dict(whole.named_parameters())
    assert dict(small.named_parameters()).keys() == expected.keys()
    for path, parameter in small.named_parameters():
        torch.testing.assert_close(parameter, expected[path], rtol=1e-9, atol=1e-9)
        for key, moment in small_optimizer.state[parameter].items():
            other = optimizer.state[expected[path]][key]
            torch.testing.assert_close(moment, other, rtol=1e-9, atol=1e-9)


@every_case
def test_shapes_rebuild_the_encoder_from_its_configuration(case: Case) -> None:
    encoder = cut(case)
    config = copy.deepcopy(encoder.config)
    config.multiprune = json.loads(json.dumps(shapes_of(encoder)))
    rebuilt = pruned_class(config)(config).double()
    if hasattr(rebuilt, "pooler"):
        rebuilt.pooler = None
    rebuilt.load_state_dict(encoder.state_dict(), strict=True)
    assert_close(states_of(rebuilt), states_of(encoder))
    assert shapes_of(rebuilt) == shapes_of(encoder)


@every_case
def test_resized_encoder_loads_the_cut_one(case: Case) -> None:
    small, fresh = cut(case), tiny_encoder(case.name, seed=1)
    for number, layer in enumerate(layers_of(fresh)):
        resize_layer(layer, case.kept(number))
        assert is_cut(layer) == (case.kept(number) is not WHOLE)
    fresh.load_state_dict(small.state_dict(), strict=True)
    assert_close(states_of(fresh), states_of(small))
    # Optimizers number their state by the order of the parameters.
    assert [path for path, _ in fresh.named_parameters()] == [
        path for path, _ in small.named_parameters()
    ]


@pytest.mark.parametrize("case", [one for one in CASES if one.what.endswith("layer")], ids=str)
def test_what_is_left_of_a_dropped_layer_keeps_its_order(case: Case) -> None:
    dense = [path for path, _ in tiny_encoder(case.name).named_parameters()]
    left = [path for path, _ in cut(case).named_parameters()]
    assert left == [path for path in dense if path in left]


@every_architecture
def test_dense_encoder_has_nothing_to_describe(name: str) -> None:
    assert shapes_of(tiny_encoder(name)) == {}


@every_architecture
def test_layer_of_which_everything_is_kept_is_not_cut(name: str) -> None:
    encoder = tiny_encoder(name)
    before = states_of(encoder)
    for layer in layers_of(encoder):
        everything = torch.ones(HEADS_PER_LAYER, HEAD_SIZE, dtype=torch.bool)
        neurons = torch.ones(INTERMEDIATE, dtype=torch.bool)
        shrink_layer(layer, units(everything[:, 0], everything, everything, neurons))
        assert not is_cut(layer)
    assert torch.equal(states_of(encoder), before)
    assert shapes_of(encoder) == {}


def test_shapes_name_what_a_reader_expects() -> None:
    encoder = cut(Case("mpnet", "last_layer", nothing_of(1)))
    assert shapes_of(encoder) == {
        "linear": {
            "encoder.layer.0.attention.attn.q": [24, 32],
            "encoder.layer.0.attention.attn.k": [24, 32],
            "encoder.layer.0.attention.attn.v": [24, 32],
            "encoder.layer.0.attention.attn.o": [32, 24],
            "encoder.layer.0.intermediate.dense": [10, 32],
            "encoder.layer.0.output.dense": [32, 10],
        },
        "attributes": {
            "encoder.layer.0.attention.attn": {"num_attention_heads": 3, "all_head_size": 24}
        },
        "position_bias": {
            "encoder.layer.0.attention.attn": heads_and_neurons(0)[VALUE][::HEAD_SIZE]
            .nonzero()[:, 0]
            .tolist()
        },
        "dropped": {
            "encoder.layer.1": {
                "norms": ["attention.LayerNorm", "output.LayerNorm"],
                "returns_tuple": True,
            }
        },
    }


@every_encoder
def test_attentions_are_those_of_the_heads_that_are_left(name: str) -> None:
    case = Case(name, "", heads_and_neurons)
    whole = tiny_encoder(name, attention="eager")
    layers = layers_of(whole)
    apply_masks(layers, case.kept)
    expected = whole(**tokens(), output_attentions=True).attentions
    assert len(expected) in (2, 4)
    for number, layer in enumerate(layers):
        shrink_layer(layer, case.kept(number))
    attentions = whole(**tokens(), output_attentions=True).attentions
    for one, (small, dense) in enumerate(zip(attentions, expected, strict=True)):
        number = one * len(layers) // len(expected)
        heads = case.kept(number)[VALUE][::HEAD_SIZE]
        # Padding attends to nothing within ModernBERT's window.
        torch.testing.assert_close(small, dense[:, heads], rtol=0, atol=1e-12, equal_nan=True)


@every_encoder_case
def test_padding_does_not_reach_the_other_tokens(case: Case) -> None:
    encoder, batch = cut(case), tokens()
    before = states_of(encoder)
    padded = batch["input_ids"].clone()
    padded[batch["attention_mask"] == 0] = 9
    states = encoder(padded, attention_mask=batch["attention_mask"]).last_hidden_state
    positions = case.name in ("roberta", "xlm_roberta", "mpnet")  # counted from what is padding
    if not positions:
        assert_close(states * batch["attention_mask"][:, :, None], before)
    longest = encoder(batch["input_ids"][2:, :3]).last_hidden_state
    assert_close(longest, before[2:, :3])


@every_case
def test_copy_of_a_cut_encoder_stands_on_its_own(case: Case) -> None:
    encoder = cut(case)
    before = states_of(encoder)
    copied = copy.deepcopy(encoder)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.zero_()
    assert_close(states_of(copied), before)
    assert shapes_of(copied) == shapes_of(encoder)


@every_architecture
def test_cut_encoder_is_cut_again(name: str) -> None:
    case = Case(name, "", lambda _: heads_and_neurons(0))
    encoder = cut(case)
    layers, all_of = layers_of(encoder), torch.ones(3, HEAD_SIZE, dtype=torch.bool)
    heads, neurons = torch.tensor([False, True, True]), torch.arange(10) % 2 == 0

    def fewer(_: int) -> Kept:
        return units(heads, all_of, all_of, neurons)

    assert [layer.heads for layer in layers] == [3] * len(layers)
    # An attention to the other stack has no neurons beside it.
    assert [layer.neurons for layer in layers if layer.neurons] == [10] * min(4, len(layers))
    apply_masks(layers, fewer)
    before = states_of(encoder)
    for number, layer in enumerate(layers):
        shrink_layer(layer, fewer(number))
    assert_close(states_of(encoder), before)
    config = copy.deepcopy(encoder.config)
    config.multiprune = shapes_of(encoder)
    rebuilt = pruned_class(config)(config).double()
    if hasattr(rebuilt, "pooler"):
        rebuilt.pooler = None
    rebuilt.load_state_dict(encoder.state_dict(), strict=True)
    assert_close(states_of(rebuilt), before)


@pytest.mark.parametrize("name", SEVERAL_LAYERS)
def test_dropped_layer_keeps_the_mode_and_the_norms(name: str) -> None:
    case = Case(name, "", nothing_of(0))
    training, evaluated = cut(case), tiny_encoder(name)
    evaluated.train(False)
    layers = layers_of(evaluated)
    shrink_layer(layers[0], case.kept(0))
    for encoder, mode in ((training, True), (evaluated, False)):
        left = [one for one in encoder.modules() if isinstance(one, DroppedLayer)]
        assert [one.training for one in left] == [mode]
        norms = layers[0].architecture.norms
        assert len(list(left[0].parameters())) == 2 * len(norms)


def test_optimizer_of_a_dropped_layer_keeps_its_norms_only() -> None:
    encoder: Any = tiny_encoder("bert")
    optimizer = AdamW(encoder.parameters(), lr=0.01)
    norms = [encoder.encoder.layer[0].attention.output.LayerNorm.weight]
    step(encoder, optimizer, 0)
    remembered = optimizer.state[norms[0]]["exp_avg"].clone()
    shrink_layer(layers_of(encoder)[0], nothing_of(0)(0), optimizer)
    assert owned(optimizer) == [id(one) for one in encoder.parameters()]
    assert len(list(encoder.encoder.layer[0].parameters())) == 4
    assert encoder.encoder.layer[0].attention.output.LayerNorm.weight is norms[0]
    assert torch.equal(optimizer.state[norms[0]]["exp_avg"], remembered)
