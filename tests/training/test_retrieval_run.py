"""Runs that are also evaluated by retrieval."""

from __future__ import annotations

import csv
import json
from random import Random
from typing import TYPE_CHECKING, Any

import pyarrow
import pytest
import torch
from application import SMALL, run_in
from pyarrow import parquet
from tiny_text_to_text import saved_t5

import multiprune
from multiprune.models.from_scratch import from_scratch
from multiprune.runs.frame import read_run
from multiprune.tasks.synthetic import WORDS
from multiprune.training.retrieval import sentence_vectors

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

SENTENCES = [" ".join(Random(row).choices(WORDS, k=1 + row % 7)) for row in range(70)]


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mirror")
    (folder / "multilingual" / "tatoeba").mkdir(parents=True)
    columns: dict[str, list[Any]] = {
        "sentence": SENTENCES,
        "sentence_en": [*SENTENCES[:35], *SENTENCES[:34:-1]],
        "lang": ["de"] * 35 + ["sw"] * 35,
    }
    file = folder / "multilingual" / "tatoeba" / "test.parquet"
    parquet.write_table(pyarrow.table(columns), file)
    return folder


def overrides_for(mirror: Path, *overrides: str) -> list[str]:
    kept = [one for one in SMALL if not one.startswith("task.") or "agreement" in one]
    return [*kept, "task=agreement", "retrieval=tatoeba", f"data.mirror={mirror}", *overrides]


def refused(run: Path, *overrides: str) -> str:
    with pytest.raises(SystemExit) as error:
        run_in(run, *overrides)
    return str(error.value)


def by_hand(model: Any, sentence: str, layer: int) -> Tensor:
    inputs = model.tokenizer(sentence, return_tensors="pt")
    states = model.encoder(**inputs, output_hidden_states=True).hidden_states[layer]
    mean: Tensor = states[0].mean(0)
    return mean


def test_retrieval_is_scored_with_the_model_that_is_shipped(mirror: Path, tmp_path: Path) -> None:
    score = run_in(tmp_path / "run", *overrides_for(mirror))
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    # It counts in no mean, and is no task.
    assert score == results["score"] == results["validation"]["agreement"]["accuracy"]
    assert set(results["validation"]) == {"agreement"}
    assert read_run(tmp_path / "run").tasks == ("agreement",)
    found = results["test"]["tatoeba"]
    assert found["accuracy"] == pytest.approx((found["accuracy.de"] + found["accuracy.sw"]) / 2)
    model = multiprune.load(tmp_path / "run")
    with torch.no_grad():
        vectors = torch.stack([by_hand(model, one, 1) for one in SENTENCES])
    similarity = torch.nn.functional.cosine_similarity(vectors[:35, None], vectors[None, :35], -1)
    expected = (similarity.argmax(1) == torch.arange(35)).float().mean()
    assert found["accuracy.de"] == pytest.approx(float(expected), abs=0.03)
    assert found["accuracy.de"] > found["accuracy.sw"]
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        rows = [one for one in csv.DictReader(file) if one["test/tatoeba/accuracy"]]
    assert [float(one["test/tatoeba/accuracy.sw"]) for one in rows] == [found["accuracy.sw"]]


def test_mining_is_scored_with_a_threshold_from_other_rows(mirror: Path, tmp_path: Path) -> None:
    mining = [
        one.replace("retrieval=tatoeba", "retrieval=tatoeba_mining")
        for one in overrides_for(mirror)
    ]
    only = "retrieval.tatoeba_mining.languages=[de,sw]"
    run_in(tmp_path / "run", *mining, only, "~retrieval.tatoeba_mining.language_groups")
    found = json.loads((tmp_path / "run" / "results.json").read_text())["test"]["tatoeba_mining"]
    names = ("f1", "precision", "recall")
    assert set(found) == {f"{name}{of}" for name in names for of in ("", ".de", ".sw")}
    # German sentences stand beside themselves, which no other is as similar to.
    assert found["f1.de"] > 0.6 > 0.4 > found["f1.sw"]
    precision, recall = found["precision.de"], found["recall.de"]
    assert found["f1.de"] == pytest.approx(2 * precision * recall / (precision + recall))
    said = refused(tmp_path / "other", *mining)
    assert "has no pair of translations in af, ar" in said


@pytest.mark.parametrize("layer", [None, 1, 2])
def test_vectors_are_means_over_tokens_whatever_is_padded(layer: int | None) -> None:
    torch.manual_seed(0)
    encoder = from_scratch(layers=2, hidden=16, heads=2, intermediate=32)
    encoder.model.train(False)
    found = sentence_vectors(encoder.model, encoder.tokenizer, SENTENCES, layer, 64)
    for row in (0, 6, 69):
        inputs = encoder.tokenizer(SENTENCES[row], return_tensors="pt")
        with torch.no_grad():
            states = encoder.model(**inputs, output_hidden_states=True).hidden_states[layer or 2]
        torch.testing.assert_close(found[row], states[0].mean(0), atol=1e-5, rtol=1e-4)


def test_what_cannot_be_retrieved_is_refused(mirror: Path, tmp_path: Path) -> None:
    said = refused(tmp_path / "run", *overrides_for(mirror, "retrieval.tatoeba.layer=2"))
    assert "`layer` of tatoeba must be one of the encoder's 1, but is 2" in said
    groups = "~retrieval.tatoeba.language_groups"
    only = overrides_for(mirror, "retrieval.tatoeba.languages=[sw]", groups)
    assert "declares (sw), but holds de" in refused(tmp_path / "run", *only)
    said = refused(tmp_path / "run", *overrides_for(tmp_path))
    assert "must hold a folder 'multilingual/tatoeba'" in said
    kept = [one for one in overrides_for(mirror) if not one.startswith("encoder.")]
    model = ["encoder=t5_small", f"encoder.path={saved_t5(tmp_path / 't5', gated=True)}"]
    said = refused(tmp_path / "run", *kept, *model)
    assert "Retrieval (tatoeba) needs an encoder, but this model has a decoder" in said
