"""A head over the vocabulary begins as it was pretrained, where that lies beside the encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from masked_task import masked_task as task
from safetensors.torch import load_file, save_file
from tiny_encoders import CONFIGS
from transformers import (
    AlbertForMaskedLM,
    BertForMaskedLM,
    BertModel,
    DistilBertForMaskedLM,
    RobertaForMaskedLM,
    XLMRobertaForMaskedLM,
)

from multiprune.export.checkpoint import save_model
from multiprune.models.encoder import pretrained
from multiprune.models.factory import multitask_model
from multiprune.models.from_scratch import character_tokenizer
from multiprune.models.heads import logits_of

if TYPE_CHECKING:
    from pathlib import Path

INPUTS = {"input_ids": torch.tensor([[5, 6, 7]]), "attention_mask": torch.ones(1, 3).long()}
KINDS = {
    "bert": BertForMaskedLM,
    "roberta": RobertaForMaskedLM,
    "xlm_roberta": XLMRobertaForMaskedLM,
    "distilbert": DistilBertForMaskedLM,
    "albert": AlbertForMaskedLM,
}


def saved(name: str, folder: Path) -> Any:
    """Save a model with a random head, and the tokenizer of the embedded encoder."""
    torch.manual_seed(0)
    config = CONFIGS[name]()
    tokenizer = character_tokenizer()
    config.vocab_size = len(tokenizer)
    theirs: Any = KINDS[name](config)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    theirs.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    theirs.eval()
    return theirs


def answers(folder: Path) -> torch.Tensor:
    model = multitask_model(pretrained(str(folder)), {"mlm": task()}).eval()
    return logits_of(model.encoder, model.heads["mlm"], INPUTS)


@pytest.mark.parametrize("name", KINDS)
def test_a_checkpoint_answers_as_in_transformers(name: str, tmp_path: Path) -> None:
    theirs = saved(name, tmp_path)
    # Their LayerNorm may have another epsilon.
    torch.testing.assert_close(answers(tmp_path), theirs(**INPUTS).logits, rtol=1e-3, atol=1e-4)


def test_names_of_bert_as_published_are_known(tmp_path: Path) -> None:
    theirs = saved("bert", tmp_path)
    file = tmp_path / "model.safetensors"
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    state = load_file(file)
    for new, published in old.items():
        state = {key.replace(new, published): one for key, one in state.items()}
    save_file(state, file, {"format": "pt"})
    torch.testing.assert_close(answers(tmp_path), theirs(**INPUTS).logits, rtol=1e-4, atol=1e-5)


def test_what_a_run_has_shipped_is_continued(tmp_path: Path) -> None:
    saved("bert", tmp_path / "start")
    encoder = pretrained(str(tmp_path / "start"))
    model = multitask_model(encoder, {"mlm": task()})
    head: Any = model.heads["mlm"]
    torch.nn.init.normal_(head.bias)
    save_model(tmp_path / "model", model, encoder.tokenizer, {"mlm": task()})
    model.eval()
    expected = logits_of(model.encoder, head, INPUTS)
    assert torch.equal(answers(tmp_path / "model"), expected)


def test_a_task_begins_with_its_own_head_of_several(tmp_path: Path) -> None:
    saved("bert", tmp_path / "start")
    encoder = pretrained(str(tmp_path / "start"))
    tasks = {"general": task(), "mlm": task()}
    model = multitask_model(encoder, tasks)
    for head in model.heads.values():
        torch.nn.init.normal_(head.bias)  # type: ignore[arg-type]
    save_model(tmp_path / "model", model, encoder.tokenizer, tasks)
    again = multitask_model(pretrained(str(tmp_path / "model")), tasks | {"other": task()})
    biases = {name: one.bias for name, one in again.heads.items()}
    for name, shipped in (("general", "general"), ("mlm", "mlm"), ("other", "general")):
        assert torch.equal(biases[name], model.heads[shipped].bias)  # type: ignore[arg-type]


def test_without_one_it_begins_at_random(tmp_path: Path) -> None:
    theirs = saved("bert", tmp_path)
    encoder: BertModel = theirs.bert
    encoder.save_pretrained(tmp_path)
    first, second = answers(tmp_path), answers(tmp_path)
    assert first.isfinite().all()
    assert not torch.allclose(first, second)
