"""The embedded encoder is pretrained, small, and needs no network."""

from __future__ import annotations

import random
import socket
import tomllib
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from safetensors import safe_open
from torch.nn import functional

import multiprune
from multiprune.export.loading import load
from multiprune.models.encoder import pretrained
from multiprune.models.location import EMBEDDED
from multiprune.models.location import embedded_folder as folder

SENTENCES = (
    "she opened the door and went into the garden .",
    "the president of the united states lives in the white house .",
    "he had never seen the old man before that night .",
    "the company was founded in london in the nineteenth century .",
    "they sat down by the fire and talked for an hour .",
    "i do not know what you want me to say to him .",
)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: object) -> NoReturn:
        raise AssertionError("the network is used")

    monkeypatch.setattr(socket.socket, "connect", connect)


def test_the_encoder_is_loaded_in_single_precision_with_its_tokenizer() -> None:
    encoder = pretrained(EMBEDDED)
    assert encoder.model.dtype == torch.float32
    assert encoder.model.training
    assert len(encoder.tokenizer) == encoder.model.config.vocab_size == 8000
    assert encoder.source == folder()


def test_the_package_holds_it_in_at_most_eight_megabytes() -> None:
    files = [file for file in Path(folder()).rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 8e6
    with safe_open(Path(folder()) / "model.safetensors", "pt") as stored:
        assert {stored.get_slice(key).get_dtype() for key in stored.keys()} == {"F16"}  # noqa: SIM118


def test_files_that_are_not_code_come_with_the_package() -> None:
    root = Path(multiprune.__file__).parent
    project = tomllib.loads((root.parents[1] / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["multiprune"]
    declared = {file for pattern in patterns for file in root.glob(pattern)}
    files = {file for file in root.rglob("*") if file.is_file() and "__pycache__" not in file.parts}
    assert {file for file in files if file.suffix != ".py"} == declared


@torch.no_grad()
def mean_loss(sentences: list[str]) -> float:
    """Return the loss of each token of some sentences, hidden while the others are read."""
    model, losses = load(Path(folder())), []
    for sentence in sentences:
        tokens = model.tokenizer(sentence, return_tensors="pt")["input_ids"][0]
        inner = range(1, len(tokens) - 1)
        hidden = tokens.repeat(len(inner), 1)
        for row, place in enumerate(inner):
            hidden[row, place] = model.tokenizer.mask_token_id
        states = model.encoder(hidden).last_hidden_state[range(len(inner)), inner]
        logits = model.heads["mlm"](states, None, model.encoder.get_input_embeddings().weight)
        losses.append(functional.cross_entropy(logits.float(), tokens[1:-1], reduction="none"))
    return float(torch.cat(losses).mean())


def test_it_knows_words_by_those_around_them_and_in_which_order() -> None:
    words = [sentence.split() for sentence in SENTENCES]
    shuffled = [" ".join(random.Random(7).sample(one, len(one))) for one in words]
    in_order, out_of_order = mean_loss(list(SENTENCES)), mean_loss(shuffled)
    # A unigram model of these texts has 6.4, one that knows nothing the logarithm of 8,000.
    assert in_order < 4.5
    assert in_order < out_of_order - 0.5
