"""Every dropout that an architecture has, by whatever name."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from application import ROOT
from tiny_encoders import CONFIGS, TEXT_TO_TEXT
from tiny_text_to_text import saved_t5
from torch import nn
from transformers import PretrainedConfig

from multiprune.data.source import HubSource
from multiprune.metrics import Accuracy
from multiprune.models.encoder import pretrained, set_dropout
from multiprune.models.factory import multitask_model
from multiprune.models.from_scratch import from_scratch
from multiprune.models.modeling_multiprune import dense_class
from multiprune.tasks.classification import Classification
from multiprune.tasks.tagging import Tagging

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHAPE: dict[str, Any] = {"layers": 1, "hidden": 8, "heads": 2, "intermediate": 8}
COMMON: dict[str, Any] = {
    "text": ["text"],
    "label": "label",
    "metrics": {"accuracy": Accuracy()},
    "source": HubSource(path=None, mirror="nowhere"),
}
TASKS = {kind.__name__: kind(labels=["a", "b"], **COMMON) for kind in (Classification, Tagging)}


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
    with pytest.raises(ValueError, match="`dropout` does not apply"):
        set_dropout(PretrainedConfig(), 0.3)


@pytest.mark.parametrize(
    ("settings", "of_encoder", "of_heads"),
    [
        ({}, None, 0.1),
        ({"dropout": 0.3}, 0.3, 0.3),
        ({"dropout": 0.0}, 0.0, 0.0),
        ({"dropout": 0.0, "head_dropout": 0.2}, 0.0, 0.2),
        ({"head_dropout": 0.0}, None, 0.0),
    ],
)
def test_heads_have_the_dropout_of_the_encoder_or_their_own(
    tmp_path: Path, settings: dict[str, Any], of_encoder: float | None, of_heads: float
) -> None:
    made = from_scratch(**SHAPE, **settings)
    made.model.save_pretrained(tmp_path)
    made.tokenizer.save_pretrained(tmp_path)
    # A pretrained one keeps what it was saved with.
    loaded = pretrained(str(tmp_path), **settings)
    for encoder in (made, loaded):
        model = multitask_model(encoder, TASKS)
        assert {*probabilities(model.heads)} == {of_heads}
        assert {*probabilities(model.encoder)} == {of_encoder or 0.0}


@pytest.mark.parametrize("name", ["dropout", "head_dropout"])
@pytest.mark.parametrize("value", [float("nan"), -0.1, 1, True])
def test_dropout_is_a_probability(name: str, value: float) -> None:
    for make in (partial(from_scratch, **SHAPE), partial(pretrained, "unread")):
        with pytest.raises(ValueError, match=rf"`encoder\.{name}` must be .*in \[0, 1\), but is "):
            make(**{name: value})


def test_what_has_no_heads_has_no_dropout_of_them(tmp_path: Path) -> None:
    folder = saved_t5(tmp_path)
    with pytest.raises(ValueError, match=r"`encoder\.head_dropout` does not apply"):
        pretrained(folder, head_dropout=0.1)


def test_every_encoder_that_has_the_one_setting_has_the_other() -> None:
    files = sorted((ROOT / "conf" / "encoder").glob("*.yaml"))
    # What answers by a decoder has no heads.
    texts = [file.read_text() for file in files if file.stem != "t5_small"]
    with_dropout = [text for text in texts if " dropout: " in text or "\ndropout: " in text]
    assert len(with_dropout) > 5
    assert all("head_dropout: null" in text for text in with_dropout)
