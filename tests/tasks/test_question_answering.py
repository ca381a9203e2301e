from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor, tensor
from transformers import ByT5Tokenizer

from multiprune.data.batches import EncodedTask, capped, examples_of
from multiprune.data.cache import encoded_rows
from multiprune.data.source import HubSource
from multiprune.metrics import AnswerF1, ExactMatch
from multiprune.models.from_scratch import character_tokenizer
from multiprune.runs.predictions import Answers
from multiprune.tasks.answer_text import mlqa, squad
from multiprune.tasks.question_answering import QuestionAnswering
from multiprune.tasks.rows import IGNORED, Rows
from multiprune.tasks.scores import scores_of

if TYPE_CHECKING:
    from multiprune.tasks.task import Batch

TOKENIZER = character_tokenizer()
#: A token a word, but "fox", which becomes f ##o ##x.
CONTEXT = "the dog chased the red fox near two white cats behind the cow sleeps"


def task(**changes: Any) -> QuestionAnswering:
    arguments: dict[str, Any] = {
        "text": ["question", "context"],
        "label": "answers",
        "label_start": "starts",
        "normalize": squad,
        "metrics": {"f1": AnswerF1(), "exact_match": ExactMatch()},
        "source": HubSource(path=None, mirror="nowhere"),
    }
    return QuestionAnswering(**arguments | changes)


def rows(*answers: str, context: str = CONTEXT, **columns: list[Any]) -> Rows:
    """Ask for one answer a row, where it stands first."""
    table = {
        "question": ["who runs"] * len(answers),
        "context": [context] * len(answers),
        "answers": [[one] for one in answers],
        "starts": [[context.index(one)] for one in answers],
    }
    return Rows(Dataset.from_dict(table | columns), "corpus.parquet", "fingerprint")


def encoded(
    known: Rows, *, max_length: int = 64, of: QuestionAnswering | None = None
) -> EncodedTask:
    of = of or task()
    columns, truncated = of.encode(known, TOKENIZER, max_length)
    table = Dataset.from_dict(columns)
    return EncodedTask(
        name="qa", task=of, splits={"train": table}, truncated=truncated, padding_token=0
    )


def whole(one: EncodedTask) -> Batch:
    return one.batch("train", range(len(one.splits["train"])))


def pointing(labels: Tensor) -> Tensor:
    """Return logits that point where labels do."""
    logits = torch.zeros(len(labels), labels.shape[1] - 2, 2)
    for row, (start, end) in enumerate(labels[:, 0].tolist()):
        logits[row, start, 0] = logits[row, end, 1] = 5 * (start > 0)
    return logits


def answered(one: EncodedTask, logits: Tensor) -> Answers:
    batch = whole(one)
    answers = Answers(*one.task.output.predictions(logits, batch.labels), tensor(batch.examples))
    return one.task.output.combined(answers)


def tokens_of(one: EncodedTask) -> list[list[str]]:
    return [[*TOKENIZER.convert_ids_to_tokens(ids)] for ids in one.splits["train"]["input_ids"][:]]


def test_answer_is_marked_by_the_tokens_of_its_characters() -> None:
    one = encoded(rows("the red fox", "dog"))
    tokens, labels = tokens_of(one), whole(one).labels
    marked = labels[:, 0].tolist()
    spans = [words[start : end + 1] for words, (start, end) in zip(tokens, marked, strict=True)]
    assert spans == [["the", "red", "f", "##o", "##x"], ["dog"]]
    assert labels[:, 1].tolist() == [[15, 26], [4, 7]]
    # Characters of each token of the context, and none of the question.
    where = labels[0, 2:]
    words = [CONTEXT[start:end] for start, end in where.tolist() if start >= 0]
    assert words == CONTEXT.replace("fox", "f o x").split()
    assert where[0].tolist() == [-1, -1]
    assert one.truncated == 0


def test_part_of_a_word_is_marked_by_the_whole_word() -> None:
    one = encoded(rows("og cha"))
    start, end = whole(one).labels[0, 0].tolist()
    assert tokens_of(one)[0][start : end + 1] == ["dog", "chased"]


def test_spaces_around_an_answer_do_not_count() -> None:
    one = encoded(rows(" red fox "))
    start, end = whole(one).labels[0, 0].tolist()
    assert tokens_of(one)[0][start : end + 1] == ["red", "f", "##o", "##x"]
    assert whole(one).labels[0, 1].tolist() == [19, 26]


def test_long_context_is_read_in_windows_that_overlap() -> None:
    one = encoded(rows("cow"), max_length=14, of=task(overlap=3))
    question = TOKENIZER.tokenize("who runs")
    room = 14 - len(question) - 3
    context = TOKENIZER.tokenize(CONTEXT)
    expected = [context[0:room]]
    for start in itertools.count(room - 3, room - 3):
        expected.append(context[start : start + room])
        if start + room >= len(context):
            break
    windows = [tokens[len(question) + 2 : -1] for tokens in tokens_of(one)]
    assert windows == expected
    assert len(windows) >= 3
    assert one.splits["train"]["example"][:] == [0] * len(windows)
    # Windows without the answer point at the first token.
    marked = [start > 0 for start, _ in whole(one).labels[:, 0].tolist()]
    assert marked == ["cow" in window for window in windows]
    assert any(marked)
    assert not all(marked)


def test_overlap_is_at_most_half_of_what_is_left_for_the_context() -> None:
    one = encoded(rows("cow"), max_length=14, of=task(overlap=1000))
    question = len(TOKENIZER.tokenize("who runs"))
    windows = [tokens[question + 2 : -1] for tokens in tokens_of(one)]
    shared = (14 - question - 3) // 2
    assert windows[0][-shared:] == windows[1][:shared]


def test_answer_that_no_window_holds_whole_is_in_none() -> None:
    one = encoded(rows(CONTEXT), max_length=14)
    assert whole(one).labels[:, 0].eq(0).all()


@pytest.mark.parametrize("max_length", [18, 20, 64])
def test_what_is_marked_is_what_is_answered(max_length: int) -> None:
    known = rows("the red fox", "the", "cats behind", "sleeps", "two white cats")
    one = encoded(known, max_length=max_length, of=task(overlap=6))
    answers = answered(one, pointing(whole(one).labels))
    assert answers.examples.tolist() == [0, 1, 2, 3, 4]
    assert answers.predictions.tolist() == answers.labels.tolist()
    # An article alone is nothing, which is right, but has no word in common with itself.
    assert scores_of(one.task, answers, known) == {"f1": 0.8, "exact_match": 1.0}
    assert one.task.output.shown(answers.predictions[:1]) == "characters 15 to 26"


def test_best_span_is_that_of_all_windows_and_of_allowed_lengths() -> None:
    of = task(overlap=3, answer_length=3)
    one = encoded(rows("cow", "dog"), max_length=14, of=of)
    batch = whole(one)
    logits = torch.randn(len(batch.labels), batch.labels.shape[1] - 2, 2)
    expected: dict[int, tuple[float, list[int]]] = {}
    for row, example in enumerate(batch.examples):
        characters = batch.labels[row, 2:].tolist()
        for start, end in itertools.product(range(len(characters)), repeat=2):
            inside = characters[start][0] >= 0 and characters[end][0] >= 0
            if inside and start <= end < start + 3:
                score = float(logits[row, start, 0] + logits[row, end, 1])
                span = [characters[start][0], characters[end][1]]
                expected[example] = max(expected.get(example, (-99.0, span)), (score, span))
    found = answered(one, logits)
    assert found.predictions.tolist() == [expected[0][1], expected[1][1]]


def test_loss_is_the_mean_of_two_cross_entropies_without_padding() -> None:
    of = task()
    one = encoded(rows("dog", "cow", context="the dog chased a cow"), of=of)
    short = encoded(rows("dog", context="dog"), of=of)
    labels = of.label_tensor(
        [*one.splits["train"]["labels"][:], *short.splits["train"]["labels"][:]],
        len(one.splits["train"]["input_ids"][0]),
    )
    logits = torch.randn(3, labels.shape[1] - 2, 2)
    losses = []
    for row in range(3):
        length = int((labels[row, 2:, 0] != IGNORED).sum())
        for column in range(2):
            scores = logits[row, :length, column]
            losses.append(-scores[labels[row, 0, column]] + scores.exp().sum().log())
    torch.testing.assert_close(of.loss(logits, labels), torch.stack(losses).mean())
    other = logits.clone()
    other[2, length:] = 100.0
    assert of.loss(other, labels) == of.loss(logits, labels)


def test_distillation_is_0_from_a_teacher_that_agrees_whatever_padding_holds() -> None:
    of = task()
    labels = of.label_tensor([[1, 1, 0, 3, -1, -1, 0, 3]], 4)
    logits = torch.randn(1, 4, 2)
    teacher = logits.clone()
    teacher[:, 2:] = 7.0
    assert of.distillation_loss(logits, teacher, labels, 2.0).abs() < 1e-6
    teacher[:, 0] += 1
    assert of.distillation_loss(logits, teacher, labels, 2.0) > 0.01


def test_scores_are_by_language_and_normalised_in_it() -> None:
    known = rows("the dog", "la dog", context="the dog la dog", lang=["en", "es"])
    of = task(languages=["en", "es"], normalize=mlqa)
    answers = Answers(tensor([[4, 7], [11, 14]]), tensor([[0, 7], [8, 14]]), tensor([0, 1]))
    assert scores_of(of, answers, known)["exact_match"] == 1
    english = task(languages=["en", "es"])
    found = scores_of(english, answers, known)
    assert found["exact_match.en"] == 1
    assert found["exact_match.es"] == 0
    assert found["f1.es"] == pytest.approx(2 / 3)


def test_a_cap_counts_examples_not_windows() -> None:
    table = encoded(rows("cow", "dog", "cats"), max_length=14).splits["train"]
    assert len(table) > 3
    some = capped(table, 2, [0])
    assert len(set(examples_of(some))) == 2
    assert len(some) == len(table) * 2 / 3
    assert capped(table, 3, [0]) is table


def test_long_questions_are_cut_and_counted() -> None:
    known = rows("dog", "cow", question=["who runs", "who runs near the dog and the cow"])
    one = encoded(known, of=task(question_length=6))
    assert one.truncated == 1
    question = TOKENIZER.tokenize(known.table[1]["question"])[:6]
    assert tokens_of(one)[1][:8] == ["[CLS]", *question, "[SEP]"]


def test_window_without_room_for_a_context_is_refused() -> None:
    question = len(TOKENIZER.tokenize("who runs"))
    encoded(rows("dog"), max_length=question + 4)
    with pytest.raises(ValueError, match=rf"room for a context .* it is {question + 3} and"):
        encoded(rows("dog"), max_length=question + 3)


@pytest.mark.parametrize(
    ("answers", "starts", "said"),
    [
        ([], [], r"row 1 of corpus\.parquet must have as many answers as starts.* but has 0 and 0"),
        (["dog"], [4, 5], "has 1 and 2"),
        (["dog"], [5], r"'dog' in row 1 of corpus\.parquet is not at position 5"),
        (["dog", "cow"], [4, 0], "'cow' in row 1"),
        (["sleeps"], [-6], "is not at position -6"),
        ([" "], [3], "' ' in row 1"),
    ],
)
def test_answers_that_are_not_there_are_refused(
    answers: list[str], starts: list[int], said: str
) -> None:
    known = rows("dog", "dog", answers=[["dog"], answers], starts=[[4], starts])
    with pytest.raises(ValueError, match=said):
        encoded(known)


def test_missing_column_of_starts_is_named() -> None:
    known = rows("dog")
    table = known.table.remove_columns("starts")
    with pytest.raises(ValueError, match="must have a column 'starts'"):
        encoded(Rows(table, "corpus.parquet", ""))


def test_tokenizer_without_characters_is_refused(tmp_path: Any) -> None:
    slow = ByT5Tokenizer()
    with pytest.raises(ValueError, match=r"character offsets.*, but this is a ByT5"):
        task().encode(rows("dog"), slow, 64)
    with pytest.raises(ValueError, match=r"`tokenizers`.* is required, but this is a ByT5"):
        encoded_rows(task(), rows("dog"), slow, max_length=64, folder=tmp_path)


@pytest.mark.parametrize("changes", [{"overlap": -1}, {"question_length": 0}, {"answer_length": 0}])
def test_impossible_lengths_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=rf"`{next(iter(changes))}` must be a whole number of"):
        task(**changes)


def test_languages_that_the_normalisation_does_not_know_are_refused() -> None:
    task(normalize=mlqa, languages=["en", "zh"])
    with pytest.raises(ValueError, match=r"zh, but the language is sw\."):
        task(normalize=mlqa, languages=["en", "sw"])
    with pytest.raises(ValueError, match=r"but the language is None\."):
        task(normalize=mlqa)


def test_encoding_again_gives_the_same() -> None:
    known = rows("cow", "dog")
    first, second = (task().encode(known, TOKENIZER, 14)[0] for _ in range(2))
    assert Dataset.from_dict(first).to_dict() == Dataset.from_dict(second).to_dict()
