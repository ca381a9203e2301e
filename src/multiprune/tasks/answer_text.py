"""Normalize answer texts for comparison."""

from __future__ import annotations

import re
import string
import sys
import unicodedata
from functools import cache

_ENGLISH_ARTICLES = r"\b(?:a|an|the)\b"
_SQUAD_PUNCTUATION = str.maketrans("", "", string.punctuation)

#: By language that MLQA has. The Arabic pattern is as odd as that of its script.
_MLQA_ARTICLES = {
    "ar": r"\sال^|ال",  # noqa: RUF001
    "de": r"\b(?:ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b",
    "en": _ENGLISH_ARTICLES,
    "es": r"\b(?:un|una|unos|unas|el|la|los|las)\b",
    "hi": None,
    "vi": r"\b(?:của|là|cái|chiếc|những)\b",
    "zh": None,
}
_CHINESE_CHARACTER = re.compile("([\u4e00-\u9fa5])")


def squad(text: str, language: str | None) -> str:  # noqa: ARG001
    """Normalise as the script of SQuAD v1.1 does, in all languages alike (Rajpurkar et al. 2016).

    In lower case, without ASCII punctuation, without English articles, with single spaces.
    """
    text = text.lower().translate(_SQUAD_PUNCTUATION)
    return " ".join(re.sub(_ENGLISH_ARTICLES, " ", text).split())


def mlqa(text: str, language: str | None) -> str:
    """Normalise as the script of MLQA does, by language (Lewis et al. 2020).

    In lower case, without punctuation of any script, without the language's articles; Chinese
    characters are words of their own.

    Raises:
        ValueError: if the language is not one of MLQA's.
    """
    if language not in _MLQA_ARTICLES:
        raise ValueError(
            f"Answers can be normalised as MLQA does in {', '.join(_MLQA_ARTICLES)}, but the "
            f"language is {language}."
        )
    text = text.lower().translate(_mlqa_punctuation())
    if articles := _MLQA_ARTICLES[language]:
        text = re.sub(articles, " ", text)
    if language == "zh":
        text = _CHINESE_CHARACTER.sub(r" \1 ", text)
    return " ".join(text.split())


@cache
def _mlqa_punctuation() -> dict[int, None]:
    of_unicode = (
        code for code in range(sys.maxunicode) if unicodedata.category(chr(code))[0] == "P"
    )
    return dict.fromkeys([*of_unicode, *map(ord, string.punctuation)])
