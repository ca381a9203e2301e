"""Classes and functions that an untrusted configuration may import.

Such a configuration may be somebody else's: what it names is looked up, and with that imported and
called, only if it belongs to a package that is listed here or that the user's own command allows.
"""

from __future__ import annotations

import pkgutil
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TARGET = "_target_"
#: Hydra's functions that return what ``path`` names, without calling it.
GETTERS = ("hydra.utils.get_method", "hydra.utils.get_class")

# Classes of tasks, data and metrics alone: other parts of this package, and of torchmetrics, run
# commands, or load models with code of their own.
_OURS = (
    "multiprune.tasks", "multiprune.data", "multiprune.metrics",
    "torchmetrics.classification", "torchmetrics.regression",
)  # fmt: skip

_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


def check_targets(config: Any, *, source: str, allowed: Sequence[str] = ()) -> None:
    """Refuse a configuration that names a class or function outside of the packages it may use.

    Args:
        config: plain dictionaries and lists, as read from a file.
        source: the file, for the message.
        allowed: further packages, modules, classes or functions, of which the user answers for.

    Raises:
        ValueError: if it names another, or has an interpolation; nothing of that is imported.
    """
    for key, node in _nodes(config, ""):
        if isinstance(node, str):
            # Hydra would evaluate it, and what comes of it may name anything.
            if "${" in node:
                raise ValueError(f"{source}: {key} must be a value, but is {node!r}.")
        elif TARGET in node:
            _check_node(node, f"{source}: {key}", tuple(allowed))


def is_within(name: str, packages: Sequence[str]) -> bool:
    """Whether a dotted name is one of ``packages`` or in one, and is not private to Python."""
    parts = name.split(".")
    return (
        _DOTTED.fullmatch(name) is not None
        and not any(part.startswith("__") for part in parts)
        and any(name == one or name.startswith(f"{one}.") for one in packages)
    )


def _nodes(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        yield key, node
        for name, value in node.items():
            yield from _nodes(value, f"{key}.{name}" if key else name)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _nodes(value, f"{key}.{index}")
    elif isinstance(node, str):
        yield key, node


def _check_node(node: dict[str, Any], where: str, allowed: tuple[str, ...]) -> None:
    target = node[TARGET]
    if target in GETTERS:
        # Other arguments, such as `_args_`, could name the path as well.
        if node.keys() != {TARGET, "path"}:
            raise ValueError(f"{where} must have {TARGET} and path alone, but has {[*node]}.")
        _check(node["path"], f"{where}.path", allowed)
    else:
        found = _check(target, f"{where}.{TARGET}", allowed)
        if not isinstance(found, type) and not is_within(target, allowed):
            raise ValueError(f"{where}.{TARGET} must name a class, but names {target}.")


def _check(name: Any, where: str, allowed: tuple[str, ...]) -> Any:
    """Return what is named, which must be defined in a package of ours or an allowed one."""
    if isinstance(name, str) and is_within(name, (*_OURS, *allowed)):
        try:
            found = pkgutil.resolve_name(name)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(f"{where} names {name}, which cannot be found: {error}") from error
        # A module shows what it has imported, such as `os.system`, under names of its own.
        home = getattr(found, "__module__", None)
        if isinstance(home, str) and is_within(
            home, (*_OURS, *(one.split(".")[0] for one in allowed))
        ):
            return found
    raise ValueError(
        f"{where} names {name}, which is not imported, as the configuration may be untrusted: "
        "allow its package with `--allow-targets` (or `allow_targets`)."
    )
