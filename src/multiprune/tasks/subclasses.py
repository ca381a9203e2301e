"""List subclasses, of this package and of imported user modules."""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")


def subclasses(base: type[T], package: str) -> Iterator[type[T]]:
    """Yield what is derived from ``base``, each class before those derived from it.

    All modules of ``package`` are imported, so that none has to be listed.
    """
    _import_all(package)
    for one in base.__subclasses__():
        yield one
        yield from subclasses(one, package)


@cache
def _import_all(package: str) -> None:
    for module in pkgutil.iter_modules(import_module(package).__path__, f"{package}."):
        import_module(module.name)
