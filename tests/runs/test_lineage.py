"""What a run began with is told by the runs before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml
from run_folders import record_with

from multiprune.runs.lineage import lineage_of

if TYPE_CHECKING:
    from pathlib import Path

    from multiprune.runs.record import EarlierRun


def run_in(folder: Path, score: float, overrides: list[str], lineage: list[EarlierRun]) -> Path:
    """Write what a run leaves that matters here."""
    (folder / "model").mkdir(parents=True)
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.dump(overrides))
    record_with(score=score, lineage=lineage).write(folder)
    return folder


def test_chain_of_runs_is_carried_along_with_commands_and_ledgers(tmp_path: Path) -> None:
    first = run_in(tmp_path / "general", 0.3, ["task=mlm"], lineage_of("org/some-encoder"))
    second = run_in(tmp_path / "domain", 0.4, ["encoder.path=general"], lineage_of(str(first)))
    for path in (second, second / "model"):
        chain = lineage_of(str(path))
        assert [earlier.run for earlier in chain] == [str(first), str(second)]
        assert [earlier.command for earlier in chain] == [
            "python train.py task=mlm",
            "python train.py encoder.path=general",
        ]
        assert [earlier.score for earlier in chain] == [0.3, 0.4]
        assert chain[0].ledger == record_with().ledger


def test_encoder_from_elsewhere_has_no_chain(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    assert lineage_of(None) == lineage_of("org/name") == lineage_of(str(tmp_path / "model")) == []


def test_damaged_results_are_refused(tmp_path: Path) -> None:
    for content in ("{", "{}", "[]"):
        (tmp_path / "results.json").write_text(content)
        with pytest.raises(
            ValueError, match=r"results\.json must hold the results of a run, but results\.json"
        ):
            lineage_of(str(tmp_path))
