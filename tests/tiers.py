"""Cases of a test that belong to the slow tier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from _pytest.mark import ParameterSet


def slow(*cases: Any) -> list[ParameterSet]:
    """Return cases that run with the slow tests only."""
    return [pytest.param(case, marks=pytest.mark.slow) for case in cases]
