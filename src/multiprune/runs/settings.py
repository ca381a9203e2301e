"""The settings of a run by dotted key, with defaults."""

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
    from collections.abc import Callable, Iterable, Iterator, Mapping

    Defaults = Callable[[str], Mapping[str, Any]]

#: Settings that change neither weights nor scores: where a run reads and writes, what it shows and
#: how often it saves. Runs that differ in these alone are the same, wherever that is asked.
INCIDENTAL = (
    "logger", "checkpoint", "give_up", "mirror",
    "data.mirror", "data.cache", "data.workers", "task.*.workers",
    "trainer.log_every_n_steps", "trainer.num_sanity_val_steps", "trainer.enable_model_summary",
    "trainer.enable_progress_bar", "trainer.profiler",
)  # fmt: skip

# Configurations may be those of somebody else: of other packages nothing is imported.
_PACKAGES = ("multiprune", "pytorch_lightning", "torchmetrics")

# A class of this package is known by its name alone: its module may move.
_OURS = "multiprune."

# Classes whose names have changed; runs that were begun before are of the same settings.
_RENAMED = {"NoDistillation": "PlainLoss"}

#: Settings that make no other method, beside those that are incidental: what is learned and from
#: what, the size, how tasks of a multitask run are mixed and share batches, the runs that a teacher
#: or a mask come from, and on what a run runs.
NO_METHOD = (
    *INCIDENTAL, "task", "encoder", "budget", "seed", "retrieval",
    "distillation.teacher", "pruner.mask",
    "data.cap", "data.max_length", "data.mixing", "data.share_texts",
    "trainer.accelerator", "trainer.devices", "trainer.strategy", "trainer.use_distributed_sampler",
)  # fmt: skip

#: The setting that names the pruner.
PRUNER = f"pruner.{TARGET}"

#: What the root of a configuration is made of.
ROOT = "multiprune.config.Train"


def settings_of(config: Mapping[str, Any], *, trusted: Iterable[str] = ()) -> dict[str, Any]:
    """Return all settings of a configuration by dotted key, as JSON has them.

    A keyword that is left out has the default of its constructor, and a class of this package is
    called by its name alone. Settings that are null are left out. Imports constructors of this
    package, of those it builds on, and of ``trusted`` ones, but no others: of these, what is given
    is all there is.
    """
    return settings_with(config, lambda target: _defaults_of(target, trusted))


def settings_with(config: Mapping[str, Any], defaults: Defaults) -> dict[str, Any]:
    """Return the same, where ``defaults`` gives the keywords of a class that have a default."""
    leaves = _leaves(config, "", defaults)
    return {key: value for key, value in leaves if value is not None}


def difference(
    first: Mapping[str, Any],
    second: Mapping[str, Any],
    *,
    recorded: Mapping[str, Any] | None = None,
) -> tuple[str, Any, Any] | None:
    """Return the first key in which results of two configurations may differ, and both values.

    The second is the user's own, and packages that it names are trusted. ``recorded`` are all
    settings of the first, if they were noted when it was used: a keyword that has come since makes
    no difference unless the second gives it another value than its default. Secrets, which no run
    leaves behind, are not compared. Nothing is imported if both give the same.
    """
    first, second = redacted(first), redacted(second)
    given = [dict(_leaves(config, "", lambda _: {})) for config in (first, second)]
    if given[0] == given[1]:
        return None
    trusted = [*packages_of(second)]
    now = settings_of(second, trusted=trusted)
    if recorded is None:
        return _first_difference(settings_of(first, trusted=trusted), now)
    chosen = _without_defaults(second, "", lambda target: _defaults_of(target, trusted))
    # What a file gives says no more than the constructor does.
    known = recorded.keys() | {key for key, _ in _leaves(chosen, "", lambda _: {})}
    return _first_difference(recorded, {key: now[key] for key in now if key in known})


def method_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return those settings of a run that make its method."""
    return {key: value for key, value in settings.items() if not is_below(key, NO_METHOD)}


@cache
def is_below(key: str, patterns: tuple[str, ...]) -> bool:
    """Whether a dotted key is one of ``patterns``, in which ``*`` is anything, or below one."""
    return any(
        fnmatchcase(key, pattern) or fnmatchcase(key, f"{pattern}.*") for pattern in patterns
    )


def _first_difference(
    first: Mapping[str, Any], second: Mapping[str, Any]
) -> tuple[str, Any, Any] | None:
    for key in sorted(first.keys() | second.keys()):
        if first.get(key) != second.get(key) and not is_below(key, INCIDENTAL):
            return key, first.get(key), second.get(key)
    return None


def packages_of(node: Any) -> Iterator[str]:
    """Yield the package of every class that a configuration names."""
    if isinstance(node, dict):
        if isinstance(target := node.get(TARGET), str):
            yield target.partition(".")[0]
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for value in node:
            yield from packages_of(value)


def _leaves(node: Any, key: str, defaults: Defaults) -> Iterator[tuple[str, Any]]:
    prefix = f"{key}." if key else ""
    if isinstance(node, dict):
        target = node.get(TARGET) if key else ROOT
        if isinstance(target, str):
            missing = {k: v for k, v in defaults(target).items() if k not in node}
            node = {**node, **_short(node, target), **missing}
        for name, value in node.items():
            yield from _leaves(value, f"{prefix}{name}", defaults)
    elif isinstance(node, (list, tuple)) and any(isinstance(entry, dict) for entry in node):
        for index, value in enumerate(node):
            yield from _leaves(value, f"{prefix}{index}", defaults)
    else:
        # As JSON has it.
        yield key, list(node) if isinstance(node, tuple) else node


def _without_defaults(node: Any, key: str, defaults: Defaults) -> Any:
    """Return a node without the keywords whose values are those of its constructor."""
    if isinstance(node, (list, tuple)):
        return [_without_defaults(value, "-", defaults) for value in node]
    if not isinstance(node, dict):
        return node
    target = node.get(TARGET) if key else ROOT
    own = defaults(target) if isinstance(target, str) else {}
    return {
        name: _without_defaults(value, name, defaults)
        for name, value in node.items()
        if name not in own or own[name] != value
    }


def _short(node: Mapping[str, Any], target: str) -> dict[str, str]:
    """Return the keys of a node that name something of this package, without its module."""
    keys = (TARGET, "path") if target in GETTERS else (TARGET,)
    names = {key: str(node.get(key, "")) for key in keys}
    ours = {key: name.rpartition(".")[2] for key, name in names.items() if name.startswith(_OURS)}
    return {key: _RENAMED.get(name, name) for key, name in ours.items()}


def _defaults_of(target: str, trusted: Iterable[str]) -> Mapping[str, Any]:
    return _defaults(target) if is_within(target, (*_PACKAGES, *trusted)) else {}


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
