"""What somebody else has written is not run, whichever way it comes in."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
import torch
from application import NARROW, composed, save_untrained
from malformed_files import separated
from malformed_world import ACCEPTED, SMALL, check, multiprune_command, train
from markupsafe import escape
from payloads import PAYLOADS
from run_folders import record_with, results, write
from safetensors.torch import load_file, save_file
from transformers import AutoModel
from ways_in import WAYS, shards_outside

from multiprune.config import plain
from multiprune.training.checkpoint_file import read_checkpoint
from multiprune.training.module import ResumeError

if TYPE_CHECKING:
    from pathlib import Path

    Output = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_untrained(tmp_path_factory.mktemp("models") / "run") / "model"


@pytest.mark.parametrize("kind", PAYLOADS)
def test_payload_is_real(kind: str, tmp_path: Path) -> None:
    make, careless = PAYLOADS[kind]
    raw = make(tmp_path / "mark")
    assert not (tmp_path / "mark").exists()
    careless(raw)
    assert (tmp_path / "mark").exists()


@pytest.mark.parametrize("name", WAYS)
def test_payload_does_not_run(name: str, model: Path, tmp_path: Path, capsys: Output) -> None:
    way, theirs, mark = WAYS[name], tmp_path / "THEIRS", tmp_path / "MARK"
    shutil.copytree(model, theirs)
    (tmp_path / "rows.csv").write_bytes(separated())
    way.plant(theirs, mark)
    before = sorted(tmp_path.iterdir())
    line = way.command.replace("THEIRS", str(theirs)).replace("OUT", str(tmp_path / "OUT"))
    command, *given = line.replace("ROWS", str(tmp_path / "rows.csv")).split()
    if command == "train":
        own = ("trainer=cpu",) if "task=" in line or "-cn" in given else SMALL[len(NARROW) :]
        small = () if "-cn" in given else own if "encoder.path" in line else (*NARROW, *own)
        ended = train(capsys, tmp_path / "OUT", *small, *given)
    else:
        ended = multiprune_command(capsys, command, *given)
    assert not mark.exists()
    assert sorted({*tmp_path.iterdir()} - {tmp_path / "OUT"}) == before
    check(ended, way.expected)


def test_transformers_reads_weights_of_another_folder(model: Path, tmp_path: Path) -> None:
    theirs = shutil.copytree(model, tmp_path / "THEIRS")
    expected = AutoModel.from_pretrained(theirs, add_pooling_layer=False).state_dict()
    shards_outside(theirs, tmp_path / "MARK")
    found = AutoModel.from_pretrained(theirs, add_pooling_layer=False).state_dict()
    assert all(torch.equal(found[key], value) for key, value in expected.items())


def foreign(theirs: Path, model: Path, name: str, **data: str) -> Path:
    """Write a run of one task of a given name, whose data are read as ``data`` says."""
    shutil.copytree(model, theirs / "model")
    heads, meaning = theirs / "model" / "heads.safetensors", theirs / "model" / "heads.json"
    (theirs / "model" / "sha256.json").unlink(missing_ok=True)
    weights = load_file(heads)
    kept = {part: weights[f"agreement.output.{part}"] for part in ("weight", "bias")}
    save_file({f"{name}.output.{part}": tensor for part, tensor in kept.items()}, heads)
    meaning.write_text(json.dumps({name: json.loads(meaning.read_text())["agreement"]}))
    config = plain(composed(*SMALL))
    stated = {"task": {name: config["task"]["agreement"]}, "data": config["data"] | data, "seed": 0}
    record_with(config=stated).write(theirs)
    return theirs


CUT = ("budget.fraction=0.9", "evaluate=false", "examples=8")


def test_name_of_a_task_leads_nowhere_else(model: Path, tmp_path: Path, capsys: Output) -> None:
    elsewhere = tmp_path / "elsewhere"
    theirs = foreign(tmp_path / "THEIRS", model, str(elsewhere))
    out = tmp_path / "OUT"
    ended = multiprune_command(capsys, "specialize", theirs, *CUT, f"out={out}")
    check(ended, f"its task's name leads to {elsewhere}")
    assert [place.name for place in tmp_path.iterdir()] == ["THEIRS"]


def test_cache_that_a_run_names_is_not_written(model: Path, tmp_path: Path, capsys: Output) -> None:
    theirs = foreign(tmp_path / "THEIRS", model, "mine", cache=str(tmp_path / "elsewhere"))
    out = tmp_path / "OUT"
    check(multiprune_command(capsys, "specialize", theirs, *CUT, f"out={out}"), ACCEPTED)
    assert sorted(place.name for place in tmp_path.iterdir()) == ["OUT", "THEIRS"]


NAMES = ("<script>alert(1)</script>", "$\\frac{", '"><img src=x>', "{{7*7}}")


@pytest.mark.parametrize("name", NAMES)
def test_names_are_text_in_a_report(name: str, tmp_path: Path, capsys: Output) -> None:
    runs, out = tmp_path / "runs", tmp_path / "OUT"
    write(runs / "run", results({name: 0.5}, kept=1000), f"name={name}")
    check(multiprune_command(capsys, "report", runs, "--out", out), ACCEPTED)
    page = (out / "index.html").read_text()
    assert escape(name) in page
    assert str(escape(name)) == name or name not in page


@pytest.mark.parametrize("name", ["last.ckpt", "previous.ckpt", "best.ckpt"])
@pytest.mark.parametrize("kind", ["torch", "pickle"])
def test_checkpoint_is_not_unpickled(name: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(PAYLOADS[kind][0](tmp_path / "MARK"))
    with pytest.raises(ResumeError, match=name):
        read_checkpoint(tmp_path / name)
    assert not (tmp_path / "MARK").exists()
