"""What tells one run from another: the settings that make results differ, defaults filled in."""

from __future__ import annotations

import inspect
import json
import pkgutil
from dataclasses import MISSING, asdict, fields, is_dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import TYPE_CHECKING, Any

from multiprune.redact import redacted
from multiprune.targets import GETTERS, TARGET, is_within

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

#: Settings that change neither weights nor scores: where a run reads and writes, what it shows and
#: how often it saves. Runs that differ in these alone are the same, wherever that is asked.
INCIDENTAL = (
    "logger", "checkpoint", "give_up", "mirror", "data.mirror", "data.cache", "task.*.workers",
    "trainer.log_every_n_steps", "trainer.num_sanity_val_steps", "trainer.enable_model_summary",
    "trainer.enable_progress_bar", "trainer.profiler",
)  # fmt: skip

# Configurations may be those of somebody else: of other packages nothing is imported.
_PACKAGES = ("multiprune", "pytorch_lightning", "torchmetrics")

#: What the root of a configuration is made of.
_ROOT = "multiprune.config.Train"


def flat_settings(*configs: Mapping[str, Any], trusted: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return the settings of each configuration by dotted key, so that they can be compared.

    A keyword that one of them gives to a constructor has, in those that leave it out, the default
    of that constructor. Nothing is imported unless there is such a keyword, and nothing but
    constructors of this package, of those it builds on, and of ``trusted`` ones. Settings that are
    null are left out, and so are keywords of constructors that are not known here.
    """
    given: dict[str, set[str]] = {}
    while True:
        before = sum(map(len, given.values()))
        flats = [dict(_leaves(one, "", given, tuple(trusted))) for one in configs]
        # What one configuration gives is now known, and what was filled in may be more of it.
        if sum(map(len, given.values())) == before:
            return flats


def difference(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """Return the first key in which results of two configurations may differ, and both values.

    The second is the user's own, and packages that it names are trusted. Secrets, which no run
    leaves behind, are not compared.
    """
    first, second = redacted(first), redacted(second)
    ours, theirs = flat_settings(first, second, trusted=[*_packages(second)])
    for key in sorted(ours | theirs):
        if ours.get(key) != theirs.get(key) and not is_below(key, INCIDENTAL):
            return key, ours.get(key), theirs.get(key)
    return None


@cache
def is_below(key: str, patterns: tuple[str, ...]) -> bool:
    """Whether a dotted key is one of ``patterns``, in which ``*`` is anything, or below one."""
    return any(fnmatchcase(key, one) or fnmatchcase(key, f"{one}.*") for one in patterns)


def _packages(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(target := node.get(TARGET), str):
            yield target.partition(".")[0]
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for value in node:
            yield from _packages(value)


def _leaves(
    node: Any, key: str, given: dict[str, set[str]], trusted: tuple[str, ...]
) -> Iterator[tuple[str, Any]]:
    """Yield the settings below ``key``, and note in ``given`` what constructors are given."""
    prefix = f"{key}." if key else ""
    if isinstance(node, dict):
        target = node.get(TARGET) if key else _ROOT
        if isinstance(target, str):
            names = given.setdefault(target, set())
            names.update(node)
            if missing := names - node.keys():
                known = is_within(target, (*_PACKAGES, *trusted))
                defaults = _defaults(target) if known else {}
                node = node | {name: defaults[name] for name in missing if name in defaults}
        for name, value in node.items():
            yield from _leaves(value, f"{prefix}{name}", given, trusted)
    elif isinstance(node, (list, tuple)) and any(isinstance(one, dict) for one in node):
        for index, value in enumerate(node):
            yield from _leaves(value, f"{prefix}{index}", given, trusted)
    elif node is not None:
        # As JSON has it.
        yield key, list(node) if isinstance(node, tuple) else node


@cache
def _defaults(target: str) -> Mapping[str, Any]:
    """Return the keywords with a default of what ``target`` names, as a configuration has them."""
    try:
        made = pkgutil.resolve_name(target)
        found = {
            name: one.default
            for name, one in inspect.signature(made).parameters.items()
            if one.default is not one.empty
        }
    except (ImportError, AttributeError, TypeError, ValueError):
        # Of another version, or of a user whose code is not at hand.
        return {}
    if is_dataclass(made):
        factories = {one.name: one.default_factory for one in fields(made)}
        found |= {name: make() for name, make in factories.items() if make is not MISSING}
    configured = {name: _as_config(value) for name, value in found.items()}
    return {name: value for name, value in configured.items() if value is not MISSING}


def _as_config(value: Any) -> Any:
    """Return what a configuration would have for ``value``; ``MISSING`` if that is not known."""
    if value == "???":
        return MISSING
    if inspect.isfunction(value):
        name = f"{value.__module__}.{value.__qualname__}"
        return {TARGET: GETTERS[0], "path": name}
    if is_dataclass(value) and not isinstance(value, type):
        name = f"{type(value).__module__}.{type(value).__qualname__}"
        return {TARGET: name, **asdict(value)}
    try:
        return json.loads(json.dumps(value))
    except TypeError:
        return MISSING
