"""The model card says what is true of the folder it lies in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from run_folders import results, write
from shipped_world import CUT, FAMILIES, TASKS, TOKENIZER, network
from tiny_encoders import tiny_encoder

from multiprune.export.card import write_card
from multiprune.export.checkpoint import save_model
from multiprune.export.convert import ExportSettings, export_model
from multiprune.export.loading import load
from multiprune.models.multitask import MultitaskModel

if TYPE_CHECKING:
    from pathlib import Path

RESULTS = results({"classes": 0.87654, "number": -0.5}, kept=61000, seed=3) | {
    "examples": {"classes": 12345, "number": 678},
    "steps": 2540,
    "validation": {"classes": {"accuracy": 0.87654}, "number": {"pearson": -0.5, "spearman": 0.25}},
    "budget": {"of": "encoder_linear", "dense": 123456, "asked": 61728, "kept": 61000},
    "ledger": [
        {"part": "embeddings", "dense": 7000, "kept": 7000, "in_scope": False},
        {"part": "encoder_linear", "dense": 123456, "kept": 61000, "in_scope": True},
    ],
}


def card(folder: Path, family: str = "zeros", **settings: str) -> str:
    save_model(folder / "run" / "model", network(family), TOKENIZER, TASKS)
    write(folder / "run", RESULTS)
    export_model(folder / "run", folder / "out", ExportSettings(**settings))
    return (folder / "out" / "README.md").read_text()


def test_scores_and_ledger_are_those_of_the_run(tmp_path: Path) -> None:
    rows = card(tmp_path).splitlines()
    for row in (
        "| classes | accuracy | 0.8765 |",
        "| number | pearson | -0.5000 |",
        "| number | spearman | 0.2500 |",
        "| embeddings | 7,000 | 7,000 |",
        "| encoder_linear | 123,456 | 61,000 |",
        "2,540 steps of the optimizer with seed 3, on examples of classes 12,345, number 678.",
        "Asked for 61,728 and kept 61,000 of 123,456 parameters (encoder_linear), a density of "
        "0.4941.",
    ):
        assert row in rows


def test_model_folder_of_a_run_has_its_scores_too(tmp_path: Path) -> None:
    expected = card(tmp_path)
    export_model(tmp_path / "run" / "model", tmp_path / "again", ExportSettings())
    assert (tmp_path / "again" / "README.md").read_text() == expected


def test_without_results_there_are_no_scores(tmp_path: Path) -> None:
    save_model(tmp_path / "model", network("zeros"), TOKENIZER, TASKS)
    export_model(tmp_path / "model", tmp_path / "out", ExportSettings())
    assert "Scores" not in (tmp_path / "out" / "README.md").read_text()


def test_outputs_of_every_task_are_named(tmp_path: Path) -> None:
    rows = card(tmp_path).splitlines()
    for row in (
        "| classes | classes | sentence | bad, good, fair |",
        "| pairs | classes | premise, hypothesis | no, yes |",
        "| number | number | sentence | a number, -1 for 0 and 1 for 5 |",
        "| tags | tags | tokens | other, agent |",
    ):
        assert row in rows


@pytest.mark.parametrize("family", FAMILIES)
def test_code_must_be_trusted_only_where_there_is_code(family: str, tmp_path: Path) -> None:
    said = card(tmp_path, family)
    assert ("trust_remote_code=True" in said) == (family in CUT)
    assert (tmp_path / "out" / "modeling_multiprune.py").exists() == (family in CUT)


@pytest.mark.parametrize("family", ["zeros", "combined"])
def test_bitmask_needs_multiprune(family: str, tmp_path: Path) -> None:
    said = card(tmp_path, family, storage="bitmask")
    assert "AutoModel" not in said
    assert "multiprune.load" in said


def test_dtype_of_the_weights_stands_beside_the_scores(tmp_path: Path) -> None:
    assert "the weights here are bfloat16" in card(tmp_path, dtype="bf16")


def test_pooler_is_left_out_only_where_the_architecture_has_one(tmp_path: Path) -> None:
    assert "add_pooling_layer=False" in card(tmp_path)
    model = MultitaskModel(tiny_encoder("distilbert"), TASKS)
    save_model(tmp_path / "other", model, TOKENIZER, TASKS)
    write_card(tmp_path / "other", load(tmp_path / "other"), None)
    assert "add_pooling_layer" not in (tmp_path / "other" / "README.md").read_text()
