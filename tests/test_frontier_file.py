"""``multiprune frontier`` leaves its numbers where a report finds them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from application import SMALL, run_in

from multiprune.cli import main
from multiprune.runs.frame import read_run
from multiprune.runs.size_scores import FRONTIER, read_size_scores

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    run_in(folder, *SMALL, "pruner=dynamic_sparsification", "budget.fraction=0.5")
    return folder


def test_numbers_are_left_in_the_folder_of_the_run(finished: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "sizes.json"
    main(["frontier", str(finished), "--json", str(elsewhere)])
    content = json.loads((finished / FRONTIER).read_text())
    assert content["split"] == "validation"
    assert content["sizes"] == json.loads(elsewhere.read_text())
    run = read_run(finished)
    scores = read_size_scores(run)
    assert scores is not None
    kept = [size.kept for size in scores.sizes]
    assert kept == sorted(kept, reverse=True)
    assert (kept[0], kept[-1]) == (run.budget.dense, run.budget.kept)
    # The run is that of its smallest size, which training has evaluated in another way.
    expected = {task: run.score(task, "validation") for task in run.tasks}
    assert scores.sizes[-1].scores == pytest.approx(expected, abs=1e-5)


def test_later_numbers_take_the_place_of_earlier_ones(finished: Path) -> None:
    main(["frontier", str(finished), "--split", "test", "--densities", "1"])
    content = json.loads((finished / FRONTIER).read_text())
    assert content["split"] == "test"
    assert [one["asked"] for one in content["sizes"]] == [1.0]


def test_folder_that_cannot_be_written_ends_with_a_sentence(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere, file = tmp_path / "sizes.json", finished / FRONTIER
    file.unlink(missing_ok=True)
    file.mkdir()
    with pytest.raises(SystemExit, match=r"error: .*frontier\.json cannot be written"):
        main(["frontier", str(finished), "--densities", "1", "--json", str(elsewhere)])
    file.rmdir()
    assert "1.0000" in capsys.readouterr().out
    assert len(json.loads(elsewhere.read_text())) == 1
