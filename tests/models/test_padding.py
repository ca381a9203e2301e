"""Whether there is padding is not asked of the device, and what is computed stays the same."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tiers import slow
from tiny_encoders import ALIASES, CONFIGS, TEXT_TO_TEXT, tiny_encoder, tokens
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from waits import Waits

from multiprune.models.padding import padding_is_known

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor
    from transformers import PreTrainedModel

EVERY = [*CONFIGS, *TEXT_TO_TEXT, *slow(*ALIASES)]
#: Those that transformers offers no choice of attention for.
OWN_ATTENTION = ("mpnet", "deberta")


def inputs_of(name: str, *, padded: bool) -> dict[str, Tensor]:
    inputs = tokens()
    if not padded:
        inputs["attention_mask"] = torch.ones_like(inputs["attention_mask"])
    if name in TEXT_TO_TEXT:
        inputs["decoder_input_ids"] = inputs["input_ids"]
    return inputs


def evaluated(encoder: Any) -> PreTrainedModel:
    made: PreTrainedModel = encoder.eval()
    return made


@torch.no_grad()
def states(encoder: PreTrainedModel, inputs: Mapping[str, Tensor], **options: Any) -> Tensor:
    made: Tensor = encoder(**inputs, **options)[0]
    return made


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("attention", [None, "eager"])
@pytest.mark.parametrize("name", EVERY)
def test_known_padding_changes_nothing_and_waits_for_nothing(
    name: str, attention: str | None, padded: bool
) -> None:
    encoder = evaluated(tiny_encoder(name, attention=attention))
    inputs = inputs_of(name, padded=padded)
    # As text-to-text models are called in training.
    options = {"use_cache": False} if name in TEXT_TO_TEXT else {}
    expected, waits = states(encoder, inputs, **options), Waits()
    waits.claim([*encoder.parameters(), *encoder.buffers(), *inputs.values()])
    with waits, padding_is_known(encoder, is_padded=padded):
        found = states(encoder, inputs, **options)
    # What ModernBERT computes for padding, eagerly, is NaN.
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    assert waits.found == []


@pytest.mark.parametrize("name", [one for one in CONFIGS if not one.startswith(OWN_ATTENTION)])
def test_padding_that_is_not_known_is_asked_for(name: str) -> None:
    encoder, inputs = evaluated(tiny_encoder(name)), inputs_of(name, padded=True)
    waits = Waits()
    waits.claim(inputs.values())
    with waits, padding_is_known(encoder, is_padded=None):
        states(encoder, inputs)
    assert waits.found


def test_a_pass_that_fails_leaves_transformers_as_it_was() -> None:
    before = dict(ALL_MASK_ATTENTION_FUNCTIONS)
    encoder = tiny_encoder("bert")
    with pytest.raises(ValueError, match="input_ids"), padding_is_known(encoder, is_padded=True):
        encoder()
    assert dict(ALL_MASK_ATTENTION_FUNCTIONS) == before


def test_compiled_encoders_make_masks_as_they_do() -> None:
    before = dict(ALL_MASK_ATTENTION_FUNCTIONS)
    compiled: Any = SimpleNamespace(_compiled_call_impl=len)
    with padding_is_known(compiled, is_padded=True):
        assert dict(ALL_MASK_ATTENTION_FUNCTIONS) == before
