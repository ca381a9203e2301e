"""Train a tokenizer: WordPiece as BERT's, or byte-level BPE as RoBERTa's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
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

from multiprune.arguments import check_number
from multiprune.data.text_source import lines_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase

# Characters of a WordPiece vocabulary; words with others are unknown.
_CHARACTERS = 1000


#: Gives the texts of all files, anew at each call.
Texts = Callable[[], Iterable[str]]


@dataclass(frozen=True)
class _Kind:
    """How a tokenizer is learned, what its special tokens are called, and what encoders read."""

    learn: Callable[[Texts, int, bool], Tokenizer]
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
    check_number("size", size, at_least=1, whole=True)
    check_number("max_length", max_length, at_least=1, whole=True)
    chosen = _KINDS[kind]

    def texts() -> Iterable[str]:
        return chain.from_iterable(map(texts_of, files))

    if not any(map(str.strip, texts())):
        raise ValueError(f"No texts to train a tokenizer on in {', '.join(map(str, files))}.")
    tokenizer = chosen.learn(texts, size, lowercase)
    if (found := tokenizer.get_vocab_size()) > size:
        raise ValueError(
            f"`size` must leave room for special tokens and for each character, {found:,} in all, "
            f"but is {size:,}."
        )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
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
        raise FileNotFoundError(f"The file {file} does not exist.")
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


def _named(kind: _Kind) -> dict[str, str | AddedToken]:
    named: dict[str, str | AddedToken] = dict(kind.special)
    if kind.special["mask_token"] == "<mask>":
        # It takes the space before it along, as words do.
        named["mask_token"] = AddedToken("<mask>", lstrip=True, special=True)
    return named


def _wordpiece(vocabulary: Mapping[str, int], lowercase: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(dict(vocabulary), unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _learned_wordpiece(texts: Texts, size: int, lowercase: bool) -> Tokenizer:
    bare = _wordpiece({}, lowercase)
    counts = Counter(chain.from_iterable(map(bare.normalizer.normalize_str, texts())))
    ranked = sorted(counts, key=lambda one: (-counts[one], one))
    alphabet = [one for one in ranked if not one.isspace()][:_CHARACTERS]

    def learned(special: Sequence[str], size: int) -> dict[str, int]:
        trainer = trainers.WordPieceTrainer(
            vocab_size=size,
            special_tokens=list(special),
            initial_alphabet=alphabet,
            limit_alphabet=len(alphabet),
            show_progress=False,
        )
        learner = _wordpiece({}, lowercase)
        learner.train_from_iterator(texts(), trainer)
        return dict(learner.get_vocab())

    # The library numbers what continues words in the order of a hash table, another each time, and
    # decides between equally frequent pairs by number. Tokens that are named have their place.
    continuing = sorted(one for one in learned([], 0) if one.startswith("##") and len(one) == 3)
    vocabulary = learned([*_BERT.values(), *continuing], size)
    tokenizer = _wordpiece(vocabulary, lowercase)
    tokenizer.add_special_tokens(list(_BERT.values()))
    first, last = vocabulary["[CLS]"], vocabulary["[SEP]"]
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", last), ("[CLS]", first))
    return tokenizer


def _learned_bpe(texts: Texts, size: int, lowercase: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    if lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(dict.fromkeys(_ROBERTA.values())),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    vocabulary = tokenizer.get_vocab()
    first, last = vocabulary["<s>"], vocabulary["</s>"]
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", last), ("<s>", first), add_prefix_space=False
    )
    return tokenizer


_BERT = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
# In the order of RoBERTa's vocabulary, whose positions begin behind the number of padding, 1.
_ROBERTA = {
    "bos_token": "<s>",
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
    "cls_token": "<s>",
    "sep_token": "</s>",
}
_KINDS: Mapping[str, _Kind] = {
    "wordpiece": _Kind(
        _learned_wordpiece, _BERT, ("input_ids", "token_type_ids", "attention_mask")
    ),
    "bpe": _Kind(_learned_bpe, _ROBERTA, ("input_ids", "attention_mask")),
}

KINDS = tuple(_KINDS)
