"""Input that is malformed: one sentence, exit status 2, and nothing that is left behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from malformed_overrides import OVERRIDES
from malformed_world import ACCEPTED, SMALL, check, train

if TYPE_CHECKING:
    from pathlib import Path

    Output = pytest.CaptureFixture[str]


@pytest.mark.parametrize("overrides", OVERRIDES)
def test_overrides(overrides: str, tmp_path: Path, capsys: Output) -> None:
    expected = OVERRIDES[overrides]
    # The embedded encoder, which has a path, and no layers to be set.
    small = () if "encoder.path" in overrides or "mirror=/" in overrides else SMALL
    check(train(capsys, tmp_path / "run", *small, *overrides.split(";")), expected)
    assert expected == ACCEPTED or not (tmp_path / "run").exists()
