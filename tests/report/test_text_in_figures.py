"""Text from data is shown as it is, and every refusal says something."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from run_folders import results, write

import multiprune.cli as commands
from multiprune.cli import main
from multiprune.report.outcome import density_map

if TYPE_CHECKING:
    from pathlib import Path

NAME = r"$\frac{$ a_b^c <i> %s {x}"


def test_a_name_is_no_mathematics(tmp_path: Path) -> None:
    for seed in (0, 1):
        for kept in (1000, 2000):
            folder = tmp_path / "runs" / f"{kept}-{seed}"
            write(folder, results({NAME: 0.5, r"\$5": 0.6 + seed / 10}, kept=kept, seed=seed))
            for name in (NAME, r"\$5"):
                write(folder / f"{len(name)}", results({name: 0.5}, kept=kept, seed=seed))
                (folder / f"{len(name)}").rename(tmp_path / "runs" / f"{kept}-{seed}-{len(name)}")
    main(["report", str(tmp_path / "runs"), "--out", str(tmp_path / "report")])
    figures = [file.read_text() for file in (tmp_path / "report").glob("*.svg")]
    assert any(r"$\frac{$ a_b^c &lt;i&gt; %s {x}" in figure for figure in figures)
    assert not any("mathdefault" in figure for figure in figures)


def test_a_layer_is_no_mathematics() -> None:
    assert density_map({r"model.encoder.layer.0.$\frac{$.weight": 0.5}).size > (0, 0)


@pytest.mark.parametrize("error", [ValueError(), ValueError("\n \nwhy\nmore"), OSError("")])
def test_no_command_ends_with_an_empty_message(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("multiprune.runs.jobs.read_jobs", fail)
    monkeypatch.setattr(commands, "exit_quickly", lambda: None)
    with pytest.raises(SystemExit) as ended:
        main(["status", str(tmp_path)])
    said = "why" if "why" in str(error) else type(error).__name__
    assert str(ended.value) == f"error: {said}."
