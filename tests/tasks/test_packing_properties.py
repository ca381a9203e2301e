"""Blocks of any texts: no token is lost, and each stays with its word."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiprune.tasks.packing import (
    Block,
    Frame,
    Packing,
    TokenizedText,
    across_texts,
    beside_texts,
    within_texts,
)
from multiprune.tasks.rows import IGNORED

#: Tokens of texts, each with the number of its word; None marks a special token.
token_lists = st.lists(
    st.lists(st.integers(1, 4) | st.none(), min_size=1, max_size=6), min_size=1, max_size=5
)


def tokenized(parts: list[int | None], first: int) -> TokenizedText:
    """Make a text of words of so many tokens, numbered from ``first``."""
    starts: list[int] = []
    for part in parts:
        starts += [IGNORED] if part is None else [len(starts)] * part
    tokens = np.arange(first, first + len(starts), dtype=np.int32)
    return TokenizedText(tokens, np.array(starts, np.int32))


@pytest.mark.parametrize("way", [across_texts, within_texts, beside_texts])
@given(parts=token_lists, frame=st.sampled_from([([1], [2], 2), ([], [2], None), ([1, 3], [], 2)]),
       room=st.integers(1, 8))  # fmt: skip
def test_blocks_hold_every_token_once_in_order_with_its_word(
    way: Packing, parts: list[list[int | None]], frame: tuple[list[int], list[int], int | None],
    room: int,
) -> None:  # fmt: skip
    around = Frame(*frame)
    given_texts = [tokenized(own, 100 * (number + 1)) for number, own in enumerate(parts)]
    text_of = {token: n for n, one in enumerate(given_texts) for token in one.tokens.tolist()}
    blocks: list[Block] = [*way(given_texts, around, room + len(around))]
    seen: list[int] = []
    for block in blocks:
        tokens, begins = block.text.tokens.tolist(), block.text.words.tolist()
        assert len(tokens) == len(begins) <= room + len(around)
        seen += [token for token in tokens if token >= 100]
        for place, (token, begin) in enumerate(zip(tokens, begins, strict=True)):
            if token < 100:
                assert begin == IGNORED
                continue
            number = text_of[token]
            source = given_texts[number]
            at = token - 100 * (number + 1)
            if source.words[at] == IGNORED:
                assert begin == IGNORED
                continue
            # Where its word begins, or, of a word that was cut, the first token of it in the block.
            start = 100 * (number + 1) + int(source.words[at])
            expected = min(p for p, other in enumerate(tokens) if start <= other <= token)
            assert begin == expected <= place
        if way is not across_texts:
            first = [text_of[token] for token in tokens if token >= 100]
            assert way is beside_texts or len(set(first)) == 1
        if block.positions is not None:
            assert way is beside_texts
            assert block.positions.tolist()[: len(around.before)] == [*range(len(around.before))]
            drops = np.flatnonzero(np.diff(block.positions) != 1)
            assert (block.positions[drops + 1] == 0).all()
    assert seen == [token for one in given_texts for token in one.tokens.tolist()]
    if way is across_texts:
        assert all(len(block.text) == room + len(around) for block in blocks[:-1])
