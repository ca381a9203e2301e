"""Words and windows of any texts: nothing is read twice or lost, labels stay in place."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from datasets import Dataset
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import seeds, texts
from torch.nn.functional import one_hot

from multiprune.data.source import HubSource
from multiprune.metrics import Accuracy
from multiprune.models.from_scratch import character_tokenizer
from multiprune.runs.predictions import Answers
from multiprune.tasks.answers import decided
from multiprune.tasks.rows import EXAMPLE, IGNORED, Rows
from multiprune.tasks.tagging import Tagging
from multiprune.tasks.windows import context_windows
from multiprune.tasks.word_labels import tags_of, unread, word_label, words_of
from multiprune.tasks.word_windows import NO_WORD, word_windows

if TYPE_CHECKING:
    from collections.abc import Sequence

TOKENIZER = character_tokenizer()
#: Of one token, of several, of none, and any.
words = st.one_of(
    st.sampled_from(["the", "dog", "cat", "red", "xyz", "foxes", "abcdefghijk"]),
    st.sampled_from(["", " ", "\x00", "\u200d", "日本", "İ", "e\u0301", "[SEP]", "don't", " the "]),
    texts,
)
documents = st.lists(st.lists(words, max_size=12), min_size=1, max_size=3)
overlaps = st.none() | st.integers(0, 9)


def own_tokens(document: Sequence[str]) -> list[list[int]]:
    """Return the tokens of each word, tokenized by itself."""
    tokens: list[list[int]] = TOKENIZER([*document, ""], add_special_tokens=False)["input_ids"]
    return tokens[:-1]


@given(documents, st.integers(4, 12), overlaps)
def test_each_word_is_answered_once_at_its_first_token(
    drawn: list[list[str]], max_length: int, overlap: int | None
) -> None:
    found = word_windows(drawn, TOKENIZER, max_length=max_length, overlap=overlap)
    assert found.examples == sorted(found.examples)
    answered: Counter[tuple[int, int]] = Counter()
    tokens_of_words = [*map(own_tokens, drawn)]
    for ids, number, numbers in zip(
        found.inputs["input_ids"], found.examples, found.words, strict=True
    ):
        assert len(ids) == len(numbers) <= max_length
        for token, word in zip(ids, numbers, strict=True):
            if word != NO_WORD:
                answered[number, word] += 1
                assert token == tokens_of_words[number][word][0]
    room = max_length - 2
    for number, pieces in enumerate(tokens_of_words):
        starts = np.cumsum([0, *map(len, pieces)])
        expected = {
            (number, word)
            for word, tokens in enumerate(pieces)
            if tokens and (overlap is not None or starts[word] < room)
        }
        assert {key for key in answered if key[0] == number} == expected
    assert set(answered.values()) <= {1}
    cut = sum(sum(map(len, pieces)) > room for pieces in tokens_of_words)
    assert found.cut == (cut if overlap is None else 0)


def tagging(labels: list[str], overlap: int | None) -> Tagging:
    settings: dict[str, Any] = {"source": HubSource(path=None, mirror="nowhere")}
    return Tagging(
        text=["words"], label="tags", labels=labels, overlap=overlap,
        metrics={"accuracy": Accuracy()}, **settings,
    )  # fmt: skip


@given(
    documents, st.integers(4, 12), overlaps, st.sampled_from([["O", "A", "B"], ["A", "B"]]), seeds
)
def test_answers_come_back_in_the_order_of_words_whatever_windows_they_are_in(
    drawn: list[list[str]], max_length: int, overlap: int | None, labels: list[str], seed: int
) -> None:
    generator, task = np.random.default_rng(seed), tagging(labels, overlap)
    tags = [generator.integers(len(labels), size=len(document)) for document in drawn]
    named = [[labels[tag] for tag in row] for row in tags]
    rows = Rows(Dataset.from_dict({"words": drawn, "tags": named}), "corpus", "")
    if all(not document for document in drawn):
        return
    columns, _ = task.encode(rows, TOKENIZER, max_length)
    order = generator.permutation(len(columns["labels"])).tolist()
    predictions, right, examples = [], [], []
    for window in order:
        ids = torch.tensor([columns["input_ids"][window]])
        padded = task.label_tensor([columns["labels"][window]], ids.shape[1])
        logits = one_hot(ids % len(labels), len(labels)).float()
        chosen, known = task.output.predictions(logits, padded)
        assert len(chosen) == int(task.output.answers_by_example(padded))
        predictions.append(chosen)
        right.append(known)
        examples += [columns[EXAMPLE][window]] * len(chosen)
    answers = task.output.combined(
        Answers(torch.cat(predictions), torch.cat(right), torch.tensor(examples, dtype=torch.long))
    )
    # By hand: the first token decides; a word that is not read is outside, or wrong.
    expected, room = [], max_length - 2
    for document, row in zip(drawn, tags, strict=True):
        pieces = own_tokens(document)
        starts = np.cumsum([0, *map(len, pieces)])
        for tokens, start, tag in zip(pieces, starts, row.tolist(), strict=False):
            is_read = bool(tokens) and (overlap is not None or start < room)
            other = 0 if labels[0] == "O" else (tag + 1) % len(labels)
            expected.append(tokens[0] % len(labels) if is_read else other)
    assert answers.labels.tolist() == np.concatenate(tags).tolist()
    assert decided(task, answers).predictions.tolist() == expected


@given(st.lists(st.tuples(st.integers(0, 2**16 - 1), st.integers(0, 2**20)), min_size=1))
def test_a_label_holds_a_tag_and_a_word(pairs: list[tuple[int, int]]) -> None:
    labels = torch.tensor([word_label(tag, word) for tag, word in pairs])
    assert tags_of(labels).tolist() == [tag for tag, _ in pairs]
    assert words_of(labels).tolist() == [word for _, word in pairs]
    for label in labels.tolist():
        assert unread(label) < IGNORED
        assert unread(unread(label)) == label


contexts = st.lists(words.filter(lambda word: word.strip() != ""), min_size=1, max_size=12).map(
    " ".join
)


@given(
    st.lists(
        st.tuples(contexts, contexts, st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=3
    ),
    st.integers(8, 16),
    st.integers(0, 9),
    st.integers(1, 4),
)
@example([("the", "\x00dog \x00", 0.0, 1.0)], 8, 0, 1)
def test_windows_of_contexts_cover_them_and_spans_are_found_again(
    drawn: list[tuple[str, str, float, float]], max_length: int, overlap: int, question_length: int
) -> None:
    questions = [question for question, *_ in drawn]
    spans = []
    for _, context, first, last in drawn:
        start, end = sorted((int(first * len(context)), int(last * len(context))))
        spans.append(
            (start, end) if context[start:end].strip() == context[start:end] != "" else None
        )
    found = context_windows(
        questions, [context for _, context, *_ in drawn], spans, TOKENIZER,
        max_length=max_length, overlap=overlap, question_length=question_length,
    )  # fmt: skip
    assert sorted(set(found.examples)) == [*range(len(drawn))]
    covered: list[set[tuple[int, int]]] = [set() for _ in drawn]
    for ids, number, row in zip(
        found.inputs["input_ids"], found.examples, found.labels, strict=True
    ):
        assert len(ids) <= max_length
        answer, span, *characters = row.reshape(-1, 2).tolist()
        assert len(characters) == len(ids)
        inside = [(start, end) for start, end in characters if start >= 0]
        covered[number].update(inside)
        known = spans[number]
        assert span == list(known or (0, 0))
        context = drawn[number][1]
        of_answer = [] if known is None else tokens_of_span(context, known)
        if answer == [0, 0]:
            # With what no token is made of, it may reach over the edge of a window in the midst.
            is_whole = known is not None and inside[0][0] <= known[0] and known[1] <= inside[-1][1]
            alone = found.examples.count(number) == 1
            assert not of_answer or not (alone or (is_whole and {*of_answer} <= {*inside}))
            continue
        assert [tuple(one) for one in characters[answer[0] : answer[1] + 1]] == of_answer
    for (_, context, *_), seen in zip(drawn, covered, strict=True):
        assert seen == set(offsets_of(context))


def offsets_of(context: str) -> list[tuple[int, int]]:
    offsets: list[tuple[int, int]] = (
        TOKENIZER(context, add_special_tokens=False).encodings[0].offsets
    )
    return offsets


def tokens_of_span(context: str, span: tuple[int, int]) -> list[tuple[int, int]]:
    return [one for one in offsets_of(context) if one[1] > span[0] and one[0] < span[1]]
