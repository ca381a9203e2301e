from __future__ import annotations

import pytest
import torch
from tiny_encoders import CONFIGS, tiny_encoder
from torch import nn

from multiprune.models.architectures import NEURONS, QUERY_KEY, VALUE
from multiprune.models.hidden_states import recorded_states
from multiprune.models.modeling_multiprune import DroppedLayer
from multiprune.models.shrink import shrink_layer
from multiprune.models.structure import layers_of

TOKENS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])


@pytest.mark.parametrize("name", CONFIGS)
def test_states_are_those_that_transformers_gives_out(name: str) -> None:
    encoder = tiny_encoder(name, dtype=torch.float32)
    encoder.train(False)
    with torch.no_grad(), recorded_states(encoder) as recorded:
        expected = encoder(input_ids=TOKENS, output_hidden_states=True).hidden_states
    assert len(recorded) == len(expected) - 1 == encoder.config.num_hidden_layers
    assert not any(one.is_dropped for one in recorded)
    # The last one may have gone through a norm that belongs to no layer.
    for found, states in zip(recorded[:-1], expected[1:-1], strict=True):
        torch.testing.assert_close(found.states, states)


def test_hooks_are_gone_afterwards_even_after_an_error() -> None:
    encoder = tiny_encoder("bert", dtype=torch.float32)
    with pytest.raises(ZeroDivisionError), recorded_states(encoder) as recorded:
        raise ZeroDivisionError
    encoder(input_ids=TOKENS)
    assert recorded == []
    assert not any(module._forward_hooks for module in encoder.modules())


def test_dropped_layer_still_counts() -> None:
    encoder = tiny_encoder("bert", dtype=torch.float32)
    first = layers_of(encoder)[0]
    gone = {kind: torch.zeros(first.size_of(kind)).bool() for kind in (QUERY_KEY, VALUE, NEURONS)}
    shrink_layer(first, gone)
    assert isinstance(encoder.get_submodule(first.path), DroppedLayer)
    with recorded_states(encoder) as recorded:
        encoder(input_ids=TOKENS)
    assert [one.is_dropped for one in recorded] == [True, *[False] * (len(recorded) - 1)]


def test_unknown_architectures_are_refused() -> None:
    with pytest.raises(ValueError, match="known of bert"), recorded_states(nn.Linear(2, 2)):
        pass
