from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from shipped import HIDDEN, cut, dense, low_rank, masked, ship
from torch import nn
from typing_extensions import override

from multiprune.export.convert import ExportSettings, export_model
from multiprune.export.loading import load
from multiprune.measure import contestant, report
from multiprune.measure.backends import Backend, Eager, Forward, OnnxRuntime
from multiprune.measure.cost import multiply_adds, parameters
from multiprune.measure.onnx_encoder import OnnxEncoder

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel

    from multiprune.models.encoder import Encoder


class Broken(Backend):
    """A compiler that is not there."""

    @property
    @override
    def name(self) -> str:
        return "broken"

    @override
    def load(self, encoder: Encoder) -> Forward:
        raise RuntimeError("No [working] compiler was found.")


class EagerForAll(Eager):
    """Runs ONNX files, too, as a model of their shapes; the dense one is not written as ONNX."""

    @property
    @override
    def name(self) -> str:
        return "for all"

    @override
    def runs(self, encoder: Encoder) -> bool:
        return True


@pytest.fixture(autouse=True)
def known_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a process a model; test_memory.py measures."""
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.setattr(contestant, "peak_memory", lambda *_: 1_500_000)


def measure(*paths: Path, json: Path | None = None, **changed: Any) -> None:
    options: dict[str, Any] = {"batches": [2], "lengths": [4], "rounds": 2, "backends": [Eager()]}
    report(paths, **options | changed, json=json)


def cells(output: str, *first: str) -> list[list[str]]:
    """Return the cells of the table rows that begin with ``first``."""
    rows = [
        [cell.strip() for cell in line.strip("│┃ ").split("│")]
        for line in output.splitlines()
        if "│" in line
    ]
    return [row for row in rows if row[: len(first)] == list(first)]


def looked_up(encoder: PreTrainedModel) -> int:
    embeddings = [one for one in encoder.modules() if isinstance(one, nn.Embedding)]
    return sum(one.weight.numel() for one in embeddings)


def test_size_and_cost_are_shown_beside_the_dense_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ship(tmp_path / "model", cut())
    measure(folder)
    output = capsys.readouterr().out
    megabytes = (folder / "model.safetensors").stat().st_size / 1e6
    (row,) = cells(output, str(folder))
    # The row of the padding token is zero.
    count = parameters(cut())
    rest = count - looked_up(cut())
    assert row[1:] == [f"{count:,}", f"{rest:,}", f"{count - 16:,}", f"{megabytes:.1f}", "1.5"]
    (reference,) = cells(output, f"dense of {folder}")
    assert reference[1] == f"{parameters(dense()):,}"
    (timed,) = cells(output, "2 x 4", str(folder))
    counts = multiply_adds(dense(), 2, 4), multiply_adds(cut(), 2, 4)
    assert timed[2] == f"{counts[1] / 1e9:.4g}"
    read = [parameters(one) - looked_up(one) for one in (dense(), cut())]
    assert timed[-1] == f"{max(counts[0] / counts[1], read[0] / read[1]):.2f}"
    assert cells(output, "2 x 4", f"dense of {folder}")[0][-2:] == ["1.00", "1.00"]


def test_file_holds_what_is_shown_and_every_time(tmp_path: Path) -> None:
    folder = ship(tmp_path / "model", cut())
    file = tmp_path / "benchmark.json"
    measure(folder, json=file, batches=[1, 2], lengths=[4, 8], rounds=3)
    found = json.loads(file.read_text())
    assert [one["model"] for one in found["models"]] == [f"dense of {folder}", str(folder)]
    sizes = [(one["batch"], one["length"], one["model"]) for one in found["latencies"]]
    assert len(set(sizes)) == 8
    for one in found["latencies"]:
        assert len(one["seconds"]) == 3
        assert one["median_ms"] == pytest.approx(1e3 * sorted(one["seconds"])[1])
        assert one["examples_per_second"] == pytest.approx(one["batch"] * 1e3 / one["median_ms"])
    assert found["models"][1]["multiply_adds"][-1] == {
        "batch": 2,
        "length": 8,
        "multiply_adds": multiply_adds(cut(), 2, 8),
    }
    assert found["machine"]["threads"] >= 1


def test_models_pruned_from_one_share_a_dense_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = ship(tmp_path / "a", cut()), ship(tmp_path / "b", low_rank(2))
    measure(first, second)
    names = [row[1] for row in cells(capsys.readouterr().out, "2 x 4")]
    assert names == [f"dense of {first}", str(first), str(second)]


@pytest.mark.parametrize(
    ("encoder", "said"),
    [(masked(0.5), True), (masked(0.5, cut()), True), (masked(0.0), False), (cut(), False)],
    ids=["half zeros", "half zeros of what was cut", "no zeros", "cut"],
)
def test_element_wise_zeros_are_said_not_to_speed_up(
    encoder: PreTrainedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str], *, said: bool
) -> None:
    folder = ship(tmp_path / "model", encoder)
    measure(folder)
    linear = sum(one.weight.numel() for one in encoder.modules() if isinstance(one, nn.Linear))
    # The row of the padding token is zero too.
    fraction = (linear / 2 + HIDDEN) / parameters(encoder)
    sentence = (
        f"element-wise zeros do not speed up dense kernels: {fraction:.0%} of the parameters of "
        f"{folder} are zero, and take as long as any other"
    )
    assert (sentence in capsys.readouterr().out.splitlines()) == said


def test_tables_fit_a_page_and_hold_long_paths(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS")
    folder = ship(tmp_path / ("long" * 20), cut())
    measure(folder, batches=[1024])
    tables = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("│", "┃"))]
    assert {len(line) for line in tables} <= set(range(101))
    columns = [line.strip("│").split("│") for line in tables if line.startswith("│")]
    written = "".join(column[1].strip() for column in columns if len(column) == 8)
    assert str(folder) in written.replace("dense of ", "")
    assert not [line for line in tables if "…" in line]


def test_backend_that_fails_is_said_to_and_the_others_are_timed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ship(tmp_path / "model", cut())
    file = tmp_path / "benchmark.json"
    measure(folder, backends=[Broken(), Eager()], json=file)
    output = capsys.readouterr().out
    broken, eager = cells(output, "2 x 4", str(folder))
    assert broken[3:7] == ["failed", "", "", ""]
    assert eager[3] != "failed"
    sentence = f"broken failed with {folder}: RuntimeError: No [working] compiler was found."
    assert output.splitlines().count(sentence) == 1
    failures = [one.get("failure") for one in json.loads(file.read_text())["latencies"]]
    assert failures == ["RuntimeError: No [working] compiler was found."] * 2 + [None] * 2


def test_brackets_in_a_path_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ship(tmp_path / "task=[agreement,roles]", cut())
    measure(folder)
    assert cells(capsys.readouterr().out, "2 x 4", str(folder))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batches": []}, "`batches` must name at least one, but is empty"),
        ({"lengths": [4, 0]}, "`lengths` must be a whole number of at least 1, but is 0"),
        ({"rounds": 0}, "`rounds` must be a whole number of at least 1, but is 0"),
        ({"backends": []}, "`backends` must name at least one"),
        ({"lengths": [4, 513]}, "`lengths` must be at most 512"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(
    changed: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = ship(tmp_path / "model", cut())
    with pytest.raises(ValueError, match=message):
        measure(folder, **changed)


def test_no_path_and_one_path_twice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`paths` must name at least one"):
        measure()
    with pytest.raises(ValueError, match="paths are not distinct"):
        measure(tmp_path, tmp_path)


def test_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="must be the folder of a finished run"):
        measure(tmp_path)


@pytest.mark.slow
def test_onnx_folder_is_timed_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxscript")
    folder, exported, file = ship(tmp_path / "model", cut()), tmp_path / "onnx", tmp_path / "json"
    export_model(folder, exported, ExportSettings(format="onnx"))
    measure(exported, folder, backends=[Eager(), EagerForAll()], json=file)
    output = capsys.readouterr().out
    ours, theirs = (cells(output, str(one))[0] for one in (exported, folder))
    # The row of the padding token is zero in both.
    assert ours[1:4] == theirs[1:4]
    assert ours[4] == f"{(exported / 'model.onnx').stat().st_size / 1e6:.1f}"
    assert ours[5] == "not measured"
    assert len(cells(output, "2 x 4", str(exported))) == 1
    assert len(cells(output, "2 x 4", str(folder))) == 2
    models = json.loads(file.read_text())["models"]
    assert [one["model"] for one in models] == [f"dense of {exported}", str(exported), str(folder)]
    first, second = models[1:]
    assert first["multiply_adds"] == second["multiply_adds"]
    # The file has the head, too, and biases that are equal, as those of 0, only once.
    assert first["weight_bytes"] == pytest.approx(second["weight_bytes"], rel=0.15)
    model = load(folder)
    inputs = {"input_ids": torch.tensor([[1, 4, 5]]), "attention_mask": torch.ones(1, 3).long()}
    found = OnnxRuntime().load(OnnxEncoder.from_folder(exported))(inputs)
    with torch.no_grad():
        torch.testing.assert_close(found, model("classes", inputs))


def test_onnx_folder_without_a_configuration_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(ValueError, match=r"has no config\.json, .*; export it again\."):
        measure(tmp_path)


def test_file_without_a_folder_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"folder of .* does not exist"):
        measure(tmp_path / "no model", json=tmp_path / "no folder" / "benchmark.json")
