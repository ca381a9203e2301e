"""Checks of arguments, which raise a sentence before Python does."""

from __future__ import annotations

from numbers import Integral, Real


def check_numbers(**settings: object) -> None:
    """Raise a ValueError that names the first setting that is not a number."""
    for name, value in settings.items():
        if isinstance(value, bool) or not isinstance(value, Real) or value != value:
            raise ValueError(f"`{name}` must be a number, but is {value!r}.")


def check_whole_numbers(**settings: object) -> None:
    """Raise a ValueError that names the first setting that is not a whole number."""
    for name, value in settings.items():
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise ValueError(f"`{name}` must be a whole number, but is {value!r}.")


def check_is(kind: type, example: str, **settings: object) -> None:
    """Raise a TypeError that names the first setting that is no object of ``kind``."""
    for name, value in settings.items():
        if not isinstance(value, kind):
            article = "an" if kind.__name__[0] in "AEIOU" else "a"
            raise TypeError(
                f"`{name}` must be {article} {kind.__name__} such as {example}, but is {value!r}."
            )
