"""Redact secrets of a configuration: passwords in URLs, and values of secret keys.

They are replaced by ``***`` in all that a run leaves behind or shows to others.
"""

from __future__ import annotations

import re
from typing import Any

HIDDEN = "***"

# By their words: `tokens` and `tokenizer` are none, nor are the special tokens of a vocabulary.
_SECRET = re.compile(
    r"(^|_)(password|passwd|passphrase|secret|credentials?|(api|access|private)_?key)(_|$)"
    r"|(?<!mask)(?<!pad)(?<!unk)(?<!cls)(?<!sep)(?<!bos)(?<!eos)(^|_)token$",
    re.IGNORECASE,
)
# The number behind a host is a port. A password with marks that part values has no slash or `@`.
_IN_ADDRESS = re.compile(r"(://[^\s/:@]*:)(?!\d{1,5}/)(?:[^\s,'\"]+|[^\s/@\"?#{}\[\]]+)@")
_WITHOUT_NAME = re.compile(r"(https?://)[^\s/:@]+@")
# Quoted, with marks that are escaped, or bare; an apostrophe within a bare one is a part of it.
_VALUE = (
    r"([\w-]+)(\s*[=:]\s*)(?!\$\{{|(?:null|\*\*\*)(?:[\s,&{{}}\[\]'\"]|$))"
    r"('(?:\\.|[^'\\])*(?:'|$)|\"(?:\\.|[^\"\\])*(?:\"|$)"
    r"|(?:\\.|[^{blank},&{{}}\[\]'\"\\]|['\"](?=\w))+)"
)
_GIVEN = re.compile(_VALUE.format(blank=r"\s"), re.DOTALL)
# In an override, a value may be of several words.
_GIVEN_IN_OVERRIDE = re.compile(_VALUE.format(blank=r"\n"), re.DOTALL)
_OVERRIDE = re.compile(r"[+~]*[\w.@/-]+=")


def redacted(node: Any, key: str = "") -> Any:
    """Return plain dictionaries and lists without secrets."""
    if isinstance(node, dict):
        return {name: redacted(value, str(name)) for name, value in node.items()}
    if isinstance(node, (list, tuple)):
        return type(node)(redacted(value, key) for value in node)
    if isinstance(node, str):
        # An interpolation says where the secret is, and may be the only way to repeat the run.
        if is_secret(key) and node and not node.startswith("${"):
            return HIDDEN
        return _redact_override(node) if _OVERRIDE.match(node) else _redact_addresses(node)
    is_number = isinstance(node, (int, float)) and not isinstance(node, bool)
    return HIDDEN if is_number and is_secret(key) else node


def redact_text(text: str) -> str:
    """Return text, such as an override or a message, without secrets."""
    return _GIVEN.sub(_without_value, _redact_addresses(text))


def is_secret(key: str) -> bool:
    """Whether the last word of a dotted key names something secret."""
    return _SECRET.search(key.rpartition(".")[2].replace("-", "_")) is not None


def _redact_override(text: str) -> str:
    key, _, value = text.partition("=")
    if is_secret(key.lstrip("+~")) and value not in ("", "null") and not value.startswith("${"):
        return f"{key}={HIDDEN}"
    return _GIVEN_IN_OVERRIDE.sub(_without_value, _redact_addresses(text))


def _redact_addresses(text: str) -> str:
    return _WITHOUT_NAME.sub(rf"\1{HIDDEN}@", _IN_ADDRESS.sub(rf"\1{HIDDEN}@", text))


def _without_value(found: re.Match[str]) -> str:
    key, sign, value = found.groups()
    return f"{key}{sign}{HIDDEN if is_secret(key) else found.re.sub(_without_value, value)}"
