"""A model of many sizes: each is what a copy cut to that size for good is."""

from __future__ import annotations

import copy
import itertools
from typing import TYPE_CHECKING, Any

import pytest
import torch
from nested_world import order_of
from safetensors.torch import load_file, save_file
from shipped_world import READ, TASKS, TOKENIZER

from multiprune.export.convert import ExportSettings, export_model
from multiprune.export.digests import DIGESTS
from multiprune.export.dynamic import SIZES, DynamicModel, save_sizes
from multiprune.export.loading import load, load_sizes
from multiprune.export.shipped import ShippedModel
from multiprune.models.from_scratch import from_scratch
from multiprune.models.multitask import MultitaskModel
from multiprune.pruning.removal import HEADS, LAYERS, NEURONS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

    from multiprune.models.nested import RemovalOrder

KINDS = (HEADS, NEURONS, LAYERS)


def shipped(seed: int = 0, **shape: int) -> ShippedModel:
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"layers": 2, "hidden": 16, "heads": 4, "intermediate": 12} | shape
    model = MultitaskModel(from_scratch(**sizes).model, TASKS)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    meaning = {name: task.description for name, task in TASKS.items()}
    return ShippedModel(model.encoder, model.heads, meaning, TOKENIZER).eval()


def saved(folder: Path, granularity: tuple[str, ...] = KINDS) -> tuple[Path, RemovalOrder]:
    """Write a model of many sizes where a run would."""
    model = shipped()
    order = order_of(model.encoder, granularity, size=600)
    save_sizes(folder / "sizes", model, order, "encoder_linear")
    return folder, order


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("run"))[0]


def answers(model: ShippedModel, task: str = "classes") -> Tensor:
    texts, pairs = READ[task]
    return model.logits(task, texts, pairs)


def ladder(model: DynamicModel) -> list[float]:
    middle = [0.9, 0.61803, 0.5, 0.4]
    return [1.0, *(one for one in middle if one > model.smallest_density), model.smallest_density]


def test_it_begins_as_the_whole_that_was_written(run: Path) -> None:
    model, whole = load(run / "sizes"), shipped()
    assert isinstance(model, DynamicModel)
    assert model.density == 1
    assert model.of == "encoder_linear"
    assert not any(module.training for module in model.modules())
    for task in TASKS:
        torch.testing.assert_close(answers(model, task), answers(whole, task))


def test_each_size_answers_as_its_export(run: Path, tmp_path: Path) -> None:
    model = load_sizes(run)
    assert len(ladder(model)) >= 5
    seen = []
    for number, density in enumerate(ladder(model)):
        reached = model.set_density(density)
        assert reached == model.density <= density
        out = tmp_path / str(number)
        export_model(run, out, ExportSettings(), density=density)
        exported = load(out)
        assert type(exported) is ShippedModel
        for task in TASKS:
            torch.testing.assert_close(answers(model, task), answers(exported, task))
            torch.testing.assert_close(answers(model.cut(density), task), answers(exported, task))
        seen.append(answers(model))
        weights = sum(
            one.weight.numel()
            for one in exported.encoder.modules()
            if isinstance(one, torch.nn.Linear)
        )
        assert weights == model.size
    assert all(not torch.allclose(one, other) for one, other in itertools.pairwise(seen))


def test_largest_size_that_is_not_above_a_density_is_taken(run: Path) -> None:
    model = load_sizes(run)
    sizes = model.order.sizes.tolist()
    for size, smaller in zip(sizes, [*sizes[1:], None], strict=True):
        assert model.set_density(size / sizes[0]) == size / sizes[0]
        assert model.size == size
        if smaller is not None:
            assert model.set_density((size - 0.5) / sizes[0]) == smaller / sizes[0]
            assert model.set_density((smaller + 0.99) / sizes[0]) == smaller / sizes[0]


@pytest.mark.parametrize("density", [0.0, -1.0, 1.0001, float("nan"), float("inf"), 5.0])
def test_density_out_of_range_is_refused_and_the_size_stays(run: Path, density: float) -> None:
    model = load_sizes(run)
    model.set_density(0.7)
    before = model.size
    for refused in (density, model.smallest_density - 1e-6):
        with pytest.raises(ValueError, match=r"must be in \[0\.\d{4}, 1\].*but is") as error:
            model.set_density(refused)
        with pytest.raises(ValueError, match="must be in"):
            model.cut(refused)
    assert model.size == before
    # What the message names is allowed.
    named = float(str(error.value).partition("[")[2].partition(",")[0])
    assert model.set_density(named) == model.smallest_density


def test_exports_refuse_densities_and_models_that_do_not_fit(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is a dynamic model: choose a size"):
        export_model(run / "sizes", tmp_path / "out", ExportSettings())
    with pytest.raises(ValueError, match=r"must be in \[0"):
        export_model(run, tmp_path / "out", ExportSettings(), density=0.01)
    single = tmp_path / "single"
    export_model(run, single, ExportSettings(), density=0.5)
    with pytest.raises(FileNotFoundError, match="is not a dynamic model"):
        export_model(single, tmp_path / "out", ExportSettings(), density=0.5)
    with pytest.raises(FileNotFoundError):
        load_sizes(tmp_path)
    assert not (tmp_path / "out").exists()


def test_switching_back_and_forth_changes_no_bit_and_takes_no_memory(tmp_path: Path) -> None:
    model = load_sizes(saved(tmp_path, (HEADS, NEURONS))[0])

    def storages() -> set[int]:
        return {one.untyped_storage().data_ptr() for one in model.parameters()}

    whole = storages()
    first: dict[float, Tensor] = {}
    for density in (*ladder(model), *reversed(ladder(model)), 0.5, 1.0):
        model.set_density(density)
        found = answers(model)
        assert torch.equal(first.setdefault(density, found), found)
        assert storages() == whole
    assert len(first) >= 5


def test_whole_is_cast_whatever_its_size(run: Path) -> None:
    model, alike = load_sizes(run), load_sizes(run)
    model.set_density(0.5)
    assert model.to(torch.float64) is model
    assert model.size == alike.order.sizes[alike.order.removals_for(model.size)]
    assert {one.dtype for one in model.parameters()} == {torch.float64}
    alike.to(torch.float64)
    for density in (0.5, 1.0, model.smallest_density):
        model.set_density(density)
        alike.set_density(density)
        assert {one.dtype for one in model.parameters()} == {torch.float64}
        assert torch.equal(answers(model), answers(alike))


def test_all_sizes_are_written_whatever_its_size(run: Path, tmp_path: Path) -> None:
    model, before = load_sizes(run), load_sizes(run)
    model.set_density(0.5)
    model.save(tmp_path)
    assert model.density <= 0.5
    again = load(tmp_path)
    assert isinstance(again, DynamicModel)
    assert again.of == before.of
    assert torch.equal(again.order.sizes, before.order.sizes)
    for density in ladder(before):
        for one in (again, before, model):
            one.set_density(density)
        assert torch.equal(answers(again), answers(before))
        assert torch.equal(answers(model), answers(before))


def test_one_task_has_the_present_size_for_good(run: Path) -> None:
    model = load_sizes(run)
    for density in ladder(model):
        model.set_density(density)
        alone = model.only("tags")
        assert not isinstance(alone, DynamicModel)
        assert list(alone.heads) == list(alone.meaning) == ["tags"]
        assert torch.equal(answers(alone, "tags"), answers(model, "tags"))
    assert list(model.heads) == list(TASKS)


def test_copies_change_their_size_by_themselves(run: Path) -> None:
    model = load_sizes(run)
    expected = {}
    for density in ladder(model):
        model.set_density(density)
        expected[density] = answers(model)
    model.set_density(0.5)
    copied = copy.deepcopy(model)
    assert copied.size == model.size
    assert torch.equal(answers(copied), expected[0.5])
    own = {one.untyped_storage().data_ptr() for one in model.parameters()}
    assert not own & {one.untyped_storage().data_ptr() for one in copied.parameters()}
    for density in ladder(model):
        copied.set_density(density)
        assert torch.equal(answers(copied), expected[density])
        assert torch.equal(answers(model), expected[0.5])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def rewritten(change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], None]:
    """Return what changes a file's tensors, and the note of what they were."""

    def change_file(file: Path) -> None:
        tensors = load_file(file)
        change(tensors)
        save_file(tensors, file, {"of": "encoder_linear"})
        (file.parent / DIGESTS).unlink()

    return change_file


def without_meaning(file: Path) -> None:
    save_file(load_file(file), file)
    (file.parent / DIGESTS).unlink()


def of_another_model(file: Path) -> None:
    other = shipped(hidden=8, heads=2)
    order = order_of(other.encoder, KINDS)
    folder = file.parent.parent / "other"
    save_sizes(folder, other, order, "encoder_linear")
    (folder / SIZES).replace(file)
    (file.parent / DIGESTS).unlink()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a flipped bit": flip,
    "nothing in it": lambda file: file.write_bytes(b""),
    "a layer missing": rewritten(lambda tensors: tensors.pop("layers.1.heads")),
    "a layer too many": rewritten(
        lambda tensors: tensors.update({"layers.2.heads": tensors["layers.1.heads"].clone()})
    ),
    "no sizes": rewritten(lambda tensors: tensors.pop("sizes")),
    "sizes that rise": rewritten(
        lambda tensors: tensors.update(sizes=tensors["sizes"].flip(0).contiguous())
    ),
    "sizes down to nothing": rewritten(
        lambda tensors: tensors.update(sizes=tensors["sizes"] - tensors["sizes"][-1])
    ),
    "sizes of another kind": rewritten(
        lambda tensors: tensors.update(sizes=tensors["sizes"].float())
    ),
    "positions of another kind": rewritten(
        lambda tensors: tensors.update({"layers.0.heads": tensors["layers.0.heads"].float()})
    ),
    "no word of what is counted": without_meaning,
    "another model's": of_another_model,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_order_that_is_damaged_or_of_another_model_is_refused(
    damage: Callable[[Path], object], tmp_path: Path
) -> None:
    folder = saved(tmp_path / "run")[0] / "sizes"
    damage(folder / SIZES)
    with pytest.raises(ValueError, match=SIZES) as error:
        load(folder)
    message = str(error.value)
    assert "\n" not in message
    assert message.endswith(".")
