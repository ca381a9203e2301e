"""Tokenizers of every kind, trained on four sentences, for the tests of what prunes them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import (
    AlbertTokenizer,
    BertTokenizer,
    DebertaV2Tokenizer,
    MPNetTokenizer,
    PreTrainedTokenizerFast,
    RobertaTokenizer,
    XLMRobertaTokenizer,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

TRAINING = [
    "the quick brown fox jumps over the lazy dogs, and the quicker dog jumped back",
    "a lower price is the lowest price; newer and newest, wider and widest widow",
    "jumping foxes were quick to overtake the brownest of all lazier dogs",
    "Ünïcode is naïve: 日本 and déjà vu",
]
ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def by_id(tokenizer: Any) -> list[str]:
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    return sorted(vocabulary, key=vocabulary.__getitem__)


def model_of(tokenizer: Any) -> dict[str, Any]:
    model: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    return model


def numbered(tokens: Sequence[str]) -> dict[str, int]:
    return {token: index for index, token in enumerate(tokens)}


def wrapped(backend: Tokenizer, **special: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)  # type: ignore[no-untyped-call]


def bert_of(pieces: list[str], **options: Any) -> BertTokenizer:
    return BertTokenizer(vocab=numbered([*BERT, *pieces]), **options)


def trained_pieces() -> list[str]:
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=300, show_progress=False)
    backend.train_from_iterator([text.lower() for text in TRAINING], trainer)
    return by_id(backend)


def trained_pairs() -> tuple[list[str], list[tuple[str, str]]]:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        TRAINING,
        trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False),
    )
    merges = json.loads(backend.to_str())["model"]["merges"]
    return by_id(backend), [cast("tuple[str, str]", tuple(pair)) for pair in merges]


def trained_scores() -> list[tuple[str, float]]:
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=200, show_progress=False)
    backend.train_from_iterator(TRAINING, trainer)
    learned = json.loads(backend.to_str())["model"]["vocab"]
    return [(token, score) for token, score in learned]


def _with_ends(backend: Tokenizer, processor: Any) -> PreTrainedTokenizerFast:
    backend.post_processor = processor
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    return wrapped(backend, **dict(zip(names, BERT, strict=True)))


def modernbert_tokenizer() -> PreTrainedTokenizerFast:
    tokens, merges = trained_pairs()
    # As in ModernBERT, special tokens come last.
    backend = Tokenizer(models.BPE(numbered([*tokens, *BERT]), merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    ends = [(token, backend.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    template = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    return _with_ends(backend, processors.Sequence([template, processors.ByteLevel()]))


def word_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = numbered([*BERT, *dict.fromkeys(" ".join(TRAINING).split())])
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = [(token, vocabulary[token]) for token in ("[SEP]", "[CLS]")]
    return _with_ends(backend, processors.BertProcessing(ends[0], ends[1]))


def word_pieces(special: list[str]) -> dict[str, int]:
    return numbered([*special[:2], "[unused0]", *special[2:], *trained_pieces()])


def roberta_tokenizer(*, padding_at: int = 1) -> RobertaTokenizer:
    tokens, merges = trained_pairs()
    order = [*ROBERTA[:1], *ROBERTA[2:4], *tokens, ROBERTA[4]]
    order.insert(padding_at, "<pad>")
    return RobertaTokenizer(vocab=cast("Any", numbered(order)), merges=cast("Any", merges))


def scored(special: list[str]) -> list[tuple[str, float]]:
    first, last = special[:4], special[4]
    return [*((token, 0.0) for token in first), *trained_scores(), (last, 0.0)]


# A tokenizer costs a training, and nothing that is tested may change it.
TOKENIZERS: dict[str, Any] = {
    "bert": BertTokenizer(vocab=word_pieces(BERT)),
    "mpnet": MPNetTokenizer(vocab=word_pieces([*ROBERTA[:3], "[UNK]", "<mask>"])),
    "roberta": roberta_tokenizer(),
    "modernbert": modernbert_tokenizer(),
    "xlm-roberta": XLMRobertaTokenizer(vocab=scored(ROBERTA)),
    "deberta-v3": DebertaV2Tokenizer(vocab=scored(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"])),
    "albert": AlbertTokenizer(vocab=scored(["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"])),
    "words": word_tokenizer(),
}
