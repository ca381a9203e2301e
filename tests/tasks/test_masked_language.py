"""Texts as blocks of a task, and batches of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from masked_task import masked_task
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from multiprune.data.batches import EncodedTask, EvaluationBatches, TrainBatches
from multiprune.data.mixing import BatchPlan
from multiprune.metrics import Perplexity, TokenAccuracy
from multiprune.metrics.terms import MetricTerms
from multiprune.models.from_scratch import character_tokenizer
from multiprune.tasks.answers import answers_to
from multiprune.tasks.packing import beside_texts, within_texts
from multiprune.tasks.rows import IGNORED, Rows
from multiprune.tasks.scores import metric_terms, scores_of
from multiprune.tasks.task import Batch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multiprune.tasks.masked_language import MaskedLanguage

TOKENIZER = character_tokenizer()


def task(**changes: Any) -> MaskedLanguage:
    return masked_task(**changes).read_by(TOKENIZER)


def rows(texts: Sequence[str | None], column: str = "text") -> Rows:
    return Rows(Dataset.from_dict({column: texts}), "corpus.parquet", "fingerprint")


def encoded(length: int = 16, **changes: Any) -> EncodedTask:
    one = task(**changes)
    texts = [" ".join(["the red dog runs"] * (1 + number % 7)) for number in range(40)]
    columns, _ = one.encode(rows(texts), TOKENIZER, length)
    table = Dataset.from_dict(columns)
    return EncodedTask(
        name="mlm",
        task=one,
        splits={"train": table, "validation": table},
        truncated=0,
        padding_token=0,
    )


def train_batches(world: EncodedTask, rank: int = 0, world_size: int = 1) -> TrainBatches[Batch]:
    lengths = np.array([len(one) for one in world.splits["train"]["input_ids"]])
    plan = BatchPlan(lengths={"mlm": lengths}, probabilities={"mlm": 1.0}, batch_size=4, seed=3)
    return TrainBatches(plan, {"mlm": world}, rank=rank, world_size=world_size)


def assert_same(first: Batch, second: Batch) -> None:
    assert torch.equal(first.labels, second.labels)
    assert torch.equal(first.inputs["input_ids"], second.inputs["input_ids"])


@pytest.mark.parametrize("probability", [0.0, -0.1, 1.5])
def test_probability_out_of_range_is_refused(probability: float) -> None:
    with pytest.raises(
        ValueError, match=rf"`probability` must be in \(0, 1\], but is {probability}"
    ):
        task(probability=probability)


def test_a_score_of_which_less_is_better_is_refused() -> None:
    with pytest.raises(ValueError, match="must be better when higher, but is 'perplexity'"):
        task(metrics={"perplexity": Perplexity(), "accuracy": TokenAccuracy()})


def test_a_task_that_knows_no_tokenizer_says_so() -> None:
    with pytest.raises(
        ValueError, match="tokenizer of the masked language modelling task is not set"
    ):
        replace(encoded(), task=replace(task(), vocabulary=None)).batch("train", [0])


def test_a_corpus_smaller_than_a_block_is_one_block() -> None:
    columns, cut = task().encode(rows(["the dog runs"]), TOKENIZER, 64)
    assert [one.tolist() for one in columns["input_ids"]] == [
        TOKENIZER("the dog runs")["input_ids"]
    ]
    assert cut == 0


def test_a_very_long_line_is_cut_into_blocks() -> None:
    columns, cut = task(packing=within_texts).encode(rows(["dog " * 300_000]), TOKENIZER, 512)
    assert [len(one) for one in columns["input_ids"]] == [512] * 588 + [2 + 300_000 - 588 * 510]
    assert cut == 0


def test_empty_lines_are_left_out_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    columns, _ = task().encode(rows(["", "dog", "  ", "cat"]), TOKENIZER, 8)
    assert TOKENIZER.decode(columns["input_ids"][0]) == "[CLS] dog [SEP] cat [SEP]"
    assert "corpus.parquet: skipped 2 rows without text." in caplog.messages


def test_a_corpus_without_text_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'text' of corpus\.parquet .* all 2 rows are empty"):
        task().encode(rows(["", " "]), TOKENIZER, 8)


def test_a_corpus_that_the_tokenizer_does_not_know_is_refused() -> None:
    with pytest.raises(ValueError, match="that the tokenizer knows, but all 2 rows are empty or"):
        task().encode(rows(["мама", "мыла раму"]), TOKENIZER, 8)
    columns, _ = task().encode(rows(["мама", "dog"]), TOKENIZER, 8)
    assert TOKENIZER.decode(columns["input_ids"][0]) == "[CLS] [UNK] [SEP] dog [SEP]"


def fast(pieces: Tokenizer) -> Any:
    kind: Any = PreTrainedTokenizerFast
    return kind(tokenizer_object=pieces, unk_token="<unk>", mask_token="<mask>")


def test_whole_words_need_a_tokenizer_that_knows_words() -> None:
    pieces = Tokenizer(models.Unigram([("<unk>", 0.0), ("▁", -1.0), ("a", -1.0), ("b", -1.0)], 0))
    pieces.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    masked_task(whole_words=False).read_by(fast(pieces))
    with pytest.raises(ValueError, match=r"`whole_words` needs a tokenizer that splits words"):
        masked_task(whole_words=True).read_by(fast(pieces))
    pieces.pre_tokenizer = pre_tokenizers.Metaspace()
    masked_task(whole_words=True).read_by(fast(pieces))


def test_a_missing_column_and_a_null_are_named() -> None:
    with pytest.raises(
        ValueError, match=r"corpus\.parquet must have a column 'text', but has line"
    ):
        task().encode(rows(["dog"], "line"), TOKENIZER, 8)
    with pytest.raises(ValueError, match=r"'text' of corpus\.parquet .* row 1 is null"):
        task().encode(rows(["dog", None]), TOKENIZER, 8)


def test_the_cache_tells_packings_apart_but_not_probabilities() -> None:
    assert task().cache_key == task(probability=0.4, whole_words=True).cache_key
    assert task().cache_key != task(packing=beside_texts).cache_key


def test_hidden_tokens_are_put_back_by_the_labels() -> None:
    world = encoded()
    batch = world.batch("train", [0, 5, 9])
    original = world.splits["train"][[0, 5, 9]]["input_ids"]
    hidden = batch.labels != IGNORED
    back = batch.inputs["input_ids"].where(~hidden, batch.labels)
    for row, tokens in zip(back.tolist(), original, strict=True):
        assert row[: len(tokens)] == tokens
    assert hidden.any(1).all()


def test_validation_hides_the_same_tokens_whatever_the_batches_are() -> None:
    world = encoded()
    one, four = (
        EvaluationBatches(world, "validation", batch_size=size, rank=0, world_size=1)
        for size in (1, 4)
    )
    alone = [batch.labels[0] for batch in one]
    for batch in four:
        for row, labels in zip(batch.rows, batch.labels, strict=True):
            assert torch.equal(labels[: len(alone[row])], alone[row])
    assert_same(next(iter(four)), next(iter(four)))


def test_each_epoch_hides_other_tokens_and_a_repeated_one_the_same() -> None:
    world = encoded()
    served, again = train_batches(world), train_batches(world)
    epochs = [[*served], [*served]]
    for first, second in zip([*again, *again], [*epochs[0], *epochs[1]], strict=True):
        assert_same(first, second)
    by_row = [
        {row: labels for one in epoch for row, labels in zip(one.rows, one.labels, strict=True)}
        for epoch in epochs
    ]
    full = [row for row in by_row[0] if len(by_row[0][row]) == len(by_row[1][row])]
    same = [torch.equal(by_row[0][row], by_row[1][row]) for row in full]
    assert len(full) > 10
    assert sum(same) < len(same) / 2


def test_batches_that_continue_hide_what_those_would_that_were_not_stopped() -> None:
    world = encoded()
    straight, resumed = [*train_batches(world)], train_batches(world)
    resumed.load_state_dict({"served": 3})
    for first, second in zip(straight[3:], resumed, strict=False):
        assert_same(first, second)


def test_ranks_hide_what_one_rank_alone_does() -> None:
    world = encoded()
    alone = next(iter(train_batches(world)))
    ranks = [next(iter(train_batches(world, rank, 2))) for rank in (0, 1)]
    found = {row: one for part in ranks for row, one in zip(part.rows, part.labels, strict=True)}
    assert sorted(found) == sorted(alone.rows)
    for row, labels in zip(alone.rows, alone.labels, strict=True):
        length = min(len(labels), len(found[row]))
        assert torch.equal(labels[:length], found[row][:length])
    assert ranks[0].labels.tolist() != ranks[1].labels.tolist()


def test_scores_are_those_of_probabilities_by_hand() -> None:
    labels = torch.tensor([[IGNORED, 0, IGNORED], [1, IGNORED, 1]])
    probabilities = torch.tensor([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25], [0.25, 0.5, 0.25]])
    batch = Batch("mlm", {}, labels, rows=[4, 7])
    answers = answers_to(task(), batch, probabilities.log())
    assert answers.examples.tolist() == [4, 7, 7]
    scores = scores_of(task(), answers, None)
    # Two are right, with probabilities of a half; the other has a quarter.
    assert scores["accuracy"] == pytest.approx(2 / 3)
    assert scores["perplexity"] == pytest.approx((2 * 2 * 4) ** (1 / 3))
    assert scores["loss"] == pytest.approx(np.log(16) / 3)
    terms = metric_terms(task(), answers, None, lambda _: [])
    assert isinstance(terms, MetricTerms)
    assert terms.terms.tolist() == [[1, 1], [1, 2]]


def test_perplexity_of_a_model_that_is_far_off_is_finite() -> None:
    far = torch.tensor([[1.0, 1e4]])
    assert np.isfinite(np.float32(Perplexity()(far, far)))


def test_distillation_is_nothing_where_both_agree_and_counts_hidden_tokens_only() -> None:
    labels = torch.tensor([[IGNORED, 0, 2]])
    logits, teacher = torch.randn(1, 3, 5), torch.randn(1, 3, 5)
    assert task().distillation_loss(logits, logits, labels, 2.0) == pytest.approx(0, abs=1e-6)
    changed = teacher.clone()
    changed[0, 0] += torch.arange(5)
    found = [task().distillation_loss(logits, one, labels, 2.0) for one in (teacher, changed)]
    assert found[0] == found[1] > 0


def test_distillation_is_nothing_where_nothing_is_hidden() -> None:
    labels, logits = torch.full((2, 3), IGNORED), torch.randn(0, 5, requires_grad=True)
    loss = task().distillation_loss(logits, torch.randn(0, 5), labels, 2.0)
    (gradient,) = torch.autograd.grad(loss, [logits])
    assert loss == 0
    assert gradient.shape == (0, 5)
