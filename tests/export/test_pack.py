"""Packed models answer as their own runs do, and what does not belong together is refused."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from shipped_world import READ, TASKS, TOKENIZER

import multiprune
from multiprune.export.bitmask import load_bitmask
from multiprune.export.checkpoint import save_model
from multiprune.export.convert import ExportSettings, export_model
from multiprune.export.digests import DIGESTS
from multiprune.export.kept import kept_weights
from multiprune.export.pack import pack
from multiprune.export.packed import MASKS
from multiprune.export.switching import PackedModel
from multiprune.measure.contestant import contestants
from multiprune.models.from_scratch import from_scratch
from multiprune.models.multitask import MultitaskModel
from multiprune.models.structure import layers_of

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from multiprune.export.shipped import ShippedModel

QUERY = "encoder.layer.0.attention.self.query.weight"
SHARED = "shared.bitmask.safetensors"
#: Three runs, one of them of two tasks, and what each keeps of the weights of linear layers.
RUNS = {"one": (["classes"], 0.1), "two": (["pairs", "tags"], 0.3), "three": (["number"], 0.5)}


def model_of(tasks: list[str], density: float, *, seed: int) -> MultitaskModel:
    """Make a model of the one encoder, with a mask and heads of its own."""
    torch.manual_seed(0)
    encoder = from_scratch(layers=2, hidden=16, heads=2, intermediate=12).model
    torch.manual_seed(seed)
    for layer in layers_of(encoder):
        for linear, _ in layer.linear_layers():
            linear.weight.data.mul_(torch.rand(linear.weight.shape) < density)
    return MultitaskModel(encoder, {name: TASKS[name] for name in tasks})


def save(folder: Path, model: MultitaskModel) -> Path:
    save_model(folder / "model", model, TOKENIZER, {name: TASKS[name] for name in model.heads})
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    return [
        save(folder / name, model_of(tasks, density, seed=seed))
        for seed, (name, (tasks, density)) in enumerate(RUNS.items())
    ]


@pytest.fixture(scope="module")
def pristine(runs: list[Path]) -> Path:
    pack(runs, runs[0].parent / "packed")
    return runs[0].parent / "packed"


@pytest.fixture
def packed(pristine: Path, tmp_path: Path) -> Path:
    """A packed folder that the test may damage."""
    return shutil.copytree(pristine, tmp_path / "packed")


def loaded(folder: Path) -> PackedModel:
    model = multiprune.load(folder)
    assert isinstance(model, PackedModel)
    return model


def own(runs: list[Path], task: str) -> ShippedModel:
    """Load the run of a task, with tensors where an allocator puts them.

    Those of a file lie anywhere in memory, and sums depend on it in their last bits.
    """
    [run] = [run for run in runs if task in RUNS[run.name][0]]
    model: ShippedModel = multiprune.load(run)
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return model


def answer(model: ShippedModel, task: str) -> Tensor:
    texts, pairs = READ[task]
    return model.logits(task, texts, pairs)


def refused(runs: list[Path], out: Path) -> str:
    """Return what is said about runs that cannot be packed: one sentence, and nothing is left."""
    with pytest.raises((ValueError, OSError)) as caught:
        pack(runs, out)
    assert not any(out.parent.glob(f"*{out.name}*"))
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def unloadable(folder: Path) -> str:
    with pytest.raises((ValueError, OSError)) as caught:
        multiprune.load(folder)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize(
    "order",
    [
        ["classes", "pairs", "tags", "number"],
        ["number", "classes", "number", "tags", "classes", "pairs", "pairs", "number"],
    ],
)
def test_each_task_answers_as_its_own_run_in_any_order(
    order: list[str], runs: list[Path], pristine: Path
) -> None:
    model = loaded(pristine)
    for task in order:
        assert torch.equal(answer(model, task), answer(own(runs, task), task))
        assert model.task == task


def test_the_encoder_has_exactly_the_weights_of_the_task(runs: list[Path], pristine: Path) -> None:
    model = loaded(pristine)
    for task in ("number", "tags", "classes", "pairs"):
        model.switch(task)
        expected = own(runs, task).encoder.state_dict()
        found = model.encoder.state_dict()
        assert found.keys() == expected.keys()
        assert [key for key in found if not torch.equal(found[key], expected[key])] == []


def test_a_task_whose_mask_is_in_place_writes_nothing(pristine: Path) -> None:
    model = loaded(pristine)
    model.switch("pairs")
    weight = model.encoder.get_parameter(QUERY).data
    weight.fill_(7.0)
    model.switch("pairs")
    model.switch("tags")  # of the same run
    assert model.task == "tags"
    assert bool((weight == 7).all())
    model.switch("number")
    assert not (weight == 7).any()


def test_first_task_is_in_place_from_the_start(runs: list[Path], pristine: Path) -> None:
    model = loaded(pristine)
    assert model.task == "classes"
    expected = own(runs, "classes").encoder.get_parameter(QUERY)
    assert torch.equal(model.encoder.get_parameter(QUERY), expected)


def test_forward_switches_too(runs: list[Path], pristine: Path) -> None:
    inputs = TOKENIZER(READ["number"][0], padding=True, return_tensors="pt")
    model = loaded(pristine)
    with torch.inference_mode():
        assert torch.equal(model("number", inputs), own(runs, "number")("number", inputs))


def test_switching_follows_the_precision_that_the_model_was_cast_to(
    runs: list[Path], pristine: Path
) -> None:
    model = loaded(pristine).to(torch.bfloat16)
    for task in ("number", "classes"):
        expected = own(runs, task).to(torch.bfloat16)
        assert torch.equal(answer(model, task), answer(expected, task))


def test_unknown_task_is_refused_and_changes_nothing(pristine: Path) -> None:
    model = loaded(pristine)
    for ask in (model.switch, lambda task: model.logits(task, ["the fox runs"])):
        with pytest.raises(ValueError, match="must be one of classes, pairs, tags, number, but is"):
            ask("x")
    assert model.task == "classes"


def test_memory_is_two_encoders_at_most_and_a_bit_a_weight_and_run(pristine: Path) -> None:
    model = loaded(pristine)
    encoder = sum(one.nbytes for one in model.encoder.parameters())
    linear = sum(
        linear.weight.numel()
        for layer in layers_of(model.encoder)
        for linear, _ in layer.linear_layers()
    )
    heads = sum(one.nbytes for one in model.heads.parameters())
    every = {one.untyped_storage().data_ptr(): one for one in model.state_dict().values()}
    taken = sum(one.nbytes for one in every.values()) - encoder - heads
    # Of the tensors that masks differ on: the shared weights, and an eighth of a byte a run.
    assert taken == linear * 4 + len(RUNS) * linear // 8


def test_shared_weights_are_those_that_any_run_keeps(runs: list[Path], pristine: Path) -> None:
    shared = load_bitmask(pristine / SHARED)
    kept = [kept_weights(run) for run in runs]
    for path in kept[0]:
        by_any = torch.stack([one[path] for one in kept]).any(0)
        assert torch.equal(shared[path] != 0, by_any), path
    assert (shared[QUERY] == 0).any()


def test_runs_and_exports_of_any_storage_pack_alike(runs: list[Path], tmp_path: Path) -> None:
    exported = []
    for run, storage in zip(runs, ("bitmask", "dense", "bitmask"), strict=True):
        exported.append(tmp_path / run.name)
        export_model(run, exported[-1], ExportSettings(storage=storage))
    pack(exported, tmp_path / "first")
    pack(runs, tmp_path / "second")
    first, second = (
        {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()}
        for name in ("first", "second")
    )
    assert {"config.json", "README.md", "heads.json", MASKS, SHARED} < first.keys()
    # The same bytes, however often they are written.
    assert first == second
    assert {name.rpartition(".")[2] for name in first} <= {"json", "md", "safetensors", "txt"}


def test_runs_of_half_precision_pack(tmp_path: Path) -> None:
    folders = []
    for seed, tasks in enumerate((["classes"], ["number"])):
        model = model_of(tasks, 0.3, seed=seed).to(torch.bfloat16)
        folders.append(save(tmp_path / str(seed), model))
    pack(folders, tmp_path / "out")
    packed = loaded(tmp_path / "out")
    assert packed.encoder.dtype == torch.bfloat16
    expected = multiprune.load(folders[1]).encoder.get_parameter(QUERY)
    packed.switch("number")
    assert torch.equal(packed.encoder.get_parameter(QUERY), expected)


def test_masks_take_what_is_unsure_about_the_shared_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = from_scratch(layers=1, hidden=128, heads=2, intermediate=256).model
    dense = {key: one.clone() for key, one in encoder.state_dict().items()}
    folders = []
    for seed, task in enumerate(("classes", "number")):
        torch.manual_seed(seed)
        encoder.load_state_dict(dense)
        for layer in layers_of(encoder):
            for linear, _ in layer.linear_layers():
                linear.weight.data.mul_(torch.rand(linear.weight.shape) < 0.1)
        folders.append(save(tmp_path / task, MultitaskModel(encoder, {task: TASKS[task]})))
    pack(folders, tmp_path / "out")
    size = 131_072  # weights of linear layers
    stored = load_file(tmp_path / "out" / MASKS)
    # Of 19 % that any keeps, each run has 10 in 19: one bit each, and 0.47 were all weights asked.
    for number in "01":
        taken = 8 * sum(one.nbytes for key, one in stored.items() if key.startswith(number))
        assert taken < 0.22 * size
    assert not [key for key in stored if "embeddings" in key]


def test_card_has_the_numbers_of_the_folder(runs: list[Path], pristine: Path) -> None:
    rows = (pristine / "README.md").read_text().splitlines()
    stored = load_file(pristine / MASKS)
    linear = [key for key in kept_weights(runs[0]) if "embeddings" not in key]
    for number, run in enumerate(runs):
        kept = kept_weights(run)
        density = np.mean(np.concatenate([kept[key].flatten().numpy() for key in linear]))
        size = sum(one.nbytes for key, one in stored.items() if key.startswith(f"{number}."))
        for task in RUNS[run.name][0]:
            head = sum(one.nbytes for one in multiprune.load(run).heads[task].parameters())
            mask = "that of pairs" if task == "tags" else f"{size:,}"
            assert f"| {task} | {density:.4f} | {mask} | {head:,} |" in rows
    files = {
        name: (pristine / name).stat().st_size for name in (SHARED, MASKS, "heads.safetensors")
    }
    for name, size in files.items():
        assert f"| {name} | {size:,} |" in rows
    assert f"| together | {sum(files.values()):,} |" in rows
    own_bytes = [
        [sum(one.nbytes for one in part.parameters()) for part in (model.encoder, model.heads)]
        for model in map(multiprune.load, runs)
    ]
    assert f"| 3 dense models | {sum(map(sum, own_bytes)):,} |" in rows
    bitmask = 0
    for run, (_, heads) in zip(runs, own_bytes, strict=True):
        out = pristine.parent / f"small-{run.name}"
        export_model(run, out, ExportSettings(storage="bitmask"))
        bitmask += (out / "model.bitmask.safetensors").stat().st_size + heads
    assert f"| 3 exports with `--storage bitmask` | {bitmask:,} |" in rows


def test_a_single_run_is_refused(runs: list[Path], tmp_path: Path) -> None:
    assert "at least two runs to pack, not 1" in refused(runs[:1], tmp_path / "out")


def test_a_task_in_two_runs_is_refused(runs: list[Path], tmp_path: Path) -> None:
    again = save(tmp_path / "again", model_of(["number", "tags"], 0.5, seed=9))
    said = refused([runs[0], runs[1], again], tmp_path / "out")
    assert f"tags is in both {runs[1]} and {again}" in said


def test_weights_that_have_moved_are_refused(runs: list[Path], tmp_path: Path) -> None:
    model = model_of(["number"], 0.5, seed=2)
    weight = model.encoder.get_parameter(QUERY).data
    kept = kept_weights(runs[1])[QUERY] & ~kept_weights(runs[0])[QUERY] & (weight != 0)
    row, column = kept.nonzero()[0].tolist()
    weight[row, column] = torch.nextafter(weight[row, column], torch.tensor(9.0))
    moved = save(tmp_path / "moved", model)
    said = refused([runs[0], runs[1], moved], tmp_path / "out")
    # The first run has pruned that weight.
    assert f"{QUERY} is not the same in {runs[1]} and {moved}" in said


@pytest.mark.parametrize("path", ["encoder.layer.1.output.dense.bias", "embeddings.LayerNorm.bias"])
def test_other_tensors_that_have_moved_are_refused(
    path: str, runs: list[Path], tmp_path: Path
) -> None:
    # Zero in one run and not in the other is no pruning, where it is not of a matrix.
    model = model_of(["number"], 0.5, seed=2)
    model.encoder.get_parameter(path).data[3] += 1
    moved = save(tmp_path / "moved", model)
    said = refused([runs[0], moved], tmp_path / "out")
    assert f"{path} is not the same in {runs[0]} and {moved}" in said


@pytest.mark.parametrize(
    ("hidden", "intermediate", "heads", "named"),
    [
        (32, 12, 2, "hidden_size is 16"),
        (16, 8, 2, "intermediate_size is 12"),
        (16, 12, 4, "num_attention_heads is 2"),
    ],
)
def test_other_encoders_are_refused(
    hidden: int, intermediate: int, heads: int, named: str, runs: list[Path], tmp_path: Path
) -> None:
    encoder = from_scratch(layers=2, hidden=hidden, heads=heads, intermediate=intermediate).model
    other = save(tmp_path / "other", MultitaskModel(encoder, {"number": TASKS["number"]}))
    said = refused([runs[0], other], tmp_path / "out")
    assert named in said
    assert str(runs[0]) in said
    assert str(other) in said


def test_other_precisions_and_vocabularies_are_refused(runs: list[Path], tmp_path: Path) -> None:
    export_model(runs[2], tmp_path / "half", ExportSettings(dtype="bf16"))
    assert "one encoder" in refused([runs[0], tmp_path / "half"], tmp_path / "out")
    other = shutil.copytree(runs[2], tmp_path / "words")
    file = other / "model" / "tokenizer.json"
    file.write_text(file.read_text().replace('"seven"', '"eleven"'))
    assert "in the vocabulary eleven is missing" in refused([runs[0], other], tmp_path / "out")


def test_what_was_dropout_in_training_makes_no_difference(runs: list[Path], tmp_path: Path) -> None:
    other = shutil.copytree(runs[2], tmp_path / "dropout")
    file = other / "model" / "config.json"
    config = json.loads(file.read_text()) | {"hidden_dropout_prob": 0.1}
    file.write_text(json.dumps(config))
    pack([runs[0], other], tmp_path / "out")
    assert (tmp_path / "out").is_dir()


def test_folder_that_exists_is_refused_and_kept(runs: list[Path], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").write_text("mine")
    with pytest.raises(FileExistsError, match="already exists"):
        pack(runs, tmp_path / "out")
    assert (tmp_path / "out" / "file").read_text() == "mine"


def test_nothing_is_left_where_writing_fails(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("multiprune.runs.masks.save", full)
    assert "no space" in refused(runs, tmp_path / "out")


def test_a_packed_folder_is_one_model_to_nobody(pristine: Path, tmp_path: Path) -> None:
    sentence = "holds several models that share weights"
    with pytest.raises(ValueError, match=sentence):
        export_model(pristine, tmp_path / "out", ExportSettings())
    with pytest.raises(ValueError, match=sentence):
        contestants([pristine], [])
    with pytest.raises(ValueError, match=sentence):
        kept_weights(pristine)
    assert sentence in refused([pristine, pristine], tmp_path / "out")


@pytest.mark.parametrize("name", [MASKS, SHARED, "heads.safetensors"])
@pytest.mark.parametrize("digests", [True, False], ids=["digests", "no digests"])
def test_half_a_file_is_refused(packed: Path, name: str, *, digests: bool) -> None:
    if not digests:
        (packed / DIGESTS).unlink()
    content = (packed / name).read_bytes()
    (packed / name).write_bytes(content[: len(content) // 2])
    assert str(packed / name) in unloadable(packed)


@pytest.mark.parametrize("place", [0.01, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("digests", [True, False], ids=["digests", "no digests"])
def test_flipped_bit_in_the_masks_is_noticed(packed: Path, place: float, *, digests: bool) -> None:
    if not digests:
        (packed / DIGESTS).unlink()
    content = bytearray((packed / MASKS).read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    (packed / MASKS).write_bytes(content)
    assert str(packed / MASKS) in unloadable(packed)


@pytest.mark.parametrize("name", [MASKS, SHARED, "heads.safetensors"])
def test_file_that_is_missing_is_refused(packed: Path, name: str) -> None:
    (packed / name).unlink()
    assert str(packed) in unloadable(packed)


def test_masks_of_other_weights_are_refused(packed: Path, tmp_path: Path) -> None:
    others = [
        save(tmp_path / name, model_of(tasks, density / 2, seed=seed))
        for seed, (name, (tasks, density)) in enumerate(RUNS.items(), start=5)
    ]
    pack(others, tmp_path / "other")
    (packed / DIGESTS).unlink()
    shutil.copyfile(tmp_path / "other" / MASKS, packed / MASKS)
    assert "must fit the shared weights" in unloadable(packed)


def test_masks_that_are_too_few_or_too_many_are_refused(packed: Path) -> None:
    (packed / DIGESTS).unlink()
    meaning = json.loads((packed / "heads.json").read_text())
    heads = load_file(packed / "heads.safetensors")
    save_file(
        {key: one for key, one in heads.items() if not key.startswith("tags")},
        packed / "heads.safetensors",
    )
    meaning.pop("tags")
    (packed / "heads.json").write_text(json.dumps(meaning))
    assert "must hold a mask for each task in heads.json" in unloadable(packed)
