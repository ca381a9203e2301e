"""Texts in blocks, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from multiprune.models.from_scratch import character_tokenizer
from multiprune.tasks import packing
from multiprune.tasks.packing import (
    Block,
    Frame,
    Packing,
    TokenizedText,
    across_texts,
    beside_texts,
    frame_of,
    tokenized,
    within_texts,
)
from multiprune.tasks.rows import IGNORED

TOKENIZER = character_tokenizer()
X = IGNORED
FRAME = Frame([1], [2], 2)


def text(tokens: list[int], words: list[int]) -> TokenizedText:
    return TokenizedText(np.array(tokens, np.int32), np.array(words, np.int32))


#: Words of one, two and two tokens; of one; and of three.
TEXTS = [
    text([10, 11, 12, 13, 14], [0, 1, 1, 3, 3]),
    text([20], [0]),
    text([30, 31, 32], [0, 0, 0]),
]


def shown(blocks: list[Block]) -> list[tuple[list[int], list[int]]]:
    return [(one.text.tokens.tolist(), one.text.words.tolist()) for one in blocks]


def test_blocks_across_texts_are_full_and_cut_anywhere() -> None:
    # Behind each other: 10 11 12 13 | 14 s 20 s | 30 31 32.
    assert shown(list(across_texts(TEXTS, FRAME, 6))) == [
        ([1, 10, 11, 12, 13, 2], [X, 1, 2, 2, 4, X]),
        ([1, 14, 2, 20, 2, 2], [X, 1, X, 3, X, X]),
        ([1, 30, 31, 32, 2], [X, 1, 1, 1, X]),
    ]


def test_blocks_within_texts_never_hold_two() -> None:
    assert shown(list(within_texts(TEXTS, FRAME, 6))) == [
        ([1, 10, 11, 12, 13, 2], [X, 1, 2, 2, 4, X]),
        ([1, 14, 2], [X, 1, X]),
        ([1, 20, 2], [X, 1, X]),
        ([1, 30, 31, 32, 2], [X, 1, 1, 1, X]),
    ]


def test_texts_beside_each_other_have_frames_and_positions_of_their_own() -> None:
    blocks = list(beside_texts(TEXTS, FRAME, 7))
    assert shown(blocks) == [
        ([1, 10, 11, 12, 13, 14, 2], [X, 1, 2, 2, 4, 4, X]),
        ([1, 20, 2], [X, 1, X]),
        ([1, 30, 31, 32, 2], [X, 1, 1, 1, X]),
    ]
    blocks = list(beside_texts(TEXTS, FRAME, 8))
    assert shown(blocks)[1] == ([1, 20, 2, 1, 30, 31, 32, 2], [X, 1, X, X, 4, 4, 4, X])
    assert blocks[1].positions is not None
    assert blocks[1].positions.tolist() == [0, 1, 2, 0, 1, 2, 3, 4]


@pytest.mark.parametrize("way", [across_texts, within_texts, beside_texts])
def test_nothing_is_lost(way: Packing) -> None:
    generator = np.random.default_rng(0)
    texts = [
        text(generator.integers(5, 99, size).tolist(), list(range(size)))
        for size in generator.integers(1, 40, 30)
    ]
    blocks = list(way(iter(texts), FRAME, 16))
    found = np.concatenate([one.text.tokens[one.text.words != IGNORED] for one in blocks])
    assert found.tolist() == [token for one in texts for token in one.tokens]
    assert max(len(one.text) for one in blocks) == 16


def test_words_are_those_of_the_tokenizer_and_special_ones_are_none() -> None:
    # Of unknown words, each character is a token; [SEP] in a text is the special token.
    (found,) = tokenized(["the xyz [SEP] dog \x00"], TOKENIZER)
    assert TOKENIZER.convert_ids_to_tokens(found.tokens.tolist()) == [
        "the", "x", "##y", "##z", "[SEP]", "dog",
    ]  # fmt: skip
    assert found.words.tolist() == [0, 1, 1, 1, X, 5]


def test_texts_are_tokenized_a_few_at_a_time_however_long_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts = ["dog " * 9, "cat", "the " * 4, *["red"] * 5, "a"]
    expected = [TOKENIZER(one, add_special_tokens=False)["input_ids"] for one in texts]
    monkeypatch.setattr(packing, "_TEXTS", 4)
    monkeypatch.setattr(packing, "_CHARACTERS", 16)
    assert [one.tokens.tolist() for one in tokenized(texts, TOKENIZER)] == expected
    assert [*map(len, packing._batches(texts))] == [1, 1, 1, 4, 2]


def test_lines_without_text_are_left_out() -> None:
    assert [len(one) for one in tokenized(["dog", "", " \t", "the dog"], TOKENIZER)] == [1, 2]


def test_a_frame_is_what_the_tokenizer_puts_around_a_text() -> None:
    assert frame_of(TOKENIZER, 3) == Frame([2], [3], 3)
    with pytest.raises(ValueError, match=r"`data\.max_length` .* is 2\.$"):
        frame_of(TOKENIZER, 2)
