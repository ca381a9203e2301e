"""A part on the weights of the whole is what a copy that is cut for good is, and can be undone."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
from nested_world import allowed, cut, order_of, some
from tiny_encoders import CONFIGS, states_of, tiny_encoder
from torch import Tensor, nn

from multiprune.models.architectures import QUERY_KEY, ROWS, VALUE
from multiprune.models.nested import RemovalOrder
from multiprune.models.resize import Resizable, part, sort_units
from multiprune.models.structure import along, layers_of
from multiprune.pruning.removal import GRANULARITIES, HEADS, LAYERS, NEURONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel

every_kind = pytest.mark.parametrize(("name", "granularity"), allowed(), ids=str)


def insides(encoder: nn.Module) -> dict[str, Any]:
    """Return all that modules hold: values, and of objects which they are."""

    def seen(value: Any) -> Any:
        if isinstance(value, dict):
            return [(key, seen(one)) for key, one in value.items()]
        return value if isinstance(value, int | float | str | None) else id(value)

    return {path: seen(vars(module)) for path, module in encoder.named_modules()}


@every_kind
def test_part_answers_as_a_copy_that_is_cut_and_is_undone(
    name: str, granularity: tuple[str, ...]
) -> None:
    encoder = tiny_encoder(name)
    before, state = insides(encoder), copy.deepcopy(encoder.state_dict())
    whole = states_of(encoder)
    order = order_of(encoder, granularity)
    resizable = Resizable(layers_of(encoder))
    for removals in some(order):
        expected = cut(encoder, order, removals)
        resizable.resize(order.units(removals))
        assert resizable.is_resized == (removals > 0)
        torch.testing.assert_close(states_of(encoder), states_of(expected))
        mine = sum(one.numel() for one in encoder.parameters())
        assert mine == sum(one.numel() for one in expected.parameters())
        resizable.restore()
        assert not resizable.is_resized
        assert insides(encoder) == before
        assert torch.equal(states_of(encoder), whole)
    assert encoder.state_dict().keys() == state.keys()
    assert all(torch.equal(encoder.state_dict()[key], one) for key, one in state.items())
    assert not torch.allclose(states_of(expected), whole)


def spread(
    encoder: PreTrainedModel, small: PreTrainedModel, units: Sequence[dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Lay the gradients of a cut copy out at their places in the whole."""
    slices_of = {}
    for layer, kept in zip(layers_of(encoder), units, strict=True):
        for linear, slices in layer.linear_layers():
            index = along(slices, kept).nonzero()[:, 0]
            slices_of[id(linear.weight)] = (slices.dim, index)
            if slices.dim == ROWS and linear.bias is not None:
                slices_of[id(linear.bias)] = (0, index)
    found = {path: one.grad for path, one in small.named_parameters() if one.grad is not None}
    laid_out = {}
    for path, whole in encoder.named_parameters():
        expected = torch.zeros_like(whole)
        if path in found:
            dim, index = slices_of.get(id(whole), (0, torch.arange(len(whole))))
            expected.index_copy_(dim, index, found[path])
        laid_out[path] = expected
    return laid_out


@every_kind
def test_gradients_are_those_of_a_cut_copy_and_zero_elsewhere(
    name: str, granularity: tuple[str, ...]
) -> None:
    encoder = tiny_encoder(name)
    order = order_of(encoder, granularity)
    resizable = Resizable(layers_of(encoder))
    for removals in some(order, 3)[1:]:
        encoder.zero_grad()
        small = cut(encoder, order, removals)
        resizable.resize(order.units(removals))
        loss = states_of(encoder).square().sum()
        # What is put back before the gradients are computed has them all the same.
        resizable.restore()
        loss.backward()  # type: ignore[no-untyped-call]
        states_of(small).square().sum().backward()  # type: ignore[no-untyped-call]
        for path, expected in spread(encoder, small, order.units(removals)).items():
            found = encoder.get_parameter(path).grad
            found = torch.zeros_like(expected) if found is None else found
            torch.testing.assert_close(found, expected, msg=path)


def test_parts_are_not_made_of_parts() -> None:
    encoder = tiny_encoder("bert")
    order, resizable = order_of(encoder, GRANULARITIES), Resizable(layers_of(encoder))
    resizable.resize(order.units(3))
    with pytest.raises(RuntimeError, match="while a nested part is active"):
        resizable.resize(order.units(4))
    resizable.restore()
    resizable.resize(order.units(4))


def test_what_fails_half_way_is_undone() -> None:
    encoder = tiny_encoder("mpnet")
    before = insides(encoder)
    first, second = order_of(encoder, (HEADS,)).units(4)
    resizable = Resizable(layers_of(encoder))
    with pytest.raises(KeyError):
        resizable.resize([first, {QUERY_KEY: second[QUERY_KEY], VALUE: second[VALUE]}])
    resizable.restore()
    assert insides(encoder) == before


def test_mode_of_a_layer_stays_when_it_is_skipped() -> None:
    for mode in (True, False):
        encoder = tiny_encoder("bert").train(mode)
        order, resizable = order_of(encoder, (LAYERS,)), Resizable(layers_of(encoder))
        resizable.resize(order.units(order.smallest))
        assert all(module.training == mode for module in encoder.modules())
        resizable.restore()
        assert all(module.training == mode for module in encoder.modules())


@every_kind
def test_sorted_encoder_answers_the_same_at_every_size(
    name: str, granularity: tuple[str, ...]
) -> None:
    encoder = tiny_encoder(name)
    order, sorted_encoder = order_of(encoder, granularity), copy.deepcopy(encoder)
    layers = layers_of(sorted_encoder)
    lying = RemovalOrder(
        [sort_units(layer, one) for layer, one in zip(layers, order.layers, strict=True)],
        order.sizes,
    )
    if layers[0].architecture.position_bias is None:
        for one in lying.layers:  # what goes last comes first, within each head as well
            assert all((positions.diff() <= 0).all() for positions in vars(one).values())
    resizable = Resizable(layers)
    for removals in some(order):
        resizable.resize(lying.units(removals))
        expected = states_of(cut(encoder, order, removals))
        torch.testing.assert_close(states_of(sorted_encoder), expected)
        resizable.restore()


@pytest.mark.parametrize("name", CONFIGS)
def test_parts_of_sorted_units_are_views(name: str) -> None:
    encoder = tiny_encoder(name)
    order = order_of(encoder, (HEADS, NEURONS))
    for layer, one in zip(layers_of(encoder), order.layers, strict=True):
        if layer.architecture.position_bias is not None:
            before = copy.deepcopy(encoder.state_dict())
            assert sort_units(layer, one) is one  # its heads have places in a shared bias
            after = encoder.state_dict()
            assert all(torch.equal(after[key], value) for key, value in before.items())
            continue
        lying = sort_units(layer, one)
        for removals in range(order.smallest + 1):
            units = lying.units(removals)
            for mask in units.values():
                assert mask[: int(mask.count_nonzero())].all()
            for linear, slices in layer.linear_layers():
                if len(slices.units) > 1:
                    continue  # the kinds lie one behind another
                index = along(slices, units).nonzero()[:, 0]
                view = part(linear.weight, slices.dim, index)
                assert torch.equal(view, linear.weight.index_select(slices.dim, index))
                assert view.data_ptr() == linear.weight.data_ptr()


def test_part_is_a_view_only_if_its_entries_come_first() -> None:
    whole = torch.arange(12.0).view(3, 4)
    for dim, index, is_view in [
        (0, [0, 1, 2], True),
        (0, [0, 1], True),
        (1, [0, 1, 2], True),
        (1, [], True),
        (1, [1, 2], False),
        (0, [0, 2], False),
        (1, [3], False),
    ]:
        chosen = torch.tensor(index, dtype=torch.long)
        found = part(whole, dim, chosen)
        assert torch.equal(found, whole.index_select(dim, chosen))
        storage = found.untyped_storage().data_ptr()
        assert (storage == whole.untyped_storage().data_ptr()) == is_view
