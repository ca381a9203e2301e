"""Has beartype check the shapes that signatures state, while the tests run.

The import hook of jaxtyping wraps every function and checks arguments twice, which makes the tests
of pruning a quarter slower; and it passes over annotations of which it does not know a name.
"""

from __future__ import annotations

import ast
import sys
from dataclasses import is_dataclass
from functools import wraps
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from itertools import count
from typing import TYPE_CHECKING

import torch
from beartype import beartype
from jaxtyping import jaxtyped
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType, ModuleType
    from typing import Any

#: Where tensors, and arrays, have shapes that are stated.
PACKAGES = (
    "multiprune.budget",
    "multiprune.models",
    "multiprune.pruning",
    "multiprune.tasks.outputs",
)

_DECORATOR = "shapes_are_checked"

# Checks of every call make the tests of pruning an eighth slower, and calls in loops are alike.
_ALL_OF_FIRST, _ONE_IN = 200, 10


def check_shapes() -> None:
    """Check the shapes of all modules of ``PACKAGES`` that are imported from now on."""
    sys.meta_path.insert(0, _Finder())


def checked(function: Any) -> Any:
    """Return a function, or a class, that refuses what contradicts the shapes it states.

    Of classes those that are dataclasses refuse; fields of others say what buffers they have.

    Raises:
        NameError: if a shape is stated in names that the module does not know when it runs.
    """
    if isinstance(function, type):
        made: Any = function
        if is_dataclass(function):
            made.__init__ = checked(made.__init__)
        return made
    # What states no shape is for mypy, which knows types that are not imported when tests run.
    function.__annotations__ = {
        name: eval(hint, function.__globals__)
        for name, hint in function.__annotations__.items()
        if isinstance(hint, str) and _states_shape(ast.parse(hint))
    }
    with_check = jaxtyped(beartype(function), typechecker=None)
    calls = count()

    @wraps(function)
    def sometimes_checked(*args: Any, **kwargs: Any) -> Any:
        # What torch traces has no values to look at, and would be made of the check, too.
        if torch.compiler.is_compiling():
            return function(*args, **kwargs)
        call = next(calls)
        if call < _ALL_OF_FIRST or call % _ONE_IN == 0:
            return with_check(*args, **kwargs)
        return function(*args, **kwargs)

    return sometimes_checked


def _states_shape(tree: ast.AST) -> bool:
    """Whether a tree has a shape in it, as ``Float[Tensor, "rows columns"]`` is."""
    for node in ast.walk(tree):
        match node:
            case ast.Subscript(slice=ast.Tuple(elts=[_, ast.Constant(value=str())])):
                return True
    return False


def _annotations(node: ast.FunctionDef | ast.ClassDef) -> list[ast.expr]:
    if isinstance(node, ast.ClassDef):
        return [one.annotation for one in node.body if isinstance(one, ast.AnnAssign)]
    parts = node.args
    arguments = [*parts.posonlyargs, *parts.args, *parts.kwonlyargs, parts.vararg, parts.kwarg]
    found = [one.annotation for one in arguments if one is not None] + [node.returns]
    return [one for one in found if one is not None]


class _Finder(PathFinder):
    @classmethod
    @override
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(PACKAGES):
            return None
        spec = super().find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    @override
    def exec_module(self, module: ModuleType) -> None:
        setattr(module, _DECORATOR, checked)
        super().exec_module(module)

    @override
    def get_code(self, fullname: str) -> CodeType:
        """Compile anew, as cached byte code is that of the source as it stands."""
        path = self.get_filename(fullname)
        tree = ast.parse(self.get_data(path), path)
        for node in ast.walk(tree):
            if not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                continue
            if any(map(_states_shape, _annotations(node))):
                decorator = ast.copy_location(ast.Name(_DECORATOR, ast.Load()), node)
                # Next to a function, as other decorators hide its annotations; around a class, as
                # it is made a dataclass first.
                place = 0 if isinstance(node, ast.ClassDef) else len(node.decorator_list)
                node.decorator_list.insert(place, decorator)
        return compile(tree, path, "exec", dont_inherit=True)
