"""A shipped encoder-decoder answers as it did, here and without this package."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file
from shipped_world import head_dimensions, heads_and_neurons, low_rank, zeros
from tiny_text_to_text import PAIRS, SENTENCES, TASKS, tiny_t5
from torch import Tensor, nn
from transformers import AutoModelForSeq2SeqLM

import multiprune
from multiprune.export.checkpoint import load_encoder, save_model
from multiprune.export.convert import ExportSettings, export_model
from multiprune.export.pack import pack
from multiprune.export.text_to_text import ShippedTextToText
from multiprune.measure.contestant import contestants
from multiprune.models.factory import multitask_model, tasks_for
from multiprune.tasks.task import Batch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from transformers import PreTrainedModel

    from multiprune.models.multitask import MultitaskModel

CUT = {prune.__name__: prune for prune in (heads_and_neurons, head_dimensions, low_rank)}
FAMILIES: dict[str, Callable[[PreTrainedModel], None]] = {"zeros": zeros, **CUT}
READ: dict[str, tuple[list[str], list[str] | None]] = {
    "classes": (SENTENCES, None),
    "pairs": (SENTENCES, PAIRS),
}
every_family = pytest.mark.parametrize("family", FAMILIES)
every_version = pytest.mark.parametrize("gated", [False, True], ids=["t5", "t5_gated"])


def saved(
    folder: Path, family: str, *, gated: bool = False, untied: bool = False
) -> tuple[MultitaskModel, dict[str, Tensor]]:
    """Write a pruned model, and return it with its logits of both tasks."""
    encoder = tiny_t5(gated=gated)
    if untied:
        scores: Any = encoder.model.get_output_embeddings()  # type: ignore[no-untyped-call]
        scores.weight = nn.Parameter(torch.randn_like(scores.weight))
    FAMILIES[family](encoder.model)
    tasks = tasks_for(encoder, TASKS)
    model = multitask_model(encoder, tasks).eval()
    save_model(folder, model, encoder.tokenizer, tasks)
    texts = {
        "classes": [f"classes sentence: {one}" for one in SENTENCES],
        "pairs": [
            f"pairs hypothesis: {pair} premise: {one}"
            for one, pair in zip(SENTENCES, PAIRS, strict=True)
        ],
    }
    answers = {}
    for name, read in texts.items():
        inputs = encoder.tokenizer(read, padding=True, return_tensors="pt")
        with torch.no_grad():
            answers[name] = model(Batch(name, dict(inputs), torch.empty(0)))
    return model, answers


def assert_answers(path: Path, expected: dict[str, Tensor]) -> None:
    shipped = multiprune.load(path)
    assert isinstance(shipped, ShippedTextToText)
    for task, read in READ.items():
        torch.testing.assert_close(shipped.logits(task, *read), expected[task])


@every_version
@every_family
def test_loaded_model_answers_as_the_saved_one(family: str, gated: bool, tmp_path: Path) -> None:
    _, expected = saved(tmp_path / "model", family, gated=gated)
    assert_answers(tmp_path / "model", expected)


@pytest.mark.parametrize("storage", ["dense", "bitmask"])
@every_family
def test_exported_model_answers_as_the_saved_one(family: str, storage: str, tmp_path: Path) -> None:
    _, expected = saved(tmp_path / "model", family)
    export_model(tmp_path / "model", tmp_path / "out", ExportSettings(storage=storage))
    assert_answers(tmp_path / "out", expected)


@every_version
@every_family
def test_card_gives_the_same_logits_without_this_package(
    family: str, gated: bool, tmp_path: Path
) -> None:
    _, expected = saved(tmp_path / "model", family, gated=gated)
    export_model(tmp_path / "model", tmp_path / "out", ExportSettings())
    card = (tmp_path / "out" / "README.md").read_text()
    names: dict[str, Any] = {}
    here = os.getcwd()  # noqa: PTH109
    os.chdir(tmp_path / "out")
    try:
        exec(card.split("```python\n")[1].split("```")[0], names)
    finally:
        os.chdir(here)
    for task, read in READ.items():
        torch.testing.assert_close(names["logits"](task, *read), expected[task])
    assert (tmp_path / "out" / "modeling_multiprune.py").is_file() == (family in CUT)


def test_matrices_that_are_tied_are_stored_once_and_tied_again(tmp_path: Path) -> None:
    saved(tmp_path / "model", "zeros")
    export_model(tmp_path / "model", tmp_path / "out", ExportSettings(storage="bitmask"))
    embeddings = {"shared.weight"}
    for path, file in (("model", "model.safetensors"), ("out", "model.bitmask.safetensors")):
        stored = {key.removesuffix(".values") for key in load_file(tmp_path / path / file)}
        assert {key for key in stored if "embed" in key or "shared" in key} == embeddings
        assert "lm_head.weight" not in stored
        t5: Any = load_encoder(tmp_path / path)
        assert t5.lm_head.weight is t5.shared.weight is t5.encoder.embed_tokens.weight


@pytest.mark.parametrize("storage", ["dense", "bitmask"])
def test_matrix_that_is_not_tied_stays_so(storage: str, tmp_path: Path) -> None:
    _, expected = saved(tmp_path / "model", "zeros", gated=True, untied=True)
    export_model(tmp_path / "model", tmp_path / "out", ExportSettings(storage=storage))
    assert_answers(tmp_path / "out", expected)
    t5: Any = load_encoder(tmp_path / "out")
    assert t5.lm_head.weight is not t5.shared.weight
    assert t5.decoder.embed_tokens.weight is t5.shared.weight


def test_dense_shapes_load_without_code(tmp_path: Path) -> None:
    model, _ = saved(tmp_path / "model", "zeros")
    plain = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "model")
    for key, tensor in plain.state_dict().items():
        assert torch.equal(tensor, model.encoder.state_dict()[key])


def test_folder_says_how_tasks_are_put_in_words(tmp_path: Path) -> None:
    saved(tmp_path / "model", "zeros")
    meaning = json.loads((tmp_path / "model" / "heads.json").read_text())
    assert meaning["classes"] == {
        "kind": "classes",
        "text": ["sentence"],
        "label": "label",
        "labels": ["bad", "good", "fair"],
        "template": "classes sentence: {sentence}",
        "words": ["red", "blue", "so"],
        "max_length": 128,
    }
    assert not (tmp_path / "model" / "heads.safetensors").exists()


def test_number_of_texts_must_be_that_of_the_columns(tmp_path: Path) -> None:
    saved(tmp_path / "model", "zeros")
    shipped = multiprune.load(tmp_path / "model")
    with pytest.raises(ValueError, match="'pairs' reads premise and hypothesis: pass"):
        shipped.logits("pairs", SENTENCES)
    with pytest.raises(ValueError, match="must be one of classes, pairs, but is 'other'"):
        shipped.logits("other", SENTENCES)


def test_folder_without_words_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "model", "zeros")
    file = tmp_path / "model" / "heads.json"
    meaning = json.loads(file.read_text())
    del meaning["pairs"]["words"]
    file.write_text(json.dumps(meaning))
    with pytest.raises(ValueError, match="must hold a template and words for each task"):
        multiprune.load(tmp_path / "model")


def test_what_is_made_for_encoders_is_refused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        saved(tmp_path / name, "zeros")
    sentence = "must be an encoder with heads, but is a T5ForConditionalGeneration"
    with pytest.raises(ValueError, match=f"written as ONNX {sentence}"):
        export_model(tmp_path / "one", tmp_path / "onnx", ExportSettings(format="onnx"))
    with pytest.raises(ValueError, match=f"packed {sentence}"):
        pack([tmp_path / "one", tmp_path / "two"], tmp_path / "packed")
    with pytest.raises(ValueError, match=f"benchmarked {sentence}"):
        contestants([tmp_path / "one"], [])
    with pytest.raises(ValueError, match="has a head that predicts tokens"):
        export_model(tmp_path / "one", tmp_path / "fewer", ExportSettings(), corpus=["the cat"])
