"""Scores of the vocabulary by the encoder's embeddings, held against transformers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from masked_task import masked_task as task
from tiny_encoders import CONFIGS, tiny_encoder
from transformers import BertConfig, BertForMaskedLM, RobertaForMaskedLM

from multiprune.budget import FractionBudget, ParameterLedger
from multiprune.models.beside import READ_BESIDE, check_reads_beside, states_of
from multiprune.models.encoder import Encoder
from multiprune.models.factory import tasks_for
from multiprune.models.from_scratch import character_tokenizer, from_scratch
from multiprune.models.heads import embeddings_of, logits_of
from multiprune.models.multitask import MultitaskModel
from multiprune.pruning.magnitude import Magnitude
from multiprune.tasks.outputs.vocabulary import VocabularyHead
from multiprune.tasks.packing import beside_texts
from multiprune.tasks.rows import IGNORED
from multiprune.tasks.task import Batch


def test_the_loss_is_that_of_transformers_with_the_same_weights() -> None:
    config = BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    torch.manual_seed(0)
    theirs: Any = BertForMaskedLM(config).double()
    torch.nn.init.normal_(theirs.cls.predictions.bias)
    ours = MultitaskModel(theirs.bert, {"mlm": task()}).double()
    head: Any = ours.heads["mlm"]
    transform = theirs.cls.predictions.transform
    head.dense.load_state_dict(transform.dense.state_dict())
    head.norm.load_state_dict(transform.LayerNorm.state_dict())
    head.bias.data.copy_(theirs.cls.predictions.bias)

    tokens = torch.randint(5, 50, (3, 12))
    mask = torch.ones_like(tokens)
    mask[1, 7:] = 0
    labels = tokens.masked_fill(torch.rand(tokens.shape) > 0.3, IGNORED).where(mask == 1, IGNORED)
    inputs = {"input_ids": tokens, "attention_mask": mask}
    expected = theirs(**inputs, labels=labels)
    logits = ours(Batch("mlm", inputs, labels))
    assert logits.shape == (int((labels != IGNORED).sum()), 50)
    torch.testing.assert_close(logits, expected.logits[labels != IGNORED])
    torch.testing.assert_close(
        task().loss(logits, labels).double(), expected.loss, rtol=1e-6, atol=0
    )
    whole = logits_of(ours.encoder, head, inputs)
    torch.testing.assert_close(whole, expected.logits)
    assert task().loss(whole, labels) == task().loss(logits, labels)


def test_the_embeddings_are_counted_stored_and_trained_once() -> None:
    encoder = from_scratch(layers=1, hidden=16, heads=2, intermediate=32)
    words = encoder.model.config.vocab_size
    model = MultitaskModel(encoder.model, {"mlm": task()})
    ledger = ParameterLedger.of(model, model.encoder)
    assert ledger.dense["heads"] == 16 * 16 + 16 + 2 * 16 + words
    assert ledger.dense["embeddings"] == (words + 512 + 2) * 16
    assert set(model.heads.state_dict()) == {
        f"mlm.{name}" for name in ("dense.weight", "dense.bias", "norm.weight", "norm.bias", "bias")
    }
    # Gradients of what is read and of what is answered add up in one matrix.
    batch = Batch(
        "mlm",
        {"input_ids": torch.tensor([[2, 9, 3]]), "attention_mask": torch.ones(1, 3).long()},
        torch.tensor([[IGNORED, 11, IGNORED]]),
    )
    embeddings = embeddings_of(encoder.model)
    (gradient,) = torch.autograd.grad(task().loss(model(batch), batch.labels), [embeddings])
    assert (gradient.abs().sum(1) > 0).all()


def test_pruning_the_encoder_leaves_embeddings_and_head_as_they_are() -> None:
    encoder = from_scratch(layers=1, hidden=16, heads=2, intermediate=32)
    model = MultitaskModel(encoder.model, {"mlm": task()})
    before = {key: one.clone() for key, one in model.state_dict().items()}
    pruner = Magnitude(budget=FractionBudget(fraction=0.2))
    pruner.prepare(model, model.encoder)
    pruner.prune(1.0)
    pruner.finalize()
    changed = {key for key, one in model.state_dict().items() if not torch.equal(one, before[key])}
    assert changed
    assert not any("embeddings" in key or key.startswith("heads") for key in changed)


def test_a_head_fits_embeddings_of_another_size_than_states() -> None:
    encoder = tiny_encoder("electra", dtype=torch.float32)
    model = MultitaskModel(encoder, {"mlm": task()})
    inputs = {"input_ids": torch.tensor([[5, 6]]), "attention_mask": torch.ones(1, 2).long()}
    assert logits_of(encoder, model.heads["mlm"], inputs).shape == (1, 2, 40)


def test_loss_and_predictions_of_a_batch_without_hidden_tokens_are_defined() -> None:
    labels = torch.full((2, 3), IGNORED)
    logits = torch.zeros(0, 7, requires_grad=True)
    assert task().loss(logits, labels) == 0
    predictions, right = task().output.predictions(logits, labels)
    assert predictions.shape == right.shape == (0, 2)


@pytest.mark.parametrize("name", [one for one in CONFIGS if one.replace("_", "-") in READ_BESIDE])
def test_a_text_beside_others_is_read_as_it_is_alone(name: str) -> None:
    encoder: Any = tiny_encoder(name)
    encoder.eval()
    first, second = torch.tensor([[7, 8, 9]]), torch.tensor([[30, 31, 32, 33, 34]])
    behind = torch.full((1, 2), encoder.config.pad_token_id or 0)
    packed = {
        "input_ids": torch.cat([first, second, behind], 1),
        "position_ids": torch.tensor([[0, 1, 2, 0, 1, 2, 3, 4, 0, 0]]),
        "attention_mask": torch.tensor([[1] * 8 + [0] * 2]),
    }
    found = states_of(encoder, packed)
    assert found.isfinite().all()
    for text, start in ((first, 0), (second, 3)):
        alone = encoder(input_ids=text, attention_mask=torch.ones_like(text)).last_hidden_state
        torch.testing.assert_close(found[:, start : start + text.shape[1]], alone)
    together = {key: one for key, one in packed.items() if key != "position_ids"}
    assert not torch.allclose(states_of(encoder, together)[:, :3], found[:, :3])


def test_encoders_are_known_to_read_beside_by_a_test() -> None:
    assert set(READ_BESIDE) <= {one.replace("_", "-") for one in CONFIGS}


def test_an_encoder_that_does_not_read_texts_beside_each_other_is_refused() -> None:
    model = tiny_encoder("modernbert")
    with pytest.raises(ValueError, match="the encoder is a modernbert: use within_texts"):
        check_reads_beside(model)
    encoder = Encoder(model, character_tokenizer())
    with pytest.raises(ValueError, match="is a modernbert"):
        tasks_for(encoder, {"mlm": task(packing=beside_texts)})
    assert tasks_for(encoder, {"mlm": task()})


def test_transformers_has_a_head_of_the_same_layers_for_roberta() -> None:
    # The check on BERT says what is computed; this, that no architecture asks for another head.
    config: Any = CONFIGS["roberta"]()
    theirs: Any = RobertaForMaskedLM(config).double()
    theirs.eval()
    head = VocabularyHead(32, 32, 40).double()
    head.dense.load_state_dict(theirs.lm_head.dense.state_dict())
    head.norm.load_state_dict(theirs.lm_head.layer_norm.state_dict())
    inputs = {"input_ids": torch.tensor([[5, 6, 7]]), "attention_mask": torch.ones(1, 3).long()}
    found = logits_of(theirs.roberta, head, inputs)
    # Their LayerNorm has another epsilon.
    torch.testing.assert_close(found, theirs(**inputs).logits, rtol=1e-3, atol=1e-5)
