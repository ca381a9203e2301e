"""How a sweep ends in which jobs failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from multiprune.launching.failures import (
    BASIC_SWEEPER,
    FirstFailures,
    StoppedEarlyError,
    conclude,
)
from multiprune.launching.progress import SweepProgress
from multiprune.runs.status import GaveUpError

if TYPE_CHECKING:
    from omegaconf import DictConfig


def returned(value: object) -> JobReturn:
    job = JobReturn(_return_value=value)
    job.status = JobStatus.FAILED if isinstance(value, Exception) else JobStatus.COMPLETED
    return job


def config(sweeper: str = BASIC_SWEEPER) -> DictConfig:
    return OmegaConf.create(
        {"hydra": {"sweeper": {"_target_": sweeper}, "sweep": {"dir": "runs/my sweep"}}}
    )


def test_sweep_with_failures_ends_in_one_line() -> None:
    jobs = [returned(1.0), returned(ValueError("no")), returned(OSError("never"))]
    with pytest.raises(SystemExit) as ended:
        conclude(jobs, config())
    assert ended.value.code == (
        "error: 2 of 3 jobs failed; `multiprune status 'runs/my sweep'` shows them."
    )


def test_first_failure_itself_is_shown_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(OSError, match="never"):
        conclude([returned(OSError("never")), returned(ValueError("no"))], config())


def test_jobs_that_gave_up_are_no_failures_and_other_sweepers_see_them() -> None:
    error: Any = GaveUpError("Three were better.")
    assert [one.return_value for one in conclude([returned(error), returned(2)], config())] == [
        None,
        2,
    ]
    jobs = [returned(error), returned(ValueError("no"))]
    assert conclude(jobs, config("another")) is jobs
    assert jobs[0]._return_value is error


def test_sweep_whose_first_jobs_fail_alike_is_stopped() -> None:
    first = FirstFailures(3, "runs/sweep")
    first.ended(ValueError("/runs/0/data is missing in try 1."))
    first.ended(ValueError("/runs/1/data is missing in try 2.\nMore of this."))
    with pytest.raises(StoppedEarlyError) as ended:
        first.ended(ValueError("/runs/2/data is missing in try 3."))
    assert ended.value.code == (
        "error: Stopped by hydra.launcher.fail_fast, as the first 3 jobs failed alike: "
        "/runs/2/data is missing in try 3. (`multiprune status runs/sweep` shows them.)"
    )


@pytest.mark.parametrize("other", [None, ValueError("something else")])
def test_sweep_whose_jobs_end_differently_goes_on(other: Exception | None) -> None:
    first = FirstFailures(2, "runs/sweep")
    first.ended(ValueError("no"))
    first.ended(other)
    for _ in range(5):
        first.ended(ValueError("no"))


def test_sweep_that_is_not_to_be_stopped_goes_on() -> None:
    first = FirstFailures(None, "runs/sweep")
    for _ in range(5):
        first.ended(ValueError("no"))


def test_limit_of_failures_is_a_number_of_jobs() -> None:
    with pytest.raises(ValueError, match=r"`hydra\.launcher\.fail_fast` must be a whole"):
        FirstFailures(0, "runs/sweep")


def test_job_that_gave_up_is_not_counted_as_failed(capsys: pytest.CaptureFixture[str]) -> None:
    with SweepProgress(["#0", "#1"], workers=1) as progress:
        progress.ended(0, "Three were better.", gave_up=True)
        progress.ended(1, "no")
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("gave up after 0 s: #0: Three were better. (1 of 2 done, 0 running, 0 ")
    assert second == "failed after 0 s: #1: no (2 of 2 done, 0 running, 1 failed)"
