from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from multiprune.report.folder import check_replaceable, report_folder

if TYPE_CHECKING:
    from pathlib import Path


def fill(folder: Path, *names: str) -> None:
    with report_folder(folder) as beside:
        for name in names:
            (beside / name).write_text(name)


def contents(folder: Path) -> set[str]:
    return {one.name for one in folder.iterdir() if one.name[0] != "."}


def test_new_empty_and_own_folders_are_written(tmp_path: Path) -> None:
    fill(tmp_path / "deep" / "new", "a", "b")
    fill(tmp_path / "deep" / "new", "b", "c")
    assert contents(tmp_path / "deep" / "new") == {"b", "c"}
    (tmp_path / "empty").mkdir()
    fill(tmp_path / "empty", "a")
    assert contents(tmp_path / "empty") == {"a"}
    assert contents(tmp_path) == {"deep", "empty"}


def test_anything_else_is_refused_and_stays(tmp_path: Path) -> None:
    fill(tmp_path / "report", "a")
    (tmp_path / "report" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"over another report, but .*report holds notes\.txt"):
        fill(tmp_path / "report", "b")
    assert contents(tmp_path / "report") == {"a", "notes.txt"}
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match=r"but .*file is a file"):
        check_replaceable(tmp_path / "file")


def test_failure_leaves_the_earlier_report(tmp_path: Path) -> None:
    fill(tmp_path / "report", "a")

    def fail() -> None:
        with report_folder(tmp_path / "report") as beside:
            (beside / "b").write_text("half")
            raise RuntimeError("disk")

    with pytest.raises(RuntimeError, match="disk"):
        fail()
    assert contents(tmp_path / "report") == {"a"}
    assert [one.name for one in tmp_path.iterdir()] == ["report"]
