import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from shipped_world import FAMILIES, SENTENCES, TASKS, TOKENIZER, network
from tiny_encoders import HEAD_SIZE, HEADS_PER_LAYER, tiny_encoder
from torch import Tensor
from torch.nn import functional
from transformers import AutoConfig, AutoModel, AutoTokenizer
from transformers.models.bert.modeling_bert import BertIntermediate
from transformers.models.distilbert.modeling_distilbert import FFN

from multiprune.data.collate import collate
from multiprune.export import checkpoint
from multiprune.export.checkpoint import save_encoder, save_model
from multiprune.models.from_scratch import from_scratch
from multiprune.models.modeling_multiprune import DroppedLayer
from multiprune.models.multitask import MultitaskModel


def tiny(seed: int) -> MultitaskModel:
    torch.manual_seed(seed)
    return MultitaskModel(
        from_scratch(layers=2, hidden=16, heads=2, intermediate=32).model, TASKS
    ).eval()


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@torch.no_grad()
def shipped_logits(folder: Path, name: str) -> Tensor:
    """Answer as a user of the folder would, who does not have this package."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoder = AutoModel.from_pretrained(folder, add_pooling_layer=False).eval()
    heads = load_file(folder / "heads.safetensors")
    inputs = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    states = encoder(**inputs).last_hidden_state
    if name != "tags":
        mask = inputs["attention_mask"].unsqueeze(-1)
        states = (states * mask).sum(1) / mask.sum(1)
    return functional.linear(states, heads[f"{name}.output.weight"], heads[f"{name}.output.bias"])


@torch.no_grad()
def logits(model: MultitaskModel, name: str) -> Tensor:
    columns = TOKENIZER(SENTENCES, return_attention_mask=False)
    lengths = [len(tokens) for tokens in columns["input_ids"]]
    labels: list[Any] = [[0] * length for length in lengths] if name == "tags" else [0, 0]
    batch = collate(name, TASKS[name], {**columns, "labels": labels}, padding_token=0)
    found: Tensor = model(batch)
    return found


def test_folder_gives_the_same_logits_without_this_package(tmp_path: Path) -> None:
    model = tiny(0)
    save_model(tmp_path / "model", model, TOKENIZER, TASKS)
    for name in TASKS:
        assert torch.equal(shipped_logits(tmp_path / "model", name), logits(model, name)), name


def test_tokenizer_is_shipped_with_the_model(tmp_path: Path) -> None:
    save_model(tmp_path / "model", tiny(0), TOKENIZER, TASKS)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert tokenizer(SENTENCES)["input_ids"] == TOKENIZER(SENTENCES)["input_ids"]
    assert tokenizer.model_max_length == TOKENIZER.model_max_length


def test_meaning_of_the_outputs_is_shipped_with_the_heads(tmp_path: Path) -> None:
    save_model(tmp_path / "model", tiny(0), TOKENIZER, TASKS, 64)
    meaning = json.loads((tmp_path / "model" / "heads.json").read_text())
    columns = {"text": ["sentence"], "label": "label"}
    assert {one.pop("max_length") for one in meaning.values()} == {64}
    assert meaning == {
        "classes": {"kind": "classes", "labels": ["bad", "good", "fair"]} | columns,
        "number": {"kind": "number", "bounds": [0, 5]} | columns,
        "pairs": {"kind": "classes", "labels": ["no", "yes"], "label": "label"}
        | {"text": ["premise", "hypothesis"]},
        "tags": {"kind": "tags", "labels": ["other", "agent"], "label": "label"}
        | {"text": ["tokens"], "overlap": 32, "per_token": True, "reads_words": True},
    }


#: By architecture: path of the layers; what transformers builds of a layer's configuration; the
#: layer of neurons in that, and in a layer.
BUILT: dict[str, tuple[str, Any, str, str]] = {
    "bert": ("encoder.layer", BertIntermediate, "dense", "intermediate.dense"),
    "distilbert": ("transformer.layer", FFN, "lin1", "ffn.lin1"),
}


@pytest.mark.parametrize("name", BUILT)
@pytest.mark.parametrize("family", ["heads_and_neurons", "drop_and_cut"])
def test_shapes_are_said_in_the_words_of_transformers(
    name: str, family: str, tmp_path: Path
) -> None:
    layers, kind, theirs, ours = BUILT[name]
    encoder = tiny_encoder(name, dtype=torch.float32)
    FAMILIES[family](encoder)
    save_encoder(tmp_path, encoder)
    described = AutoConfig.from_pretrained(tmp_path).per_layer_config
    for config, layer in zip(described, encoder.get_submodule(layers).children(), strict=True):
        if isinstance(layer, DroppedLayer):
            assert config.skip == ["attention", "mlp"]
            continue
        neurons = kind(config).get_submodule(theirs).weight
        assert neurons.shape == layer.get_parameter(f"{ours}.weight").shape
        assert config.num_attention_heads == HEADS_PER_LAYER - 1
        assert config.head_dim == HEAD_SIZE


def test_encoder_without_sizes_of_its_own_has_no_per_layer_config(tmp_path: Path) -> None:
    save_model(tmp_path / "model", network("low_rank"), TOKENIZER, TASKS)
    assert "per_layer_config" not in json.loads((tmp_path / "model" / "config.json").read_text())


def test_folder_holds_safetensors_and_json_only(tmp_path: Path) -> None:
    save_model(tmp_path / "model", tiny(0), TOKENIZER, TASKS)
    names = {file.name for file in (tmp_path / "model").rglob("*")}
    assert names >= {"config.json", "model.safetensors", "heads.safetensors", "heads.json"}
    assert {Path(name).suffix for name in names} == {".json", ".safetensors"}


def test_existing_folder_is_replaced_as_a_whole_where_that_is_allowed(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save_model(folder, tiny(0), TOKENIZER, TASKS)
    (folder / "left.txt").write_text("from before")
    model = tiny(1)
    with pytest.raises(FileExistsError, match="model was created by another process"):
        save_model(folder, model, TOKENIZER, TASKS)
    assert (folder / "left.txt").read_text() == "from before"
    save_model(folder, model, TOKENIZER, TASKS, claim=lambda _: None)
    assert not (folder / "left.txt").exists()
    assert torch.equal(shipped_logits(folder, "classes"), logits(model, "classes"))
    assert [one.name for one in tmp_path.iterdir()] == ["model"]


def test_missing_parents_are_made(tmp_path: Path) -> None:
    save_model(tmp_path / "a" / "b" / "model", tiny(0), TOKENIZER, TASKS)
    assert (tmp_path / "a" / "b" / "model" / "config.json").is_file()


@pytest.mark.parametrize("existing", [True, False], ids=["old folder", "no folder"])
def test_failure_in_the_middle_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, existing: bool
) -> None:
    def full(tensors: dict[str, Tensor], file: Path) -> None:
        file.write_bytes(b"half")
        raise OSError(f"No space left on device for {len(tensors)} tensors")

    folder = tmp_path / "model"
    if existing:
        save_model(folder, tiny(0), TOKENIZER, TASKS)
    before = content(folder) if existing else {}
    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        save_model(folder, tiny(1), TOKENIZER, TASKS)
    if existing:
        assert content(folder) == before
    assert [one.name for one in tmp_path.iterdir()] == (["model"] if existing else [])


def test_folder_has_the_permissions_of_its_surroundings(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    save_model(tmp_path / "model", tiny(0), TOKENIZER, TASKS)
    assert (tmp_path / "model").stat().st_mode & 0o777 == 0o755


def test_files_can_be_read_by_all_who_can_read_the_surroundings(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    save_model(tmp_path / "model", tiny(0), TOKENIZER, TASKS)
    modes = {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "model").iterdir()}
    assert modes == dict.fromkeys(modes, 0o644)


def test_saving_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    model = tiny(0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_model(tmp_path / "model", model, TOKENIZER, TASKS)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
