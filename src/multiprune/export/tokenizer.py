"""Reduce the vocabulary of a fast tokenizer."""

from __future__ import annotations

import copy
import json
from itertools import islice
from typing import TYPE_CHECKING, Any

from multiprune.export.subwords import MODELS, Unigram
from multiprune.tasks.words import needs_spaces, spaced

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from tokenizers import Encoding, Tokenizer
    from transformers import PreTrainedTokenizerBase

_BATCH = 1024


class FastTokenizer:
    """What ``tokenizer`` does, as data: ``definition`` is the JSON of its backend.

    Raises:
        TypeError: if the tokenizer has no fast backend.
        ValueError: if the kind of its model is not known.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise TypeError(
                "A fast tokenizer (of the `tokenizers` library) is required, but this is a "
                f"{type(tokenizer).__name__}."
            )
        self.tokenizer = tokenizer
        self.backend: Tokenizer = tokenizer.backend_tokenizer
        self.definition: dict[str, Any] = json.loads(self.backend.to_str())
        kind = self.definition["model"]["type"]
        if kind not in MODELS:
            raise ValueError(f"The tokenizer must be one of {', '.join(MODELS)}, but is a {kind}.")
        self.model = MODELS[kind](self.definition["model"])

    @property
    def ids(self) -> set[int]:
        """The ids of all tokens, those that were added among them."""
        return set(self.backend.get_vocab(with_added_tokens=True).values())

    @property
    def special_ids(self) -> set[int]:
        """The ids of the tokens that have a part besides that of standing for text.

        Added tokens are among them, for they are cut out of a text before the model sees it.
        """
        special = set(self.tokenizer.all_special_ids)
        special.update(token["id"] for token in self.definition["added_tokens"])
        if self.model.unknown is not None:
            special.add(self.model.unknown)
        for ids in _ids_of_processor(self.definition["post_processor"]):
            special.update(number for number in ids if isinstance(number, int))
        return special

    def used_ids(self, texts: Iterable[str | Sequence[str]]) -> set[int]:
        """Return the ids of the tokens that ``texts`` (or lists of words) are split into, uncut.

        Of a word that WordPiece does not know, those count that were found before its unknown rest.

        Raises:
            ValueError: if there are no texts.
            TypeError: if ``texts`` is a single string.
        """
        if isinstance(texts, str):
            raise TypeError("`texts` must be an iterable of texts, but is a single string.")
        if needs_spaces(self.tokenizer):
            texts = (one if isinstance(one, str) else list(map(spaced, one)) for one in texts)
        backend = self._rebuild(self.definition)
        backend.no_truncation()
        backend.no_padding()
        used: set[int] = set()
        empty = True
        for text, encoding in _encodings(backend, texts):
            empty = False
            used.update(encoding.ids)
            if self.model.unknown in encoding.ids:
                for word in self._unknown_words(text, encoding):
                    used |= self.model.found_in(word)
        if empty:
            raise ValueError("`texts` is empty.")
        return used

    def restrict(self, numbers: Mapping[int, int]) -> PreTrainedTokenizerBase:
        """Return a tokenizer of the tokens whose ids are keys of ``numbers``, renumbered."""
        definition: dict[str, Any] = copy.deepcopy({**self.definition, "model": None})
        definition["model"] = self.model.restrict(numbers)
        for token in definition["added_tokens"]:
            token["id"] = numbers[token["id"]]
        if definition["padding"] is not None:
            definition["padding"]["pad_id"] = numbers[definition["padding"]["pad_id"]]
        for ids in _ids_of_processor(definition["post_processor"]):
            ids[:] = [numbers[one] if isinstance(one, int) else one for one in ids]
        restricted = copy.deepcopy(self.tokenizer)
        restricted._tokenizer = self._rebuild(definition)
        return restricted

    def _rebuild(self, definition: Mapping[str, Any]) -> Tokenizer:
        rebuilt = type(self.backend).from_str(json.dumps(definition))
        rebuilt.encode_special_tokens = self.backend.encode_special_tokens  # JSON leaves it out
        model = definition["model"]
        if isinstance(self.model, Unigram):
            # From JSON, the library reads some scores wrong in the last bit, which decides on ties.
            scored = [(token, score) for token, score in model["vocab"]]
            rebuilt.model = type(self.backend.model)(
                scored, model["unk_id"], model["byte_fallback"]
            )
        return rebuilt

    def _unknown_words(self, text: str | Sequence[str], encoding: Encoding) -> Iterator[str]:
        for token, (start, end), index in zip(
            encoding.ids, encoding.offsets, encoding.word_ids, strict=True
        ):
            if token != self.model.unknown or index is None:
                continue
            word = (text if isinstance(text, str) else text[index])[start:end]
            if self.backend.normalizer is not None:
                word = self.backend.normalizer.normalize_str(word)
            if self.backend.pre_tokenizer is None:
                yield word
            else:
                yield from (part for part, _ in self.backend.pre_tokenizer.pre_tokenize_str(word))


def _encodings(
    backend: Tokenizer, texts: Iterable[str | Sequence[str]]
) -> Iterator[tuple[str | Sequence[str], Encoding]]:
    remaining = iter(texts)
    while batch := list(islice(remaining, _BATCH)):
        whole = [text for text in batch if isinstance(text, str)]
        split = [text for text in batch if not isinstance(text, str)]
        yield from zip(whole, backend.encode_batch(whole), strict=True)
        yield from zip(split, backend.encode_batch(split, is_pretokenized=True), strict=True)


def _ids_of_processor(processor: Mapping[str, Any] | None) -> Iterator[list[int | str]]:
    """Yield the lists that hold the ids (and perhaps names) of the tokens put around a text."""
    if processor is None:
        return
    for special in processor.get("special_tokens", {}).values():
        yield special["ids"]
    for name in ("sep", "cls"):
        if name in processor:
            yield processor[name]
    for part in processor.get("processors", []):
        yield from _ids_of_processor(part)
