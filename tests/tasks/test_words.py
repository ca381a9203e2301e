"""Words are tokenized as in running text, by tokenizers of every kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from typing_extensions import override

from multiprune.data.cache import encoding_key
from multiprune.data.source import HubSource
from multiprune.data.tokenizer import train_tokenizer
from multiprune.metrics import Accuracy
from multiprune.models.from_scratch import character_tokenizer
from multiprune.tasks.tagging import Tagging
from multiprune.tasks.words import needs_spaces, tokenize_words

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase

TEXT = "the pruned weights of pruned layers are few, and weights that stay don't change"
WORDS = [word.replace(",", "") for word in TEXT.split()]


def byte_level(folder: Path) -> PreTrainedTokenizerBase:
    """As RoBERTa's and ModernBERT's."""
    file = folder / "corpus.txt"
    file.write_text(f"{TEXT}\n" * 9)
    return train_tokenizer([file], kind="bpe", size=400)


def split_then_bytes(_: Path) -> PreTrainedTokenizerBase:
    """As GPT-4's and its kin: ``add_prefix_space`` would put a space before each of the parts."""
    tokenizer = Tokenizer(models.BPE())
    parts = pre_tokenizers.Split(Regex(r" ?\w+| ?[^\s\w]+|\s+"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [parts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    return _trained(tokenizer)


def metaspace(_: Path) -> PreTrainedTokenizerBase:
    """As that of XLM-R."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return _trained(tokenizer)


def wordpiece(_: Path) -> PreTrainedTokenizerBase:
    return character_tokenizer()


def _trained(tokenizer: Tokenizer) -> PreTrainedTokenizerBase:
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([TEXT] * 9, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("make", [byte_level, split_then_bytes, metaspace, wordpiece])
def test_words_have_the_tokens_of_running_text(
    make: Callable[[Path], PreTrainedTokenizerBase], tmp_path: Path
) -> None:
    tokenizer = make(tmp_path)
    text = " " + " ".join(WORDS)
    options: dict[str, Any] = {"add_special_tokens": False}
    running = tokenizer(text, **options)["input_ids"]
    encoding = tokenize_words([WORDS, WORDS[1:3]], tokenizer, **options)
    assert encoding["input_ids"][0] == running
    # Each word by itself, the first too.
    assert encoding["input_ids"][1] == tokenizer(" pruned weights", **options)["input_ids"]
    assert {*encoding.word_ids(0)} == {*range(len(WORDS))}
    assert tokenizer(text, **options)["input_ids"] == running  # as before


def test_words_without_spaces_would_be_cut_otherwise(tmp_path: Path) -> None:
    tokenizer = byte_level(tmp_path)
    bare = tokenizer([["pruned", "weights"]], is_split_into_words=True)["input_ids"]
    assert tokenize_words([["pruned", "weights"]], tokenizer)["input_ids"] != bare
    assert needs_spaces(tokenizer)


def test_white_space_stays_what_it_is(tmp_path: Path) -> None:
    tokenizer = byte_level(tmp_path)
    found, expected = (
        tokenize_words([words], tokenizer)["input_ids"]
        for words in (["the", "", " pruned", "layers"], ["the", "pruned", "layers"])
    )
    assert found == expected


class Earlier(Tagging):
    """Tagging when words were encoded without spaces, and not in windows."""

    @property
    @override
    def cache_key(self) -> Mapping[str, Any]:
        return {key: value for key, value in super().cache_key.items() if key != "overlap"}


def test_rows_that_were_encoded_otherwise_are_not_used_again(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {
        "text": ["words"],
        "label": "tags",
        "labels": ["a", "b"],
        "metrics": {"accuracy": Accuracy()},
        "source": HubSource(path=None, mirror="nowhere"),
    }
    tokenizer = byte_level(tmp_path)
    tasks = [Earlier(**arguments), Tagging(**arguments), Tagging(**arguments, overlap=None)]
    assert len({encoding_key(task, "rows", tokenizer, 32) for task in tasks}) == 3
