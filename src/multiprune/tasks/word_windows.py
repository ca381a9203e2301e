"""Overlapping windows of long word sequences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from multiprune.tasks.words import tokenize_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

#: In place of the number of a word, where a token answers for none.
NO_WORD = -1


@dataclass(frozen=True)
class WordWindows:
    """What an encoder reads of some documents.

    Attributes:
        inputs: of the encoder, a list a window.
        examples: which document a window is of; those of one stand together, in order.
        words: for each token of each window, the number of the word that it answers for; each word
            that has tokens is answered by one of them.
        cut: how many documents were cut.
    """

    inputs: dict[str, list[Any]]
    examples: list[int]
    words: list[list[int]]
    cut: int


def word_windows(
    documents: Sequence[Sequence[str]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    overlap: int | None,
) -> WordWindows:
    """Tokenize documents, each in as many windows as it takes.

    Neighbouring windows share ``overlap`` tokens, at most half of a window; without a number, a
    document is cut behind its first window. A word is answered by its first token, in the window
    where that is farthest from an edge.
    """
    options: dict[str, Any] = {}
    if overlap is not None:
        room = max_length - tokenizer.num_special_tokens_to_add(pair=False)
        options = {"stride": min(overlap, room // 2), "return_overflowing_tokens": True}
    encoding = tokenize_words(
        documents,
        tokenizer,
        truncation=True,
        max_length=max_length,
        return_attention_mask=False,
        **options,
    )
    windows = encoding.encodings or []
    examples = [*map(int, encoding.pop("overflow_to_sample_mapping", range(len(windows))))]
    words = _answered([one.word_ids for one in windows], examples)
    cut = 0 if options else sum(bool(one.overflowing) for one in windows)
    inputs = {name: list(values) for name, values in encoding.items()}
    return WordWindows(inputs, examples, words, cut)


def _answered(word_ids: Sequence[Sequence[int | None]], examples: Sequence[int]) -> list[list[int]]:
    """Choose the tokens that answer, by the words that tokens of windows are of."""
    chosen = [[NO_WORD] * len(ids) for ids in word_ids]
    best: dict[tuple[int, int], tuple[int, int, int]] = {}
    for window, (example, ids) in enumerate(zip(examples, word_ids, strict=True)):
        inside = [(place, word) for place, word in enumerate(ids) if word is not None]
        firsts = {(example, word): number for number, (_, word) in reversed([*enumerate(inside)])}
        for key, number in firsts.items():
            # It is 0 of the rest of a word that began in the window before, which is known then.
            distance = min(number, len(inside) - 1 - number)
            known = best.get(key)
            if known is None or distance > known[0]:
                best[key] = (distance, window, inside[number][0])
    for (_, word), (_, window, place) in best.items():
        chosen[window][place] = word
    return chosen
