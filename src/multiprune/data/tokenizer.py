"""A tokenizer made from texts: WordPiece as BERT's, or byte-level BPE as RoBERTa's."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from multiprune.data.text_source import lines_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase

# Characters of a WordPiece vocabulary; words with others are unknown.
_CHARACTERS = 1000


@dataclass(frozen=True)
class _Kind:
    """How texts are split before there is a vocabulary, and what the special tokens are called.

    ``inputs`` is what encoders of this kind read.
    """

    bare: Callable[[bool], Tokenizer]
    finish: Callable[[Tokenizer], None]
    special: Mapping[str, str]
    inputs: Sequence[str]


def train_tokenizer(
    files: Sequence[Path],
    *,
    kind: str,
    size: int,
    lowercase: bool = False,
    max_length: int = 512,
) -> PreTrainedTokenizerBase:
    """Return a tokenizer of at most ``size`` tokens, made from the texts of some files.

    The same texts give the same tokenizer. ``max_length`` is what encoders may read of a text.

    Args:
        files: of lines of text, or parquet files with a column ``text``.
        kind: ``wordpiece`` or ``bpe``.
        size: of the vocabulary, with special tokens; there are fewer if texts repeat little.
        lowercase: make no difference between small and capital letters.
        max_length: in tokens.

    Raises:
        FileNotFoundError: if a file does not exist.
        ValueError: if a file cannot be read, there is no text in it, or characters take more
            tokens than ``size``.
    """
    from transformers import PreTrainedTokenizerFast

    if kind not in _KINDS:
        raise ValueError(f"`kind` must be one of {', '.join(_KINDS)}, but is {kind!r}.")
    chosen = _KINDS[kind]
    tokenizer = chosen.bare(lowercase)
    special = list(dict.fromkeys(chosen.special.values()))
    trainer = _trainer(tokenizer, kind, size, special, files)
    tokenizer.train_from_iterator(chain.from_iterable(map(texts_of, files)), trainer)
    if (found := tokenizer.get_vocab_size()) > size:
        raise ValueError(
            f"`size` must leave room for special tokens and for each character, {found:,} in all, "
            f"but is {size:,}."
        )
    chosen.finish(tokenizer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        model_input_names=list(chosen.inputs),
        **_named(chosen),
    )


def texts_of(file: Path) -> Iterator[str]:
    """Yield the texts of a file, line by line, or of the column ``text`` of a parquet file.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it cannot be read, or has no such column.
    """
    import pyarrow.parquet

    if not file.is_file():
        raise FileNotFoundError(f"A tokenizer is made from files, but {file} does not exist.")
    if file.suffix != ".parquet":
        yield from lines_of(file)
        return
    try:
        # A part at a time, so that files may be larger than memory.
        with pyarrow.parquet.ParquetFile(file) as table:
            for part in table.iter_batches(columns=["text"]):
                yield from filter(None, part.column("text").to_pylist())
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"{file} must be a parquet file with a column 'text', but is not: {error}"
        ) from error


def _trainer(
    tokenizer: Tokenizer, kind: str, size: int, special: Sequence[str], files: Sequence[Path]
) -> trainers.Trainer:
    counts: Counter[str] = Counter()
    for text in chain.from_iterable(map(texts_of, files)):
        counts.update(tokenizer.normalizer.normalize_str(text) if tokenizer.normalizer else text)
    if not any(not character.isspace() for character in counts):
        raise ValueError(
            f"A tokenizer is made from texts, but there are none in {', '.join(map(str, files))}."
        )
    options = {"vocab_size": size, "special_tokens": list(special), "show_progress": False}
    if kind == "bpe":
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        return trainers.BpeTrainer(initial_alphabet=alphabet, **options)
    # The library's own choice among equally frequent characters is another each time.
    ranked = sorted(counts, key=lambda one: (-counts[one], one))
    alphabet = [one for one in ranked if not one.isspace()][:_CHARACTERS]
    return trainers.WordPieceTrainer(
        initial_alphabet=alphabet, limit_alphabet=len(alphabet), **options
    )


def _named(kind: _Kind) -> dict[str, str | AddedToken]:
    named: dict[str, str | AddedToken] = dict(kind.special)
    if kind.special["mask_token"] == "<mask>":
        # It takes the space before it along, as words do.
        named["mask_token"] = AddedToken("<mask>", lstrip=True, special=True)
    return named


def _wordpiece(lowercase: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _finish_wordpiece(tokenizer: Tokenizer) -> None:
    first, last = (tokenizer.token_to_id(one) for one in ("[CLS]", "[SEP]"))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", last), ("[CLS]", first))


def _bpe(lowercase: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    if lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _finish_bpe(tokenizer: Tokenizer) -> None:
    first, last = (tokenizer.token_to_id(one) for one in ("<s>", "</s>"))
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", last), ("<s>", first), add_prefix_space=False
    )


_KINDS: Mapping[str, _Kind] = {
    "wordpiece": _Kind(
        _wordpiece,
        _finish_wordpiece,
        {
            "pad_token": "[PAD]",
            "unk_token": "[UNK]",
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "mask_token": "[MASK]",
        },
        ("input_ids", "token_type_ids", "attention_mask"),
    ),
    # In the order of RoBERTa's vocabulary, whose positions begin behind the number of padding, 1.
    "bpe": _Kind(
        _bpe,
        _finish_bpe,
        {
            "bos_token": "<s>",
            "pad_token": "<pad>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "mask_token": "<mask>",
            "cls_token": "<s>",
            "sep_token": "</s>",
        },
        ("input_ids", "attention_mask"),
    ),
}

KINDS = tuple(_KINDS)
