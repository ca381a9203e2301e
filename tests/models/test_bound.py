"""A ``config.json`` that asks for more than the weights have is refused before it is built."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from application import save_untrained
from tiny_encoders import CONFIGS
from torch import nn
from transformers import BertForSequenceClassification, BertModel

import multiprune
from multiprune.export.classifier import load_classifier
from multiprune.export.loading import load
from multiprune.models.bound import stored_in
from multiprune.models.encoder import pretrained
from multiprune.models.from_scratch import character_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel

MOST = 1000


def asks_for(run: Path, **sizes: int) -> Path:
    config = run / "model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | sizes))
    return run


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """Note where each parameter is made, and stop those that would take for ever."""
    devices: list[torch.device] = []
    register = nn.Module.register_parameter

    def noted(self: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None:
            devices.append(parameter.device)
        assert len(devices) < MOST
        register(self, name, parameter)

    monkeypatch.setattr(nn.Module, "register_parameter", noted)
    return devices


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"num_hidden_layers": 200_000}, "far more layers than model.safetensors"),
        ({"num_hidden_layers": 2}, "encoder.layer.1"),
        ({"hidden_size": 2_000_000}, "should be (2000000,)"),
        ({"vocab_size": 10**10}, "word_embeddings"),
        ({"intermediate_size": 10**9}, "intermediate"),
    ],
    ids=str,
)
def test_sizes_are_checked_before_anything_is_built(
    tmp_path: Path, sizes: dict[str, int], said: str, built: list[torch.device]
) -> None:
    run = save_untrained(tmp_path)
    built.clear()
    with pytest.raises(ValueError, match=r"config\.json") as error:
        load(asks_for(run, **sizes))
    assert said in str(error.value)
    assert built
    assert {one.type for one in built} == {"meta"}


def test_own_models_are_bounded_as_well(tmp_path: Path, built: list[torch.device]) -> None:
    run = save_untrained(tmp_path)
    (run / "model" / "heads.json").unlink()
    built.clear()
    with pytest.raises(ValueError, match="far more layers"):
        multiprune.load(asks_for(run, num_hidden_layers=200_000) / "model")


def saved(folder: Path, kind: type[PreTrainedModel], **options: Any) -> Path:
    """Write a model of transformers with its tokenizer."""
    tokenizer, config = character_tokenizer(), CONFIGS["bert"]()
    config.vocab_size = len(tokenizer)
    kind(config).save_pretrained(folder / "model", **options)
    tokenizer.save_pretrained(folder / "model")
    return folder


HUGE = [
    ({"num_hidden_layers": 200_000}, "config.json asks for far more layers than model.safetensors"),
    ({"vocab_size": 10**9}, "parameters, far more than model.safetensors holds, which are"),
    ({"intermediate_size": 10**8}, "parameters, far more than model.safetensors holds, which are"),
]


@pytest.mark.parametrize(("sizes", "said"), HUGE, ids=str)
def test_an_encoder_of_the_user_is_bounded(
    tmp_path: Path, sizes: dict[str, int], said: str, built: list[torch.device]
) -> None:
    folder = asks_for(saved(tmp_path, BertModel), **sizes) / "model"
    built.clear()
    with pytest.raises(ValueError, match=r"do not match its config\.json") as error:
        pretrained(str(folder))
    assert said in str(error.value)
    assert {one.type for one in built} == {"meta"}


def test_an_encoder_that_was_cut_is_bounded(tmp_path: Path, built: list[torch.device]) -> None:
    folder = asks_for(save_untrained(tmp_path), vocab_size=10**9)
    built.clear()
    with pytest.raises(ValueError, match=r"far more than model\.safetensors holds"):
        pretrained(str(folder))
    assert {one.type for one in built} == {"meta"}


@pytest.mark.parametrize(("sizes", "said"), HUGE, ids=str)
def test_a_classifier_of_the_user_is_bounded(
    tmp_path: Path, sizes: dict[str, int], said: str, built: list[torch.device]
) -> None:
    folder = asks_for(saved(tmp_path, BertForSequenceClassification), **sizes) / "model"
    built.clear()
    with pytest.raises(ValueError, match=r"do not match its config\.json") as error:
        load_classifier(str(folder))
    assert said in str(error.value)
    assert {one.type for one in built} == {"meta"}


def test_several_files_hold_what_one_does(tmp_path: Path) -> None:
    whole = stored_in(str(saved(tmp_path / "whole", BertModel) / "model"))
    parts = stored_in(str(saved(tmp_path / "parts", BertModel, max_shard_size="8KB") / "model"))
    state = BertModel.from_pretrained(tmp_path / "whole" / "model").state_dict()
    torch.save(state, tmp_path / "pytorch_model.bin")
    pickled = stored_in(str(tmp_path))
    assert whole is not None
    assert parts is not None
    assert pickled is not None
    assert parts.file.name == "model.safetensors.index.json"
    count, elements = len(state), sum(one.numel() for one in state.values())
    assert (whole.tensors, whole.elements) == (count, elements)
    assert (parts.tensors, parts.elements) == (count, elements)
    assert (pickled.tensors, pickled.elements) == (count, 4 * elements)


def test_a_file_of_onnx_bounds_what_is_counted(tmp_path: Path, built: list[torch.device]) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    from multiprune.measure.onnx_encoder import OnnxEncoder

    folder = save_untrained(tmp_path) / "model"
    held = [
        onnx.numpy_helper.from_array(np.zeros((40, 16), np.float32), str(at)) for at in range(9)
    ]
    graph = onnx.helper.make_graph([], "model", [], [], initializer=held)
    onnx.save(onnx.helper.make_model(graph), folder / "model.onnx")
    asks_for(tmp_path, num_hidden_layers=200_000)
    built.clear()
    with pytest.raises(ValueError, match=r"asks for far more layers than model\.onnx has"):
        OnnxEncoder.from_folder(folder)
    asks_for(tmp_path, num_hidden_layers=1, vocab_size=10**9)
    built.clear()
    with pytest.raises(ValueError, match=r"more than model\.onnx holds, which are 5,760"):
        OnnxEncoder.from_folder(folder)
    assert {one.type for one in built} == {"meta"}
