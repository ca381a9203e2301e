"""Every way of training with every family of pruners: it works, or is refused in a sentence."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from composition_table import ALIKE, FAMILIES, ROWS, Row, markdown
from torch.optim.optimizer import register_optimizer_step_post_hook

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _pytest.mark import ParameterSet

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
]


def cells() -> list[ParameterSet]:
    """Return all cells; those that take long, or go the way of others, are slow."""
    found = []
    for row in ROWS:
        for family in FAMILIES:
            name = f"{family}-{re.sub('[^a-zA-Z0-9]+', '_', row.name).strip('_')}"
            is_long = family != "magnitude" if row.slow else family in ALIKE
            is_slow = is_long and row.refusal(family) is None
            marks = [pytest.mark.slow] if is_slow else []
            found.append(pytest.param(row, family, id=name, marks=marks))
    return found


@pytest.fixture
def steps() -> Iterator[list[int]]:
    """Count the steps of all optimizers."""
    taken: list[int] = []
    handle = register_optimizer_step_post_hook(lambda *_: taken.append(1))
    yield taken
    handle.remove()


@pytest.mark.parametrize(("row", "family"), cells())
def test_a_way_of_training_works_or_is_refused(
    row: Row, family: str, steps: list[int], tmp_path: Path
) -> None:
    said = row.refusal(family)
    if said is None:
        row.way(family, tmp_path)
        return
    with pytest.raises((ValueError, RuntimeError), match=re.escape(said)) as refusal:
        row.way(family, tmp_path)
    assert "\n" not in str(refusal.value)
    assert str(refusal.value).endswith(".")
    # Early stopping is known only when it happens.
    assert not steps or "EarlyStopping" in row.name


def test_the_page_shows_what_the_tests_hold() -> None:
    page = Path(__file__).parents[1] / "docs" / "composition.md"
    assert page.read_text(encoding="utf-8") == markdown(), "run python benchmarks/composition.py"


def test_every_file_of_the_configuration_is_in_the_table_or_goes_the_way_of_one() -> None:
    files = {file.stem for file in (Path(__file__).parents[1] / "conf" / "pruner").glob("*.yaml")}
    # Dense; and the class of `structured`, with another importance.
    assert files - set(FAMILIES) == {"none", "structured_gradient", "structured_random"}
