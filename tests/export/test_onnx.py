import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
import torch
from onnxruntime import InferenceSession
from tiers import slow
from tiny_encoders import (
    ALIASES,
    CONFIGS,
    HEAD_SIZE,
    HEADS_PER_LAYER,
    INTERMEDIATE,
    TEXT_TO_TEXT,
    tiny_encoder,
)
from torch import Tensor, nn
from torch.onnx.errors import OnnxExporterError
from transformers import BertTokenizer, PreTrainedTokenizerBase

from multiprune.cli import main
from multiprune.data.source import HubSource
from multiprune.export import onnx as exporting
from multiprune.export.checkpoint import save_model
from multiprune.export.convert import ExportSettings, export_model
from multiprune.export.loading import load
from multiprune.export.onnx import export_onnx
from multiprune.export.shipped import ShippedModel
from multiprune.metrics import Accuracy
from multiprune.models.architectures import ARCHITECTURES, NEURONS, QUERY_KEY, VALUE
from multiprune.models.hidden import hidden_states_of
from multiprune.models.low_rank import LowRankLinear
from multiprune.models.multitask import MultitaskModel
from multiprune.models.shrink import shrink_layer
from multiprune.models.structure import Layer, layers_of
from multiprune.pruning.hidden_state import HiddenState
from multiprune.tasks.classification import Classification, MultiLabel, Regression
from multiprune.tasks.tagging import Tagging
from multiprune.tasks.task import Task

TELLS_PAIRS_APART = {"bert", "electra", "deberta_shared_keys", "albert_groups"}
WORDS = ["the", "cow", "runs", "two", "red", "dogs", "near", "one", "pig", "sleep", "by", "it"]
PIECES = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
COMMON: dict[str, Any] = {
    "text": ["sentence"],
    "label": "label",
    "metrics": {"accuracy": Accuracy()},
    "source": HubSource(path=None, mirror="nowhere"),
}
TASKS: dict[str, Task] = {
    "classes": Classification(labels=["bad", "good", "fair"], **COMMON),
    "sets": MultiLabel(labels=["short", "long"], **COMMON),
    "number": Regression(minimum=0, maximum=5, **COMMON),
    "tags": Tagging(labels=["other", "agent"], **COMMON),
}
SENTENCES = ["the cow runs", "two red dogs near the pig sleep by the one cow", ""]


def tokenizer_of(name: str) -> PreTrainedTokenizerBase:
    inputs = ["input_ids", "attention_mask"]
    if name in TELLS_PAIRS_APART:
        inputs.insert(1, "token_type_ids")
    vocabulary = {piece: index for index, piece in enumerate(PIECES)}
    return BertTokenizer(vocab=vocabulary, model_max_length=18, model_input_names=inputs)


def cut(layer: Layer) -> None:
    """Keep some heads (and dimensions of each, where an architecture can) and some neurons."""
    heads = torch.tensor([True, False, True, True])[:, None].repeat(1, HEAD_SIZE)
    query_key = heads.clone()
    if layer.architecture.resizable_heads:
        heads[:, 0], query_key[:, -1] = False, False
    neurons = torch.arange(INTERMEDIATE) % 3 > 0
    masks = {QUERY_KEY: query_key, VALUE: heads, NEURONS: neurons}
    shrink_layer(layer, {units: mask.flatten() for units, mask in masks.items()})


def drop(layer: Layer, *, attention: bool = True, feed_forward: bool = True) -> None:
    width = HEADS_PER_LAYER * HEAD_SIZE
    heads = torch.full((width,), not attention)
    neurons = torch.full((INTERMEDIATE,), not feed_forward)
    shrink_layer(layer, {QUERY_KEY: heads, VALUE: heads, NEURONS: neurons})


def drop_attention(layer: Layer) -> None:
    drop(layer, feed_forward=False)


def drop_feed_forward(layer: Layer) -> None:
    drop(layer, attention=False)


def factorize(layer: Layer) -> None:
    """Replace the first and the last linear layer by products of two."""
    *_, last = layer.architecture.linear
    for path in (next(iter(layer.architecture.linear)), last):
        linear = cast("nn.Linear", layer.encoder.get_submodule(f"{layer.path}.{path}"))
        product = LowRankLinear.from_linear(linear, 5).factored()
        layer.encoder.set_submodule(f"{layer.path}.{path}", product)


def cut_and_factorize(layer: Layer) -> None:
    cut(layer)
    factorize(layer)


def leave(_: Layer) -> None:
    pass


#: What becomes of the layers; ModernBERT keeps the one that looks at neighbours only.
CHANGES: dict[str, tuple[Callable[[Layer], None], Callable[[Layer], None]]] = {
    "bert": (cut_and_factorize, leave),
    "roberta": (drop, cut),
    "xlm_roberta": (cut_and_factorize, drop_feed_forward),
    "electra": (factorize, drop),
    "distilbert": (cut_and_factorize, drop_attention),
    "mpnet": (cut_and_factorize, drop_attention),
    "deberta_shared_keys": (cut_and_factorize, drop_feed_forward),
    "modernbert": (drop, cut_and_factorize),
    "albert_groups": (cut_and_factorize, drop),
}
OF_A_RUN = ["electra", "albert_groups"]


def pruned(name: str) -> MultitaskModel:
    encoder = tiny_encoder(name, dtype=torch.float32)
    for layer, change in zip(layers_of(encoder), CHANGES[name], strict=True):
        change(layer)
    torch.manual_seed(0)
    return MultitaskModel(encoder, TASKS).eval()


def dense(name: str) -> ShippedModel:
    torch.manual_seed(0)
    model = MultitaskModel(tiny_encoder(name, dtype=torch.float32), TASKS).eval()
    return shipped(model, name)


def shipped(model: MultitaskModel, name: str) -> ShippedModel:
    meaning = {task: dict(TASKS[task].description) for task in TASKS}
    return ShippedModel(model.encoder, model.heads, meaning, tokenizer_of(name)).eval()


def given(model: ShippedModel, task: str, **options: Any) -> dict[str, Any]:
    words = task == "tags"
    texts = [text.split() or ["it"] for text in SENTENCES] if words else SENTENCES
    inputs = model.tokenizer(
        texts, is_split_into_words=words, padding=True, return_tensors="np", **options
    )
    return dict(inputs)


def answers(file: Path, task: str, inputs: dict[str, Any]) -> Tensor:
    session = InferenceSession(file, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run([task], inputs)[0])


@torch.no_grad()
def check(file: Path, model: ShippedModel) -> None:
    """Compare a file with the model in memory that it was made of."""
    for task in TASKS:
        inputs = given(model, task)
        tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
        found, expected = answers(file, task, inputs), model(task, tensors)
        if task == "tags":
            real = tensors["attention_mask"].bool()
            found, expected = found[real], expected[real]
        assert (expected.std(0) > 0.01).all()
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("run")
    save_model(folder / "model", pruned("bert"), tokenizer_of("bert"), TASKS)
    return folder


@pytest.fixture(scope="module")
def bert(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[ShippedModel, Path]:
    """A model that was saved and loaded, and its file."""
    model = load(run)
    (file,) = export_onnx(model, tmp_path_factory.mktemp("bert"))
    return model, file


def test_every_known_architecture_is_written() -> None:
    # An encoder-decoder is refused: test_text_to_text.py.
    refused = {make().model_type for make in TEXT_TO_TEXT.values()} | ALIASES.keys()
    assert {CONFIGS[name]().model_type for name in CHANGES} == set(ARCHITECTURES) - refused


@pytest.mark.parametrize(
    "name",
    [
        "deberta_shared_keys",
        *slow(*sorted(CHANGES.keys() - {"bert", "deberta_shared_keys", *OF_A_RUN})),
    ],
)
def test_pruned_model_answers_the_same(name: str, tmp_path: Path) -> None:
    model = shipped(pruned(name), name)
    assert export_onnx(model, tmp_path) == [tmp_path / "model.onnx"]
    check(tmp_path / "model.onnx", model)


def test_model_without_some_hidden_dimensions_answers_the_same(tmp_path: Path) -> None:
    encoder = tiny_encoder("bert", dtype=torch.float32)
    state = HiddenState(hidden_states_of(encoder))
    state.keep(torch.arange(state.parts.size) % 3 != 1)
    state.zero()
    for layer in layers_of(encoder):
        cut(layer)
    state.cut(encoder)
    torch.manual_seed(0)
    model = MultitaskModel(encoder, TASKS).eval()
    save_model(tmp_path / "run" / "model", model, tokenizer_of("bert"), TASKS)
    export_model(tmp_path / "run", tmp_path / "out", ExportSettings(format="onnx"))
    check(tmp_path / "out" / "model.onnx", shipped(model, "bert"))


@pytest.mark.parametrize("name", OF_A_RUN)
def test_model_of_a_run_answers_the_same(name: str, tmp_path: Path) -> None:
    model = pruned(name)
    save_model(tmp_path / "run" / "model", model, tokenizer_of(name), TASKS)
    export_model(tmp_path / "run", tmp_path / "out", ExportSettings(format="onnx"))
    check(tmp_path / "out" / "model.onnx", shipped(model, name))


def test_model_that_was_loaded_answers_the_same(bert: tuple[ShippedModel, Path]) -> None:
    check(bert[1], shipped(pruned("bert"), "bert"))


def test_pairs_are_told_apart(bert: tuple[ShippedModel, Path]) -> None:
    model, file = bert
    seconds = ["it runs", "the pig", "two"]
    inputs = given(model, "classes", text_pair=seconds)
    found = answers(file, "classes", inputs)
    with torch.no_grad():
        tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
        expected = model("classes", tensors)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("examples", "length"), [(1, 1), (1, 20), (2, 7), (5, 2), (3, 13)])
def test_batch_and_length_are_free(
    bert: tuple[ShippedModel, Path], examples: int, length: int
) -> None:
    model, file = bert
    ids = torch.randint(5, 17, (examples, length), generator=torch.Generator().manual_seed(0))
    inputs = dict.fromkeys(model.tokenizer.model_input_names, torch.ones_like(ids))
    inputs["input_ids"] = ids
    for task in TASKS:
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
        "classes": ["batch", 3],
        "sets": ["batch", 2],
        "number": ["batch", 1],
        "tags": ["batch", "length", 2],
    }


def test_encoder_is_stored_once_in_its_pruned_shapes(bert: tuple[ShippedModel, Path]) -> None:
    model, file = bert
    stored = sum(
        int(np.prod(one.dims))
        for one in onnx.load(file).graph.initializer
        if one.data_type == onnx.TensorProto.FLOAT and len(one.dims) == 2
    )
    assert stored == sum(one.numel() for one in model.parameters() if one.dim() == 2)


def test_file_names_no_path_of_this_machine(bert: tuple[ShippedModel, Path]) -> None:
    content = bert[1].read_bytes()
    assert b"site-packages" not in content
    assert str(Path(__file__).parents[2]).encode() not in content


def test_same_model_gives_the_same_file_by_the_command(
    bert: tuple[ShippedModel, Path], run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    main(["export", str(run), "--out", str(tmp_path / "out"), "--format", "onnx"])
    assert (tmp_path / "out" / "model.onnx").read_bytes() == bert[1].read_bytes()
    assert not [record for record in caplog.records if record.levelno >= logging.INFO]
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_export_leaves_the_model_as_it_was(bert: tuple[ShippedModel, Path], run: Path) -> None:
    after, before = bert[0].state_dict(), load(run).state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


class Written:
    """What torch.onnx gave, if it gave this model."""

    def __init__(self, model: onnx.ModelProto, **options: Any) -> None:
        self.model, self.options = model, options

    def save(self, file: Path) -> None:
        onnx.save(self.model, str(file), **self.options)


def gives(monkeypatch: pytest.MonkeyPatch, file: Path, **options: Any) -> onnx.ModelProto:
    model = onnx.load(file)
    monkeypatch.setattr(exporting, "_traced", lambda _: Written(model, **options))
    monkeypatch.setattr(exporting, "write_program", Written.save)
    return model


def test_weights_in_a_file_of_their_own_are_found(
    bert: tuple[ShippedModel, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = "model.onnx.data"
    gives(monkeypatch, bert[1], save_as_external_data=True, location=data, size_threshold=256)
    assert export_onnx(bert[0], tmp_path) == [tmp_path / "model.onnx", tmp_path / data]
    assert sorted(tmp_path.iterdir()) == [tmp_path / "model.onnx", tmp_path / data]
    check(tmp_path.rename(f"{tmp_path}-moved") / "model.onnx", bert[0])


def shifted(model: ShippedModel, task: str, shift: float) -> ShippedModel:
    changed = MultitaskModel(model.encoder, TASKS).heads.eval()
    changed.load_state_dict(model.heads.state_dict())
    with torch.no_grad():
        changed.get_parameter(f"{task}.output.bias")[-1] += shift
    return ShippedModel(model.encoder, changed, model.meaning, model.tokenizer).eval()


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("shift", [1e-3, -1.0, float("nan"), float("inf")])
def test_other_answers_are_refused_and_leave_nothing(
    bert: tuple[ShippedModel, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    task: str,
    shift: float,
) -> None:
    (tmp_path / "other.txt").write_text("stays")
    gives(monkeypatch, bert[1])
    with pytest.raises(
        RuntimeError, match=rf"differ from those of PyTorch by .* for {task}, more than 0\.0001"
    ):
        export_onnx(shifted(bert[0], task, shift), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["other.txt"]


def test_rounding_is_no_difference(
    bert: tuple[ShippedModel, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gives(monkeypatch, bert[1])
    assert export_onnx(shifted(bert[0], "tags", 5e-5), tmp_path) == [tmp_path / "model.onnx"]


def test_file_for_one_length_is_refused(
    bert: tuple[ShippedModel, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = gives(monkeypatch, bert[1])
    for tensor in model.graph.input:
        tensor.type.tensor_type.shape.dim[1].dim_value = 7
    with pytest.raises(RuntimeError, match=r"ONNX Runtime cannot run .*input_ids"):
        export_onnx(bert[0], tmp_path)
    assert not list(tmp_path.iterdir())


def test_old_file_is_replaced(
    bert: tuple[ShippedModel, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.onnx").write_bytes(b"of another model")
    gives(monkeypatch, bert[1])
    export_onnx(bert[0], tmp_path)
    check(tmp_path / "model.onnx", bert[0])


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        (ValueError("an operation is unknown\nHint: ..."), "an operation is unknown"),
        (KeyError(), "KeyError"),
    ],
)
def test_model_that_torch_cannot_write_is_named_and_leaves_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cause: Exception, reason: str
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise OnnxExporterError("many\nlines") from cause

    monkeypatch.setattr(torch.onnx, "export", refused)
    with pytest.raises(SystemExit, match=rf"^error: .* this 'bert' encoder: {reason}\.$"):
        main(["export", str(run), "--out", str(tmp_path / "out"), "--format", "onnx"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_missing_package_is_named_with_what_installs_it(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        SystemExit, match=rf"^error: .* needs {package}, .* pip install 'multiprune\[onnx\]'\.$"
    ):
        main(["export", str(run), "--out", str(tmp_path / "out"), "--format", "onnx"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--storage", "bitmask"], "`storage` is bitmask"),
        (["--dtype", "fp16"], "`dtype` is fp16"),
        (["--dtype", "bf16"], "`dtype` is bf16"),
    ],
)
def test_what_onnx_has_not_is_refused(
    run: Path, tmp_path: Path, options: list[str], sentence: str
) -> None:
    arguments = ["export", str(run), "--out", str(tmp_path / "out"), "--format", "onnx"]
    with pytest.raises(SystemExit, match=rf"^error: ONNX export .* dense .* fp32.*{sentence}"):
        main([*arguments, *options])
    assert not list(tmp_path.iterdir())


def boxes(model: ShippedModel) -> None:
    model.tokenizer.model_input_names = ["input_ids", "attention_mask", "bbox"]


def no_mask(model: ShippedModel) -> None:
    model.tokenizer.model_input_names = ["input_ids"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: model.encoder.half(), "is torch.float16, torch.float32: .* `dtype` fp32"),
        (lambda model: model.bfloat16(), "but this one is torch.bfloat16: .* `dtype` fp32"),
        (lambda model: model.heads.train(), "is in training mode"),
        (boxes, "but gives attention_mask, bbox, input_ids"),
        (no_mask, "but gives input_ids"),
    ],
    ids=["half", "bfloat16", "training", "unknown input", "no mask"],
)
def test_what_cannot_be_exported_is_refused(
    tmp_path: Path, change: Callable[[ShippedModel], object], message: str
) -> None:
    model = dense("bert")
    change(model)
    with pytest.raises(ValueError, match=message):
        export_onnx(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_model_of_16_bits_is_written_with_32(
    bert: tuple[ShippedModel, Path], run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_model(run, tmp_path / "half", ExportSettings(dtype="fp16"))
    seen: list[torch.dtype] = []

    def traced(model: ShippedModel) -> Written:
        seen.extend({one.dtype for one in model.parameters()})
        return Written(onnx.load(bert[1]))

    monkeypatch.setattr(exporting, "_traced", traced)
    monkeypatch.setattr(exporting, "write_program", Written.save)
    monkeypatch.setattr(exporting, "TOLERANCE", 0.01)
    settings = ExportSettings(format="onnx", dtype="fp32")
    export_model(tmp_path / "half", tmp_path / "out", settings)
    assert seen == [torch.float32]


def test_folder_must_exist(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"output folder .* does not exist"):
        export_onnx(dense("bert"), tmp_path / "none")
