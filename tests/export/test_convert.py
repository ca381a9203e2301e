"""Export: what is written for every storage and dtype, and that it is all or nothing."""

from __future__ import annotations

import resource
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors import SafetensorError
from shipped_world import CUT, FAMILIES, READ, SENTENCES, TASKS, TOKENIZER, logits, network
from transformers import AutoConfig, AutoModel

import multiprune
from multiprune.export import checkpoint, convert
from multiprune.export.checkpoint import save_model
from multiprune.export.convert import DTYPES, STORAGES, ExportSettings, export_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Formats that hold data or text; the one Python file is text until a user asks for it to run.
HARMLESS = {".safetensors", ".json", ".md", ".py", ".txt"}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run, as far as an export reads it."""
    save_model(tmp_path / "run" / "model", network("combined"), TOKENIZER, TASKS)
    return tmp_path / "run"


def content(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let writing fail beyond ``size`` bytes a file, as it does on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_are_those_of_the_run_in_the_dtype(
    run: Path, tmp_path: Path, storage: str, dtype: str
) -> None:
    export_model(run, tmp_path / "out", ExportSettings(storage=storage, dtype=dtype))
    expected = network("combined").to(DTYPES[dtype])
    loaded = multiprune.load(tmp_path / "out")
    for mine, theirs in ((expected.encoder, loaded.encoder), (expected.heads, loaded.heads)):
        found = theirs.state_dict()
        assert list(found) == list(mine.state_dict())
        for name, tensor in mine.state_dict().items():
            assert found[name].dtype == tensor.dtype, name
            assert torch.equal(found[name], tensor), name
    assert AutoConfig.from_pretrained(tmp_path / "out").dtype == DTYPES[dtype]


@pytest.mark.parametrize("family", FAMILIES)
def test_bitmask_gives_the_same_logits(family: str, tmp_path: Path) -> None:
    save_model(tmp_path / "run" / "model", network(family), TOKENIZER, TASKS)
    export_model(tmp_path / "run", tmp_path / "out", ExportSettings(storage="bitmask"))
    loaded = multiprune.load(tmp_path / "out")
    for task, (texts, pairs) in READ.items():
        expected = logits(network(family), task)
        torch.testing.assert_close(
            loaded.logits(task, texts, pairs), expected, rtol=0, atol=1e-5, msg=task
        )


def test_bitmask_stores_no_zeros(tmp_path: Path) -> None:
    model = network("zeros")
    positions = model.encoder.get_parameter("embeddings.position_embeddings.weight")
    torch.nn.init.zeros_(positions)
    save_model(tmp_path / "run" / "model", model, TOKENIZER, TASKS)
    sizes = []
    for storage in STORAGES:
        export_model(tmp_path / "run", tmp_path / storage, ExportSettings(storage=storage))
        [file] = (tmp_path / storage).glob("model*.safetensors")
        sizes.append(file.stat().st_size)
    assert sizes[0] - sizes[1] > 0.8 * positions.nbytes


@pytest.mark.parametrize("dtype", DTYPES)
def test_plain_transformers_loads_the_dtype(tmp_path: Path, dtype: str) -> None:
    save_model(tmp_path / "run" / "model", network("zeros"), TOKENIZER, TASKS)
    export_model(tmp_path / "run", tmp_path / "out", ExportSettings(dtype=dtype))
    encoder = AutoModel.from_pretrained(tmp_path / "out", add_pooling_layer=False)
    assert encoder.dtype == DTYPES[dtype]
    expected = network("zeros").to(DTYPES[dtype]).encoder.state_dict()
    assert all(torch.equal(one, expected[name]) for name, one in encoder.state_dict().items())


def test_plain_transformers_refuses_a_bitmask(tmp_path: Path) -> None:
    save_model(tmp_path / "run" / "model", network("zeros"), TOKENIZER, TASKS)
    export_model(tmp_path / "run", tmp_path / "out", ExportSettings(storage="bitmask"))
    with pytest.raises(OSError, match=r"model\.safetensors"):
        AutoModel.from_pretrained(tmp_path / "out")


def test_precision_is_that_of_the_run_unless_it_is_asked_for(tmp_path: Path) -> None:
    model = network("zeros").to(torch.bfloat16)
    save_model(tmp_path / "run" / "model", model, TOKENIZER, TASKS)
    export_model(tmp_path / "run", tmp_path / "out", ExportSettings())
    assert multiprune.load(tmp_path / "out").encoder.dtype == torch.bfloat16


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("family", FAMILIES)
def test_no_file_can_run_code_by_being_read(family: str, storage: str, tmp_path: Path) -> None:
    save_model(tmp_path / "run" / "model", network(family), TOKENIZER, TASKS)
    export_model(tmp_path / "run", tmp_path / "out", ExportSettings(storage=storage))
    files = [*(tmp_path / "out").iterdir()]
    assert {file.suffix for file in files} <= HARMLESS
    code = [file.name for file in files if file.suffix == ".py"]
    assert code == (["modeling_multiprune.py"] if family in CUT else [])


def test_export_leaves_the_run_as_it_was(run: Path, tmp_path: Path) -> None:
    before = content(run)
    export_model(run, tmp_path / "out", ExportSettings(storage="bitmask", dtype="fp16"))
    assert content(run) == before


def test_export_of_an_export_is_the_same(run: Path, tmp_path: Path) -> None:
    export_model(run, tmp_path / "one" / "out", ExportSettings(storage="bitmask"))
    export_model(tmp_path / "one" / "out", tmp_path / "two" / "out", ExportSettings())
    export_model(run, tmp_path / "three" / "out", ExportSettings())
    two, three = ([*content(tmp_path / name).values()] for name in ("two", "three"))
    assert sorted(two) == sorted(three)


def test_smaller_vocabulary_gives_the_same_logits_of_its_texts(run: Path, tmp_path: Path) -> None:
    texts, pairs = READ["pairs"]
    corpus = [*SENTENCES, *(pairs or [])]
    export_model(run, tmp_path / "out", ExportSettings(), corpus=corpus)
    loaded = multiprune.load(tmp_path / "out")
    assert len(loaded.tokenizer) == loaded.encoder.config.vocab_size < len(TOKENIZER)
    expected = logits(network("combined"), "pairs")
    torch.testing.assert_close(loaded.logits("pairs", texts, pairs), expected, rtol=0, atol=1e-5)


def test_existing_folder_is_refused_and_kept(run: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=f"{tmp_path}/out already exists"):
        export_model(run, tmp_path / "out", ExportSettings())
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("storage", STORAGES)
def test_disk_that_is_full_leaves_nothing(run: Path, tmp_path: Path, storage: str) -> None:
    with largest_file(20_000), pytest.raises(OSError, match="cannot be written") as caught:
        export_model(run, tmp_path / "out", ExportSettings(storage=storage))
    assert len(str(caught.value).splitlines()) == 1
    assert [one.name for one in tmp_path.iterdir()] == ["run"]


FAILING: dict[str, tuple[Any, str, Exception]] = {
    "heads": (checkpoint, "save_file", SafetensorError("No space left on device")),
    "card": (convert, "write_card", OSError("No space left on device")),
    "interrupted": (convert, "write_card", KeyboardInterrupt()),  # type: ignore[dict-item]
}


@pytest.mark.parametrize("case", FAILING)
def test_failure_in_the_middle_leaves_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    module, name, error = FAILING[case]

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(module, name, fail)
    with pytest.raises((OSError, KeyboardInterrupt)):
        export_model(run, tmp_path / "out", ExportSettings())
    assert [one.name for one in tmp_path.iterdir()] == ["run"]


def test_damaged_run_is_refused_before_anything_is_written(run: Path, tmp_path: Path) -> None:
    file = run / "model" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match="is damaged"):
        export_model(run, tmp_path / "a" / "out", ExportSettings())
    assert [one.name for one in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"format": "pickle"}, "`format` must be one of transformers, onnx, but is 'pickle'"),
        ({"storage": "zip"}, "`storage` must be one of dense, bitmask, but is 'zip'"),
        ({"dtype": "int8"}, "`dtype` must be one of fp32, fp16, bf16, but is 'int8'"),
        ({"format": "onnx", "dtype": "fp16"}, "ONNX export supports only"),
        ({"format": "onnx", "storage": "bitmask"}, "ONNX export supports only"),
    ],
)
def test_settings_that_are_none_are_refused(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ExportSettings(**settings)
