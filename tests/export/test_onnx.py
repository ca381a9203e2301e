import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
import torch
from onnxruntime import InferenceSession
from torch import Tensor, nn
from torch.onnx.errors import OnnxExporterError
from transformers import (
    AlbertConfig,
    AutoModel,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    MPNetConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

from multiprune.export import onnx as exporting
from multiprune.export.checkpoint import save_encoder, save_heads
from multiprune.export.loading import ShippedModel, load
from multiprune.export.onnx import export_onnx
from multiprune.models.encoder import nano_tokenizer
from multiprune.models.heads import head
from multiprune.models.shrink import shrink_layer
from multiprune.models.structure import NEURONS, QUERY_KEY, VALUE, Layer, layers_of

SIZES: dict[str, Any] = {
    "vocab_size": len(nano_tokenizer()),
    "hidden_size": 16,
    "embedding_size": 8,
    "num_attention_heads": 4,
    "intermediate_size": 12,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
DISTILBERT: dict[str, Any] = {"dim": 16, "n_heads": 4, "hidden_dim": 12}
DEBERTA: dict[str, Any] = {
    "relative_attention": True,
    "pos_att_type": ["c2p", "p2c"],
    "share_att_key": True,
    "position_buckets": 8,
    "norm_rel_ebd": "layer_norm",
}
ENDS: dict[str, Any] = {"bos_token_id": 2, "cls_token_id": 2, "eos_token_id": 3, "sep_token_id": 3}
#: By architecture: its configuration, and what its layers are. Where the layers are those of BERT,
#: one of them is enough; a layer of ALBERT runs twice.
ARCHITECTURES: dict[str, tuple[Any, list[str]]] = {
    "bert": (BertConfig(**SIZES, num_hidden_layers=2), ["dense", "cut"]),
    "roberta": (RobertaConfig(**SIZES, num_hidden_layers=1), ["cut"]),
    "xlm-roberta": (XLMRobertaConfig(**SIZES, num_hidden_layers=1), ["cut"]),
    "electra": (ElectraConfig(**SIZES, num_hidden_layers=2), ["cut", "dropped"]),
    "distilbert": (DistilBertConfig(**SIZES, **DISTILBERT, n_layers=1), ["cut"]),
    "albert": (AlbertConfig(**SIZES, num_hidden_layers=2), ["cut"]),
    "mpnet": (MPNetConfig(**SIZES, num_hidden_layers=2), ["cut", "dropped"]),
    "deberta-v2": (DebertaV2Config(**SIZES, **DEBERTA, num_hidden_layers=2), ["dense", "cut"]),
    "modernbert": (
        ModernBertConfig(**SIZES, **ENDS, num_hidden_layers=2, local_attention=8),
        ["dense", "cut"],
    ),
}
TELLS_PAIRS_APART = {"bert", "electra", "albert", "deberta-v2"}
MEANING: dict[str, dict[str, Any]] = {
    "classes": {"kind": "classes", "labels": ["bad", "good", "fair"]},
    "tags": {"kind": "tags", "labels": ["other", "agent"]},
}
TEXTS: dict[str, list[Any]] = {
    "classes": ["the cow runs", "two red dogs near the pig sleep, by the one brown horse", ""],
    "tags": [["the", "cow", "runs"], ["red", "dogs", "near", "one", "pig", "sleep"], ["a"]],
}


def cut(layer: Layer) -> None:
    """Keep some heads (and dimensions of each, where an architecture can) and some neurons."""
    heads = torch.tensor([True, False, True, True])[:, None].expand(4, layer.head_size).clone()
    query_key = heads.clone()
    if layer.architecture.resizable_heads:
        heads[:, 0], query_key[:, -1] = False, False
    neurons = torch.rand(layer.neurons) < 0.6
    masks = {QUERY_KEY: query_key, VALUE: heads, NEURONS: neurons}
    shrink_layer(layer, {units: mask.flatten() for units, mask in masks.items()})


def dropped(layer: Layer) -> None:
    nothing = torch.zeros(layer.neurons, dtype=torch.bool)
    shrink_layer(layer, {NEURONS: nothing})


CHANGES: dict[str, Callable[[Layer], None]] = {
    "dense": lambda _: None,
    "cut": cut,
    "dropped": dropped,
}


def factorized(encoder: nn.Module, path: str, rank: int) -> None:
    linear = cast("nn.Linear", encoder.get_submodule(path))
    product = nn.Sequential()
    product.add_module("down", nn.Linear(linear.in_features, rank, bias=False))
    product.add_module("up", nn.Linear(rank, linear.out_features))
    encoder.set_submodule(path, product)


def model_of(architecture: str) -> ShippedModel:
    """Make a model whose answers depend much on its input."""
    torch.manual_seed(0)
    config, kinds = ARCHITECTURES[architecture]
    encoder = AutoModel.from_config(config)  # type: ignore[no-untyped-call]
    for name, parameter in encoder.named_parameters():
        if "norm" not in name.lower():
            nn.init.normal_(parameter, std=0.5)
    for layer, kind in zip(layers_of(encoder), kinds, strict=True):
        CHANGES[kind](layer)
    tokenizer = nano_tokenizer()
    if architecture not in TELLS_PAIRS_APART:
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
    heads = nn.ModuleDict(
        {"classes": head(16, 3, per_token=False), "tags": head(16, 2, per_token=True)}
    )
    return ShippedModel(encoder, heads, MEANING, tokenizer).eval()


def given(model: ShippedModel, task: str, **options: Any) -> dict[str, Any]:
    words = task == "tags"
    inputs = model.tokenizer(
        TEXTS[task], is_split_into_words=words, padding=True, return_tensors="np", **options
    )
    return dict(inputs)


def answers(file: Path, task: str, inputs: dict[str, Any]) -> Tensor:
    session = InferenceSession(file, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run([f"logits/{task}"], inputs)[0])


def check(file: Path, model: ShippedModel) -> None:
    for task in MEANING:
        inputs = given(model, task)
        found, expected = answers(file, task, inputs), model.logits(task, TEXTS[task])
        if task == "tags":
            real = torch.from_numpy(inputs["attention_mask"]).bool()
            found, expected = found[real], expected[real]
        assert (expected.std(0) > 0.01).all()
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> tuple[ShippedModel, Path]:
    """A model that was saved and loaded, and its file; one product of two matrices is in it."""
    folder = tmp_path_factory.mktemp("bert")
    model = model_of("bert")
    factorized(model.encoder, "encoder.layer.0.intermediate.dense", rank=3)
    save_encoder(folder, model.encoder)
    save_heads(folder, model.heads, MEANING)
    model.tokenizer.save_pretrained(folder)
    loaded = load(folder)
    (file,) = export_onnx(loaded, folder)
    return loaded, file


@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name != "bert"])
def test_answers_are_those_of_the_model(architecture: str, tmp_path: Path) -> None:
    model = model_of(architecture)
    assert export_onnx(model, tmp_path) == [tmp_path / "model.onnx"]
    check(tmp_path / "model.onnx", model)


def test_model_that_was_shipped_answers_the_same(bert: tuple[ShippedModel, Path]) -> None:
    model, file = bert
    check(file, model)


def test_pairs_are_told_apart(bert: tuple[ShippedModel, Path]) -> None:
    model, file = bert
    seconds = ["it sleeps", "the goat", "no"]
    found = answers(file, "classes", given(model, "classes", text_pair=seconds))
    expected = model.logits("classes", TEXTS["classes"], seconds)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("examples", "length"), [(1, 1), (1, 64), (2, 7), (5, 2), (3, 33)])
def test_batch_and_length_are_free(
    bert: tuple[ShippedModel, Path], examples: int, length: int
) -> None:
    model, file = bert
    ids = torch.randint(5, 100, (examples, length), generator=torch.Generator().manual_seed(0))
    inputs = dict.fromkeys(model.tokenizer.model_input_names, torch.ones_like(ids))
    inputs["input_ids"] = ids
    for task in MEANING:
        found = answers(file, task, {name: tensor.numpy() for name, tensor in inputs.items()})
        with torch.no_grad():
            torch.testing.assert_close(found, model(task, inputs), rtol=0, atol=1e-5)


def test_inputs_are_what_the_tokenizer_gives_and_outputs_name_the_tasks(
    bert: tuple[ShippedModel, Path],
) -> None:
    model, file = bert
    session = InferenceSession(file, providers=["CPUExecutionProvider"])
    shapes = {one.name: one.shape for one in session.get_inputs()}
    assert shapes == {name: ["batch", "length"] for name in model.tokenizer("the cow")}
    assert {one.name: one.shape for one in session.get_outputs()} == {
        "logits/classes": ["batch", 3],
        "logits/tags": ["batch", "length", 2],
    }


def test_encoder_is_stored_once(bert: tuple[ShippedModel, Path]) -> None:
    model, file = bert
    stored = sum(
        int(np.prod(one.dims))
        for one in onnx.load(file).graph.initializer
        if one.data_type == onnx.TensorProto.FLOAT and len(one.dims) == 2
    )
    assert stored == sum(
        one.numel()
        for name, one in model.named_parameters()
        if one.dim() == 2 and "pooler" not in name
    )


def test_file_names_no_path_of_this_machine(bert: tuple[ShippedModel, Path]) -> None:
    content = bert[1].read_bytes()
    assert b"site-packages" not in content
    assert str(Path(__file__).parents[2]).encode() not in content


def test_same_model_gives_the_same_file(
    bert: tuple[ShippedModel, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, file = bert
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    export_onnx(model, tmp_path)
    assert (tmp_path / "model.onnx").read_bytes() == file.read_bytes()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not [record for record in caplog.records if record.levelno >= logging.INFO]


class Written:
    """What torch.onnx gave, if it gave the file of another model."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def save(self, file: Path) -> None:
        shutil.copyfile(self.file, file)


def shifted(model: ShippedModel, task: str, shift: float) -> ShippedModel:
    heads = {
        name: head(16, len(MEANING[name]["labels"]), per_token=name == "tags") for name in MEANING
    }
    changed = nn.ModuleDict(heads).eval()
    changed.load_state_dict(model.heads.state_dict())
    with torch.no_grad():
        changed.get_parameter(f"{task}.output.bias")[-1] += shift
    return ShippedModel(model.encoder, changed, model.meaning, model.tokenizer).eval()


@pytest.mark.parametrize("task", MEANING)
@pytest.mark.parametrize("shift", [2e-4, -1.0, float("nan"), float("inf")])
def test_other_answers_are_refused_and_leave_nothing(
    bert: tuple[ShippedModel, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    task: str,
    shift: float,
) -> None:
    (tmp_path / "other.txt").write_text("stays")
    monkeypatch.setattr(exporting, "_traced", lambda _: Written(bert[1]))
    with pytest.raises(RuntimeError, match=f"may differ .* by 0.0001, but those of {task} differ"):
        export_onnx(shifted(bert[0], task, shift), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["other.txt"]


def test_rounding_is_no_difference(
    bert: tuple[ShippedModel, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "_traced", lambda _: Written(bert[1]))
    assert export_onnx(shifted(bert[0], "tags", 5e-5), tmp_path) == [tmp_path / "model.onnx"]


def test_model_that_torch_cannot_write_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise OnnxExporterError("many\nlines") from ValueError("an operation is unknown\nHint: ...")

    monkeypatch.setattr(torch.onnx, "export", refused)
    with pytest.raises(RuntimeError, match=r"this 'electra': an operation is unknown$"):
        export_onnx(model_of("electra"), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_missing_package_is_named_with_what_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        RuntimeError, match=rf"but {package} must .* pip install 'multiprune\[onnx\]'"
    ):
        export_onnx(model_of("bert"), tmp_path)


def boxes(model: ShippedModel) -> None:
    model.tokenizer.model_input_names = ["input_ids", "attention_mask", "bbox"]


def no_mask(model: ShippedModel) -> None:
    model.tokenizer.model_input_names = ["input_ids"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: model.encoder.half(), r"but the model is torch.float16, torch.float32\."),
        (lambda model: model.bfloat16(), r"but the model is torch.bfloat16\."),
        (lambda model: model.heads.train(), "must be in evaluation mode"),
        (boxes, "but gives attention_mask, bbox, input_ids"),
        (no_mask, "but gives input_ids"),
    ],
    ids=["half", "bfloat16", "training", "unknown input", "no mask"],
)
def test_what_cannot_be_exported_is_refused(
    tmp_path: Path, change: Callable[[ShippedModel], object], message: str
) -> None:
    model = model_of("bert")
    change(model)
    with pytest.raises(ValueError, match=message):
        export_onnx(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_folder_must_exist(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="must be a folder to write into"):
        export_onnx(model_of("bert"), tmp_path / "none")
