"""``multiprune specialize`` on a run of an encoder-decoder."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from application import run_in
from recipes import recipe
from tiny_text_to_text import saved_t5
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

import multiprune
from multiprune.cli import main
from multiprune.export.text_to_text import ShippedTextToText
from multiprune.models.encoder import Encoder
from multiprune.models.structure import layers_of
from multiprune.specialize.calibration_set import calibration_set
from multiprune.specialize.origin import read_origin
from multiprune.specialize.recipe import METHODS
from multiprune.specialize.specialist import specialized

if TYPE_CHECKING:
    from pathlib import Path

TASKS = ("agreement", "entailment")
SENTENCES, OTHERS = ["the fox runs", "two dogs sleep"], ["the fox sleeps", "two dogs run"]
OPTIONS = ("budget.fraction=0.6", "examples=16")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train two tasks a little, without pruning."""
    folder = tmp_path_factory.mktemp("t5")
    run_in(
        folder / "run",
        "encoder=t5_small",
        f"encoder.path={saved_t5(folder / 'encoder', gated=True)}",
        f"task=[{','.join(TASKS)}]",
        *(f"task.{one}.source.rows={{train: 48, validation: 16}}" for one in TASKS),
        "trainer=cpu",
        "trainer.enable_progress_bar=false",
        "trainer.max_epochs=1",
        "trainer.log_every_n_steps=1",
        "optimizer.learning_rate=1e-2",
        "data.batch_size=16",
        "pruner=none",
        "budget=full",
    )
    return folder / "run"


@pytest.mark.parametrize("repair", ["none", "rescale"])
def test_written_folder_answers_like_the_model_that_was_cut(
    finished: Path, tmp_path: Path, repair: str
) -> None:
    options = (*OPTIONS, f"repair={repair}", f"out={tmp_path}")
    main(["specialize", str(finished), *options])
    model, origin = multiprune.load(finished), read_origin(finished)
    for name, pairs in zip(TASKS, (None, OTHERS), strict=True):
        encoded = origin.encoded(name, Encoder(model.encoder, model.tokenizer))
        how = recipe(0.6, examples=16, method="fisher", repair=repair)
        examples = calibration_set(encoded, model, how)
        made = specialized(model, encoded.task, name, examples, how)
        loaded = multiprune.load(tmp_path / name)
        assert isinstance(loaded, ShippedTextToText)
        assert list(loaded.meaning) == [name]
        expected = made.model.logits(name, SENTENCES, pairs)
        torch.testing.assert_close(loaded.logits(name, SENTENCES, pairs), expected)
        assert not torch.allclose(model.logits(name, SENTENCES, pairs), expected)
        written = json.loads((tmp_path / name / "specialized.json").read_text())
        linear = [
            one.weight.numel()
            for layer in layers_of(loaded.encoder)
            for one, _ in layer.linear_layers()
        ]
        assert sum(linear) == written["budget"]["kept"] <= written["budget"]["asked"]
        assert written["rescaled_layers"] == (6 if repair == "rescale" else 0)
        assert set(written["before"]) == set(written["validation"][name]) != set()


def test_folder_loads_without_us(finished: Path, tmp_path: Path) -> None:
    main(["specialize", str(finished), "tasks=[agreement]", *OPTIONS, f"out={tmp_path}"])
    folder = tmp_path / "agreement"
    plain = AutoModelForSeq2SeqLM.from_pretrained(folder, trust_remote_code=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    means = json.loads((folder / "heads.json").read_text())["agreement"]
    filled = [means["template"].format(**{means["text"][0]: one}) for one in SENTENCES]
    inputs = tokenizer(filled, padding=True, return_tensors="pt")
    found = []
    for words in means["words"]:
        target = tokenizer(words, return_tensors="pt").input_ids.repeat(len(filled), 1)
        with torch.no_grad():
            by_token = plain(**inputs, labels=target).logits.log_softmax(-1)
        found.append(by_token.gather(-1, target[:, :, None]).sum((1, 2)))
    expected = multiprune.load(folder).logits("agreement", SENTENCES)
    torch.testing.assert_close(torch.stack(found, 1), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_cuts_encoder_and_decoder(finished: Path, tmp_path: Path, method: str) -> None:
    options = (*OPTIONS, f"method={method}", "labels=pseudo", "evaluate=false")
    main(["specialize", str(finished), "tasks=[agreement]", *options, f"out={tmp_path}"])
    budget = json.loads((tmp_path / "agreement" / "specialized.json").read_text())["budget"]
    assert budget["kept"] <= budget["asked"]


def test_answers_are_log_probabilities_of_all_words_of_a_label(finished: Path) -> None:
    model, origin = multiprune.load(finished), read_origin(finished)
    encoded = origin.encoded("agreement", Encoder(model.encoder, model.tokenizer))
    (one,) = calibration_set(encoded, model, recipe(examples=16, labels="pseudo")).batches
    with torch.no_grad():
        logits = model("agreement", one.batch.inputs)
    found = encoded.task.log_probabilities(logits, one.batch.labels)
    torch.testing.assert_close(found, logits.amax(-1))
