"""A model that is published with its own code: never asked about, and loaded if that is allowed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tiny_encoders import CONFIGS, states_of
from transformers import BertModel

import multiprune
from multiprune.data.source import HubSource
from multiprune.export.checkpoint import save_model
from multiprune.metrics import Accuracy
from multiprune.models.encoder import pretrained
from multiprune.models.from_scratch import character_tokenizer
from multiprune.models.low_rank import LowRankLinear
from multiprune.models.multitask import MultitaskModel
from multiprune.models.pretrained_tokenizer import pretrained_tokenizer
from multiprune.tasks.classification import Classification

if TYPE_CHECKING:
    from pathlib import Path

TASKS = {
    "task": Classification(
        text=["sentence"],
        label="label",
        labels=["a", "b"],
        metrics={"accuracy": Accuracy()},
        source=HubSource(path=None, mirror="nowhere"),
    )
}
CONFIGURATION = """
from transformers import BertConfig

class OwnConfig(BertConfig):
    model_type = "own-bert"
"""
MODELING = """
from transformers import BertModel
from .configuration_own import OwnConfig

class OwnModel(BertModel):
    config_class = OwnConfig
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a BERT as one of a type that transformers does not know; nobody is there to answer."""
    folder = tmp_path / "own"
    tokenizer = character_tokenizer()
    config: Any = CONFIGS["bert"]()
    config.vocab_size = len(tokenizer)
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "configuration_own.py").write_text(CONFIGURATION)
    (folder / "modeling_own.py").write_text(MODELING)
    stated = json.loads((folder / "config.json").read_text())
    stated["model_type"] = "own-bert"
    stated["auto_map"] = {
        "AutoConfig": "configuration_own.OwnConfig",
        "AutoModel": "modeling_own.OwnModel",
    }
    (folder / "config.json").write_text(json.dumps(stated))

    def ask(_: str = "") -> str:
        raise AssertionError("Nobody may be asked.")

    monkeypatch.setattr("builtins.input", ask)
    return folder


def test_it_is_refused_and_the_key_named(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"not run; encoder\.trust_remote_code=true allows it\.$"):
        pretrained(str(folder))


def test_it_is_loaded_if_that_is_allowed(folder: Path) -> None:
    encoder = pretrained(str(folder), trust_remote_code=True)
    assert type(encoder.model).__name__ == "OwnModel"
    expected = BertModel.from_pretrained(folder, add_pooling_layer=False).state_dict()
    found = encoder.model.state_dict()
    assert all(torch.equal(found[name], one) for name, one in expected.items())


@pytest.mark.parametrize("cut", [False, True])
def test_a_run_ships_the_code_which_is_run_only_if_that_is_allowed(
    folder: Path, tmp_path: Path, *, cut: bool
) -> None:
    encoder = pretrained(str(folder), trust_remote_code=True)
    model = MultitaskModel(encoder.model, TASKS).eval()
    if cut:
        layer: Any = model.encoder.get_submodule("encoder.layer.0.intermediate")
        layer.dense = LowRankLinear.from_linear(layer.dense, 5).factored()
    save_model(tmp_path / "model", model, encoder.tokenizer, TASKS)
    with pytest.raises(ValueError, match=r"which needs `trust_remote_code=True`\.$"):
        multiprune.load(tmp_path)
    loaded = multiprune.load(tmp_path, trust_remote_code=True)
    again = pretrained(str(tmp_path), trust_remote_code=True).model
    for one in (loaded.encoder, again):
        assert torch.equal(states_of(one), states_of(model.encoder))


def test_a_tokenizer_with_code_is_refused_too(folder: Path) -> None:
    named = {"AutoTokenizer": ["own.OwnTokenizer", None]}
    # Transformers knows no tokenizer of a model of images.
    (folder / "config.json").write_text(json.dumps({"model_type": "vit"}))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "OwnTokenizer", "auto_map": named})
    )
    with pytest.raises(ValueError, match=r"needs code of its own, and `trust_remote_code`\.$"):
        pretrained_tokenizer(folder)
