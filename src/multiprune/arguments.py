"""Checks of argument types and ranges, with error messages of one sentence."""

from __future__ import annotations

import math
from numbers import Integral, Real


def check_number(
    name: str,
    value: object,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
    whole: bool = False,
) -> None:
    """Raise a ValueError unless ``value`` is a finite number within the bounds.

    Neither NaN, nor a truth value, nor text is a number.
    """
    kind = Integral if whole else Real
    if isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value):
        number = float(value)
        if (
            (above is None or number > above)
            and (at_least is None or number >= at_least)
            and (below is None or number < below)
            and (at_most is None or number <= at_most)
        ):
            return
    noun = "a whole number " if whole else "" if isinstance(value, Real) else "a number "
    has_low, has_high = {above, at_least} != {None}, {below, at_most} != {None}
    if not noun and value == math.inf and has_low and not has_high:
        noun = "a finite number "
    bounds = _bounds(above, at_least, below, at_most)
    bounds = f"of {bounds}" if noun and bounds.startswith("at ") else bounds
    shown = repr(value) if isinstance(value, str) else value
    raise ValueError(f"`{name}` must be {noun}{bounds}".rstrip() + f", but is {shown}.")


def _bounds(
    above: float | None, at_least: float | None, below: float | None, at_most: float | None
) -> str:
    low, high = (at_least if above is None else above), (at_most if below is None else below)
    if low is not None and high is not None:
        return f"in {'[' if above is None else '('}{low}, {high}{']' if below is None else ')'}"
    if low is not None:
        return f"at least {low}" if above is None else f"above {low}"
    if high is not None:
        return f"at most {high}" if below is None else f"below {high}"
    return "finite"


def check_is(kind: type, example: str, **settings: object) -> None:
    """Raise a TypeError that names the first setting that is no object of ``kind``."""
    for name, value in settings.items():
        if not isinstance(value, kind):
            article = "an" if kind.__name__[0] in "AEIOU" else "a"
            raise TypeError(
                f"`{name}` must be {article} {kind.__name__} such as {example}, but is {value!r}."
            )


def check_several(name: str, value: object) -> None:
    """Raise a ValueError unless ``value`` is a list, as one name alone is not."""
    if not isinstance(value, list | tuple):
        raise ValueError(f"`{name}` must be a list, as in {name}=[{value}], but is {value!r}.")
