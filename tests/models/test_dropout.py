"""Every dropout that an architecture has, by whatever name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tiny_encoders import CONFIGS, TEXT_TO_TEXT
from torch import nn
from transformers import PretrainedConfig

from multiprune.models.encoder import set_dropout
from multiprune.models.modeling_multiprune import dense_class

if TYPE_CHECKING:
    from collections.abc import Iterator


def probabilities(model: nn.Module) -> Iterator[float]:
    """Yield those of the layers, and those that attentions hand to a function."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            yield module.p
        yield from (
            value
            for name, value in vars(module).items()
            if "dropout" in name and isinstance(value, float)
        )


@pytest.mark.parametrize("name", CONFIGS | TEXT_TO_TEXT)
def test_every_dropout_of_the_encoder_is_set(name: str) -> None:
    config: Any = (CONFIGS | TEXT_TO_TEXT)[name]()
    set_dropout(config, 0.3)
    found = list(probabilities(dense_class(config)(config)))
    assert len(found) > 2
    assert set(found) == {0.3}


def test_an_encoder_without_dropout_is_refused() -> None:
    with pytest.raises(ValueError, match="needs an encoder with dropout"):
        set_dropout(PretrainedConfig(), 0.3)
