"""Pack texts into blocks of a maximum length.

A text is a pair of arrays: its tokens, and for each of them where in the text its word begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from multiprune.tasks.rows import IGNORED

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Numbers = NDArray[np.int32]

# So many blocks are Python objects at a time, and so many tokens are cut to blocks.
_BLOCKS, _TOKENS = 1000, 1 << 16

# So many texts, or texts of so many characters, are tokenized at a time: what the tokenizer says of
# a text takes a hundred times its space.
_TEXTS, _CHARACTERS = 1000, 1 << 20


@dataclass(frozen=True)
class TokenizedText:
    """Tokens, and for each of them where in the text its word begins; ``IGNORED`` if special."""

    tokens: Numbers
    words: Numbers

    def __len__(self) -> int:
        """Return the number of tokens."""
        return len(self.tokens)

    def part(self, first: int, length: int) -> TokenizedText:
        """Return some tokens; what is left of a word that is cut is a word."""
        words = self.words[first : first + length]
        words = np.where(words == IGNORED, IGNORED, np.maximum(words - first, 0))
        return TokenizedText(self.tokens[first : first + length], words.astype(np.int32))


@dataclass(frozen=True)
class Frame:
    """The special tokens before and behind what an encoder reads, and the one between texts."""

    before: Sequence[int]
    behind: Sequence[int]
    between: int | None

    def __len__(self) -> int:
        """Return the number of tokens around a block."""
        return len(self.before) + len(self.behind)

    def around(self, text: TokenizedText) -> TokenizedText:
        """Put the frame around some tokens."""
        before, behind = _special(self.before), _special(self.behind)
        words = np.where(text.words == IGNORED, IGNORED, text.words + len(before))
        return TokenizedText(
            np.concatenate([before.tokens, text.tokens, behind.tokens]),
            np.concatenate([before.words, words.astype(np.int32), behind.words]),
        )


@dataclass(frozen=True)
class Block:
    """What is one example: tokens with their frame, and where each stands in its text.

    ``positions`` is None where tokens stand in the block as they do in the text that is read.
    """

    text: TokenizedText
    positions: Numbers | None = None


#: Takes texts, the frame, and the most tokens of a block.
Packing = Callable[[Iterable[TokenizedText], Frame, int], Iterator[Block]]


def across_texts(texts: Iterable[TokenizedText], frame: Frame, length: int) -> Iterator[Block]:
    """Fill blocks with one text behind another, whatever texts they begin and end in.

    The ``FULL-SENTENCES`` of Liu et al. (2019), section 4.2: a separator is put between texts, and
    tokens attend to all of their block. The last block is as long as what is left.
    """
    between = _special([] if frame.between is None else [frame.between])
    room = length - len(frame)
    parts: list[TokenizedText] = []
    size = 0
    for text in texts:
        more = [between, text] if parts else [text]
        parts += more
        size += sum(map(len, more))
        if size >= max(_TOKENS, room):
            whole, full = _behind_each_other(parts), size // room * room
            for block in _pieces(whole.part(0, full), room):
                yield Block(frame.around(block))
            parts, size = [whole.part(full, room)], size - full
    if parts:
        for block in _pieces(_behind_each_other(parts), room):
            yield Block(frame.around(block))


def _behind_each_other(parts: Sequence[TokenizedText]) -> TokenizedText:
    starts = np.cumsum([0, *map(len, parts)], dtype=np.int64)[:-1]
    words = [
        np.where(one.words == IGNORED, IGNORED, one.words + start)
        for one, start in zip(parts, starts, strict=True)
    ]
    return TokenizedText(
        np.concatenate([one.tokens for one in parts]), np.concatenate(words).astype(np.int64)
    )


def within_texts(texts: Iterable[TokenizedText], frame: Frame, length: int) -> Iterator[Block]:
    """Give each text blocks of its own: long ones are cut, short ones stand alone."""
    for text in texts:
        for piece in _pieces(text, length - len(frame)):
            yield Block(frame.around(piece))


def beside_texts(texts: Iterable[TokenizedText], frame: Frame, length: int) -> Iterator[Block]:
    """Put texts beside each other in blocks, each with a frame and positions of its own.

    The encoder is told by the positions that tokens attend to none of another text. Texts keep
    their order; one begins a new block if it does not fit.
    """
    waiting: list[TokenizedText] = []
    for text in texts:
        for piece in _pieces(text, length - len(frame)):
            framed = frame.around(piece)
            if waiting and sum(map(len, waiting)) + len(framed) > length:
                yield _beside(waiting)
                waiting = []
            waiting.append(framed)
    if waiting:
        yield _beside(waiting)


def frame_of(tokenizer: PreTrainedTokenizerBase, max_length: int) -> Frame:
    """Return what a tokenizer puts around a text.

    Raises:
        ValueError: if that leaves no room for a text.
    """
    encoding = tokenizer("a", return_special_tokens_mask=True)
    special, tokens = encoding["special_tokens_mask"], encoding["input_ids"]
    first = special.index(0) if 0 in special else len(special)
    last = len(special) - (special[::-1].index(0) if 0 in special else 0)
    if max_length <= first + len(special) - last:
        raise ValueError(
            "`data.max_length` must leave room for a text between special tokens, but is "
            f"{max_length}."
        )
    return Frame(tokens[:first], tokens[last:], tokenizer.sep_token_id)


def check_knows_words(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise a ValueError if a tokenizer does not say where the words of a text begin."""
    encoding = tokenizer("a b c", add_special_tokens=False).encodings
    if encoding is None or len({*encoding[0].word_ids}) < min(2, len(encoding[0].ids)):
        raise ValueError(
            "`whole_words` needs a tokenizer that splits words, but a "
            f"{type(tokenizer).__name__} does not."
        )


def tokenized(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> Iterator[TokenizedText]:
    """Split texts into tokens, without special ones around them; leave out those without any."""
    special = np.array(tokenizer.all_special_ids, np.int32)
    for some in _batches(texts):
        encoding = tokenizer(some, add_special_tokens=False, truncation=False, verbose=False)
        for one in encoding.encodings or []:
            tokens = np.array(one.ids, np.int32)
            if not len(tokens):
                continue
            numbers = np.array([-1 if word is None else word for word in one.word_ids])
            begins = np.diff(numbers, prepend=-2) != 0
            places = np.arange(len(tokens), dtype=np.int32)
            words = np.maximum.accumulate(np.where(begins, places, 0))
            words[np.isin(tokens, special)] = IGNORED
            yield TokenizedText(tokens, words.astype(np.int32))


def packed(
    texts: Iterable[str], packing: Packing, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> tuple[dict[str, list[Any]], int]:
    """Return the columns of the blocks of texts, and how many texts have tokens.

    There are none, and no blocks, where no token is one that could be predicted.
    """
    columns: dict[str, list[Any]] = {"input_ids": [], "labels": []}
    count = 0
    for part, count in packed_parts(texts, packing, tokenizer, max_length):  # noqa: B007
        for name, values in part.items():
            columns.setdefault(name, []).extend(values)
    return columns, count


def packed_parts(
    texts: Iterable[str], packing: Packing, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> Iterator[tuple[dict[str, list[Any]], int]]:
    """Yield the columns of some blocks at a time, and how many texts had tokens so far."""
    count = 0

    def counted() -> Iterator[TokenizedText]:
        nonlocal count
        for text in _if_words(tokenized(texts, tokenizer)):
            count += 1
            yield text

    blocks = iter(packing(counted(), frame_of(tokenizer, max_length), max_length))
    while part := [*islice(blocks, _BLOCKS)]:
        columns: dict[str, list[Any]] = {
            "input_ids": [one.text.tokens for one in part],
            "labels": [one.text.words for one in part],
        }
        if part[0].positions is not None:
            columns["position_ids"] = [one.positions for one in part]
        yield columns, count


def _if_words(texts: Iterator[TokenizedText]) -> Iterator[TokenizedText]:
    """Yield texts, unless all tokens of all of them are special."""
    waiting = []
    for text in texts:
        waiting.append(text)
        if not (text.words == IGNORED).all():
            break
    else:
        return
    yield from waiting
    yield from texts


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for text in texts:
        if batch and (len(batch) == _TEXTS or characters + len(text) > _CHARACTERS):
            yield batch
            batch, characters = [], 0
        batch.append(text)
        characters += len(text)
    if batch:
        yield batch


def _special(tokens: Sequence[int]) -> TokenizedText:
    return TokenizedText(np.array(tokens, np.int32), np.full(len(tokens), IGNORED, np.int32))


def _pieces(text: TokenizedText, length: int) -> Iterator[TokenizedText]:
    for first in range(0, len(text), length):
        yield text.part(first, length)


def _beside(texts: Sequence[TokenizedText]) -> Block:
    starts = np.cumsum([0, *map(len, texts)])
    words = [
        np.where(one.words == IGNORED, IGNORED, one.words + start)
        for one, start in zip(texts, starts, strict=False)
    ]
    return Block(
        TokenizedText(
            np.concatenate([one.tokens for one in texts]), np.concatenate(words).astype(np.int32)
        ),
        np.concatenate([np.arange(len(one), dtype=np.int32) for one in texts]),
    )
