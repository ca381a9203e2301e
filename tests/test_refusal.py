"""How a command ends: 2 for what the user gave, 1 for what we did, or for a sweep."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import hydra._internal.utils as internal
import pytest
from hydra.errors import HydraException

from multiprune.launching.failures import end_failed_sweep
from multiprune.outcome import JobRefusedError, ended_plainly
from multiprune.refusal import DEFECT, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(autouse=True)
def hydra_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.setattr(internal, "run_and_report", internal.run_and_report)


def raising(error: BaseException) -> Callable[[], NoReturn]:
    """Return what Hydra does when an application raises."""

    def run_job() -> NoReturn:
        raise error

    return lambda: internal.run_and_report(run_job)


@pytest.mark.parametrize(
    "error",
    [
        Refusal("it is wrong"),
        HydraException("it is wrong"),
        SystemExit("error: it is wrong"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_wrong_input_is_one_sentence_and_status_2(
    error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        ended_plainly(raising(error))
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: it is wrong.\n"


def test_defect_keeps_its_traceback_and_says_where_to_report_it() -> None:
    with pytest.raises(KeyError) as ended:
        ended_plainly(raising(KeyError("ours")))
    assert ended.value.__notes__ == [DEFECT]


def test_folder_that_cannot_be_written_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    error = PermissionError(13, "Permission denied", "/a/run")
    with pytest.raises(SystemExit) as ended:
        ended_plainly(raising(error))
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.endswith("can be written, but /a/run cannot: Permission denied.\n")


def failed_sweep() -> None:
    end_failed_sweep([ValueError("x")], jobs=2, sweep="runs")


def refused_job() -> None:
    raise JobRefusedError("x")


@pytest.mark.parametrize("main", [failed_sweep, refused_job])
def test_sweep_of_which_jobs_failed_is_1(main: Callable[[], None]) -> None:
    with pytest.raises(SystemExit, match=r"^error: ") as ended:
        ended_plainly(main)
    # Python writes the sentence and exits with 1.
    assert isinstance(ended.value.code, str)
