"""Weights that are not those of the model are refused, whatever is loaded."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_encoders import CONFIGS
from tiny_text_to_text import saved_t5
from transformers import (
    AlbertForPreTraining,
    AutoConfig,
    BertForPreTraining,
    BertForSequenceClassification,
    DebertaV2ForMaskedLM,
    DistilBertForMaskedLM,
    ElectraForPreTraining,
    ModernBertForMaskedLM,
    MPNetForMaskedLM,
    RobertaForMaskedLM,
)

from multiprune.export.classifier import load_classifier
from multiprune.models.encoder import pretrained
from multiprune.models.from_scratch import character_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

PRETRAINED: dict[str, Any] = {
    "bert": BertForPreTraining,
    "roberta": RobertaForMaskedLM,
    "electra": ElectraForPreTraining,
    "distilbert": DistilBertForMaskedLM,
    "mpnet": MPNetForMaskedLM,
    "deberta": DebertaV2ForMaskedLM,
    "modernbert": ModernBertForMaskedLM,
    "albert": AlbertForPreTraining,
}


def saved(folder: Path, kind: Any, architecture: str = "bert") -> Path:
    """Write a model with a head, as it was pretrained."""
    tokenizer = character_tokenizer()
    config = CONFIGS[architecture]()
    config.vocab_size = len(tokenizer)
    kind(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def rename(folder: Path, name: Callable[[str], str | None]) -> None:
    file = folder / "model.safetensors"
    held = {name(key): one for key, one in load_file(file).items()}
    kept: dict[str, Tensor] = {key: one for key, one in held.items() if key is not None}
    save_file(kept, file, {"format": "pt"})


def ask_for(folder: Path, **changed: Any) -> None:
    config = AutoConfig.from_pretrained(folder)
    for name, value in changed.items():
        setattr(config, name, value)
    config.save_pretrained(folder)


@pytest.mark.parametrize("architecture", PRETRAINED)
def test_heads_of_pretraining_may_be_left_over(architecture: str, tmp_path: Path) -> None:
    folder = saved(tmp_path, PRETRAINED[architecture], architecture)
    held = load_file(folder / "model.safetensors")
    state = pretrained(str(folder)).model.state_dict()
    assert len(state) < len(held)
    for key, one in state.items():
        theirs = next(value for name, value in held.items() if name.endswith(key))
        assert torch.equal(one, theirs)


@pytest.mark.parametrize("prefix", ["module.", "model.encoder."])
def test_a_prefix_is_named(prefix: str, tmp_path: Path) -> None:
    folder = saved(tmp_path, BertForPreTraining)
    rename(folder, lambda key: prefix + key)
    message = rf"37 of the model's 37 are missing.*prefix '{prefix}bert\.' from the names"
    with pytest.raises(ValueError, match=message):
        pretrained(str(folder))


@pytest.mark.parametrize(("layers", "missing", "unused"), [(4, 32, 0), (1, 0, 16)])
def test_another_number_of_layers_is_named(
    layers: int, missing: int, unused: int, tmp_path: Path
) -> None:
    folder = saved(tmp_path, BertForPreTraining)
    ask_for(folder, num_hidden_layers=layers)
    message = (
        rf"{missing} of the .* are missing.*; config.json asks for {layers} layers, and the file "
        r"holds 2\.$"
    )
    with pytest.raises(ValueError, match=message) as raised:
        pretrained(str(folder))
    if unused:
        assert f"and {unused} in the file are not used (" in str(raised.value)


def test_one_missing_weight_is_named(tmp_path: Path) -> None:
    folder = saved(tmp_path, BertForPreTraining)
    gone = "encoder.layer.1.output.dense.weight"
    rename(folder, lambda key: None if key.endswith(gone) else key)
    with pytest.raises(ValueError, match=rf"1 of the model's 37 are missing \({gone}\)"):
        pretrained(str(folder))


def test_another_shape_is_named(tmp_path: Path) -> None:
    folder = saved(tmp_path, BertForPreTraining)
    ask_for(folder, intermediate_size=20)
    message = r"intermediate\.dense\.bias is \(24,\) in the file and \(20,\) in the model"
    with pytest.raises(ValueError, match=message):
        pretrained(str(folder))


def test_an_encoder_decoder_needs_its_decoder(tmp_path: Path) -> None:
    folder = tmp_path / "t5"
    saved_t5(folder)
    assert pretrained(str(folder)).is_text_to_text
    rename(folder, lambda key: None if key.startswith("decoder.block.1") else key)
    with pytest.raises(ValueError, match=r"are missing \(decoder\.block\.1\."):
        pretrained(str(folder))


def test_a_classifier_needs_its_encoder_and_its_head(tmp_path: Path) -> None:
    folder = saved(tmp_path, BertForSequenceClassification)
    assert load_classifier(str(folder))
    rename(folder, lambda key: None if "encoder.layer.1" in key else key)
    with pytest.raises(ValueError, match=r"asks for 2 layers, and the file holds 1"):
        load_classifier(str(folder))


class Payload:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


def test_a_payload_beside_weights_is_refused_and_does_not_run(tmp_path: Path) -> None:
    source, mark = saved(tmp_path / "encoder", BertForPreTraining), tmp_path / "mark"
    held = load_file(source / "model.safetensors") | {"payload": Payload(mark)}
    (source / "model.safetensors").unlink()
    torch.save(held, source / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"a pickle that cannot .*: use weights in safetensors\.$"):
        pretrained(str(source))
    assert not mark.exists()
    torch.load(source / "pytorch_model.bin", weights_only=False)
    assert mark.exists()
