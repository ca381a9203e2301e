"""Short names of the jobs of a sweep, for folders and trackers."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from typing import TYPE_CHECKING

from multiprune.redact import redacted
from multiprune.runs.settings import INCIDENTAL, is_below

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

# A longer one is cut, and told from others by its digest.
_LONGEST = 120


def job_name(overrides: Sequence[str], fixed: Collection[str]) -> str:
    """Return what a job is called: ``fraction-0.2_pruner-magnitude_seed-0``.

    It has no characters that a shell or Hydra would read as their own, and names the overrides that
    vary. Those of the keys ``fixed``, which all jobs of the sweep share, are told from other sweeps
    into the same folder by four digits of a digest, unless they change no result.
    """
    given = sorted(one.lstrip("+~").partition("=")[::2] for one in redacted([*overrides]))
    own = [(key, value) for key, value in given if key not in fixed]
    hidden = [one for one in given if one[0] in fixed and not is_below(one[0], INCIDENTAL)]
    shorts = short_keys([key for key, _ in own])
    plain = [_plain(value) for _, value in own]
    name = "_".join(f"{short}-{value}" for short, value in zip(shorts, plain, strict=True))
    safe = re.sub(r"[^a-zA-Z0-9_.+@-]+", "-", name)[:_LONGEST]
    # What is replaced or cut might have been told apart by that; a value with a key in it is not.
    is_plain = not any(f"_{short}-" in value for short in shorts for value in plain)
    hidden += [] if safe == name and is_plain else own
    digest = hashlib.sha256(repr(hidden).encode()).hexdigest()[:4]
    return "_".join(one for one in (safe, digest if hidden else "") if one)


def short_keys(keys: Sequence[str]) -> list[str]:
    """Return the last word of each key, unless several have the same."""
    lasts = [key.rpartition(".")[2] for key in keys]
    counts = Counter(lasts)
    return [last if counts[last] == 1 else key for key, last in zip(keys, lasts, strict=True)]


def _plain(value: str) -> str:
    """Return a value without quotes, and a list as ``a+b``."""
    return re.sub(r",\s*", "+", value.strip("\"'[]"))
