"""An encoder-decoder scores the words of labels as the library's own loss does, one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from tiny_text_to_text import COMMON, PAIRS, SENTENCES, TASKS, saved_t5, tiny_t5
from transformers import BartConfig, GPT2Config

from multiprune.models.encoder import pretrained
from multiprune.models.factory import multitask_model, tasks_for
from multiprune.models.from_scratch import from_scratch
from multiprune.models.multitask import MultitaskModel
from multiprune.models.text_to_text import TextToTextModel
from multiprune.tasks.classification import Classification
from multiprune.tasks.task import Batch
from multiprune.tasks.text_to_text import WordedClassification

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from multiprune.models.encoder import Encoder

every_version = pytest.mark.parametrize("gated", [False, True], ids=["t5", "t5_gated"])
READ = {
    "classes": [f"classes sentence: {one}" for one in SENTENCES],
    "pairs": [
        f"pairs hypothesis: {pair} premise: {one}"
        for one, pair in zip(SENTENCES, PAIRS, strict=True)
    ],
}


def made(encoder: Encoder) -> tuple[TextToTextModel, dict[str, WordedClassification]]:
    tasks = tasks_for(encoder, TASKS)
    model = multitask_model(encoder, tasks)
    assert isinstance(model, TextToTextModel)
    return model.eval(), {
        name: one for name, one in tasks.items() if isinstance(one, WordedClassification)
    }


def batch(encoder: Encoder, name: str, labels: list[int] | None = None) -> Batch:
    inputs = encoder.tokenizer(READ[name], padding=True, return_tensors="pt")
    return Batch(name, dict(inputs), torch.tensor(labels or [0, 1]))


@torch.no_grad()
def log_probability(encoder: Encoder, text: str, words: str) -> Tensor:
    """Return what the library's loss says of one text and one label alone."""
    inputs = encoder.tokenizer(text, return_tensors="pt")
    target = encoder.tokenizer(words, return_tensors="pt")["input_ids"]
    model: Any = encoder.model
    log_probability: Tensor = -model(**inputs, labels=target).loss * target.numel()
    return log_probability


@every_version
@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_logits_are_log_probabilities_of_the_words(name: str, gated: bool, attention: str) -> None:
    encoder = tiny_t5(gated=gated)
    encoder.model.set_attn_implementation(attention)
    model, tasks = made(encoder)
    expected = [
        [log_probability(encoder, text, words) for words in tasks[name].wording.words]
        for text in READ[name]
    ]
    torch.testing.assert_close(
        model(batch(encoder, name)), torch.tensor(expected), rtol=1e-5, atol=1e-4
    )


def test_loss_is_that_of_the_library_on_the_right_words() -> None:
    encoder = tiny_t5()
    model, tasks = made(encoder)
    one = batch(encoder, "classes", [2, 1])
    words = [tasks["classes"].wording.words[label] for label in (2, 1)]
    target = encoder.tokenizer(words, padding=True, return_tensors="pt")
    labels = target["input_ids"].masked_fill(target["attention_mask"] == 0, -100)
    library: Any = encoder.model
    expected = library(**one.inputs, labels=labels).loss
    torch.testing.assert_close(tasks["classes"].loss(model(one), one.labels), expected)


def test_text_is_encoded_once_for_all_labels() -> None:
    encoder = tiny_t5()
    model, _ = made(encoder)
    calls: list[Any] = []
    t5: Any = encoder.model
    for stack in (t5.encoder, t5.decoder):
        stack.register_forward_hook(lambda module, *_: calls.append(module))
    model(batch(encoder, "classes"))
    assert calls == [t5.encoder, t5.decoder]


def test_there_is_nothing_to_train_or_to_save_beside_the_model() -> None:
    encoder = tiny_t5()
    model, _ = made(encoder)
    assert not list(model.heads.parameters())
    assert {key.removeprefix("encoder.") for key in model.state_dict()} == set(
        encoder.model.state_dict()
    )


def test_model_learns_to_answer_with_words() -> None:
    encoder = tiny_t5()
    model, tasks = made(encoder)
    one = batch(encoder, "classes", [2, 1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(80):
        optimizer.zero_grad()
        loss = tasks["classes"].loss(model(one), one.labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    output = tasks["classes"].output
    predictions, _ = output.predictions(model(one), one.labels)
    assert output.decided(predictions).tolist() == [2, 1]
    assert float(loss.detach()) < 0.1


def test_encoder_has_the_model_and_the_tasks_that_it_had() -> None:
    encoder = from_scratch(layers=1, hidden=8, heads=2, intermediate=16)
    assert tasks_for(encoder, TASKS) == TASKS
    assert type(multitask_model(encoder, TASKS)) is MultitaskModel


@every_version
def test_folder_of_an_encoder_decoder_is_loaded_to_train(tmp_path: Path, gated: bool) -> None:
    path = saved_t5(tmp_path, gated=gated)
    encoder, written = pretrained(path, dropout=0.25), tiny_t5(gated=gated)
    assert encoder.is_text_to_text
    assert encoder.model.training
    assert encoder.max_length == 128
    dropouts = {one.p for one in encoder.model.modules() if isinstance(one, torch.nn.Dropout)}
    assert dropouts == {0.25}
    one = batch(encoder, "classes")
    assert torch.equal(made(encoder)[0](one), made(written)[0](one))


def test_frozen_embeddings_are_those_of_both_stacks(tmp_path: Path) -> None:
    encoder = pretrained(saved_t5(tmp_path), freeze_embeddings=True)
    frozen = {path for path, one in encoder.model.named_parameters() if not one.requires_grad}
    bias = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    assert frozen == {"shared.weight", f"encoder.{bias}", f"decoder.{bias}"}


def test_model_with_a_decoder_only_is_refused(tmp_path: Path) -> None:
    GPT2Config().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is a gpt2, which has a decoder only"):
        pretrained(str(tmp_path))


def test_unknown_encoder_decoder_is_refused(tmp_path: Path) -> None:
    BartConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"must be one of t5, mt5, but .* is a bart"):
        pretrained(str(tmp_path))


def test_task_that_cannot_be_put_in_words_is_refused_by_its_name() -> None:
    bad = Classification(text=["sentence"], labels=["a", "é"], **COMMON)
    with pytest.raises(ValueError, match="`label_words` of 'accents' must be made of tokens"):
        tasks_for(tiny_t5(), {"accents": bad})


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_bf16_scores_are_finite_and_near_those_of_fp32(attention: str) -> None:
    encoder = tiny_t5()
    encoder.model.set_attn_implementation(attention)
    model, tasks = made(encoder)
    one = batch(encoder, "classes")
    expected = model(one)
    with torch.autocast("cpu", torch.bfloat16):
        found = model(one)
        loss = tasks["classes"].loss(found, one.labels)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.5)
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(one is not None and one.isfinite().all() for one in gradients)
