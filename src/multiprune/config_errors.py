"""Errors of Hydra and OmegaConf as one sentence."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from multiprune.message import first_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_NO_SETTING = re.compile(r"Could not override '(.+)'\.\nTo append to your config use \+(.+)")
_NOT_A_MAPPING = re.compile(r"In '([^']+)': .*Cannot merge DictConfig with ListConfig", re.S)
_THERE_ALREADY = re.compile(r"Could not append to config\. An item is already at '(.+)'\.")
_CHOSEN_ALREADY = re.compile(r"Multiple values for (\S+)\. To override")
_NO_OPTION = re.compile(r"Could not find '([^']+)/([^'/]+)'")
_OF_GROUP = re.compile(r"Config group override must be a string or a list\. Got (\w+)")
# What a call says of arguments that it does not take, or has not got.
_UNEXPECTED = re.compile(r"(\w+)(?:\.__init__)?\(\) got an unexpected keyword argument '(\w+)'")
_NOT_FOUND = re.compile(r"Error loading '([^']+)'")
_MISSING = re.compile(r"(\w+)(?:\.__init__)?\(\) missing .* arguments?: (.+)")
_KEY = re.compile(r"^ *full_key: (.+)$", re.MULTILINE)
_RAISED = re.compile(r"\w+ raised while (?:resolving interpolation|composing config): ")
_NOT_SAID = ("full_key:", "object_type=", "reference_type=", "Config search path", "See https:")


def composition_sentence(error: BaseException, arguments: Sequence[str]) -> str:
    """Return what is wrong with the command's ``arguments``, and what to do."""
    text = str(error)
    if isinstance(error, RecursionError):
        return (
            "A file of the configuration must not name itself in its `defaults`, be it by others, "
            f"but one does that {', '.join(arguments)} asks for."
        )
    if found := _NOT_A_MAPPING.search(text):
        return f"The file {found[1]}.yaml must be a mapping of names, but is a list."
    if found := _NO_SETTING.search(text):
        return f"There is no setting `{found[1]}`: correct its name, or add it by +{found[2]}."
    if found := _THERE_ALREADY.search(text):
        return f"There is a setting `{found[1]}` already: override it without the +."
    if found := _CHOSEN_ALREADY.search(text):
        return f"There is a group `{found[1]}` already: choose its option without the +."
    if found := _NO_OPTION.search(text):
        return _no_option(found[1], found[2], text)
    if found := _OF_GROUP.search(text):
        groups = [one for one in arguments if "=" in one and "." not in one.partition("=")[0]]
        return (
            "A group must be given the name of one of its options, as in budget=fraction, but one "
            f"of {', '.join(groups)} gives {'null' if found[1] == 'NoneType' else found[1]}."
        )
    return _joined(text, error.__cause__)


def construction_sentence(error: BaseException) -> str:
    """Return why an object of a configuration cannot be made, and by which key it was asked for."""
    key = found[1] if (found := _KEY.search(str(error))) else ""
    causes = [*_causes(error)]
    for cause in causes:
        if found := _NOT_FOUND.match(str(cause)):
            reason = first_line(causes[-1])
            return f"`{key}` names {found[1]}, which cannot be found: {reason}."
    return call_sentence(causes[0], key) if causes else _joined(str(error), None)


def call_sentence(error: BaseException, key: str) -> str:
    """Return why a call that ``key`` asks for has failed."""
    text = first_line(error)
    place = f"{key}." if key else ""
    if found := _UNEXPECTED.search(text):
        return (
            f"`{place}{found[2]}` is not a setting of {found[1]}: correct its name, or remove it."
        )
    if found := _MISSING.search(text):
        return f"{found[1]} needs {found[2].replace(chr(39), '`')}: set it (in {key})."
    return text


def _causes(error: BaseException) -> Iterator[BaseException]:
    while error.__cause__ is not None:
        error = error.__cause__
        yield error


def _no_option(group: str, name: str, text: str) -> str:
    _, _, listed = text.partition("Available options in ")
    indented = [line.strip() for line in listed.splitlines() if line.startswith("\t")]
    options = [line for line in indented if "=" not in line]
    if not options:
        return f"There is no group `{group}` with an option {name!r}: `train.py --help` lists all."
    return f"`{group}` must be one of {', '.join(options)}, but is {name!r}."


def _joined(text: str, cause: BaseException | None) -> str:
    """Return the lines of a message that say something as one, and the key that it is about."""
    lines = [line.strip() for line in (text if cause is None else f"{text}\n{cause}").splitlines()]
    # A caret below a column says nothing in a line of its own.
    kept = [line for line in lines if set(line) - {"^"} and not line.startswith(_NOT_SAID)]
    said = _RAISED.sub("", " ".join(dict.fromkeys(kept))).rstrip(".:")
    key = _KEY.search(text)
    return f"{said} (in {key[1]})." if key and key[1] not in said else f"{said}."
