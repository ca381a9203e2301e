"""Code of the user that a configuration names, and that fails: a sentence says which it was."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from application import SMALL, refused, run_in

from multiprune.data.source import GeneratedSource
from multiprune.metrics.metric import Metric
from multiprune.metrics.predicted import Classes
from multiprune.runs.status import read_status
from multiprune.tasks.synthetic import agreement
from multiprune.user_code import UserCodeError, calling

if TYPE_CHECKING:
    from pathlib import Path


def looks_up(_: int, __: int) -> dict[str, list[Any]]:
    raise KeyError("sentence")


class OfNothing(Metric):
    accepts = (Classes,)

    def __call__(self, outputs: Any, labels: Any) -> float:  # noqa: ARG002
        return float(len(self.missing))  # type: ignore[attr-defined]


def nothing(**_: Any) -> None:
    return None


def of(name: str) -> str:
    return f"{{_target_: hydra.utils.get_method, path: test_user_code.{name}}}"


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            [f"task.agreement.source.generator={of('looks_up')}"],
            "error: The generator of rows looks_up (train, seed 0) failed with KeyError: "
            "'sentence'.",
        ),
        (
            ["logger.csv._target_=test_user_code.nothing"],
            "error: `logger.csv` must be a Logger such as "
            "multiprune.tracking.csv.MetricsCsv, but is None.",
        ),
        (
            ["encoder._target_=test_user_code.nothing"],
            "error: `encoder` must be an Encoder such as what multiprune.models.encoder.pretrained "
            "returns, but is None.",
        ),
    ],
)
def test_what_fails_before_training_is_named(
    overrides: list[str], sentence: str, tmp_path: Path
) -> None:
    assert refused(tmp_path / "run", *SMALL, *overrides) == sentence


def test_a_metric_that_fails_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as error:
        run_in(tmp_path, *SMALL, "task.agreement.metrics.own._target_=test_user_code.OfNothing")
    assert str(error.value) == (
        "error: The metric 'own', which `metrics` of a task names, failed with AttributeError: "
        "'OfNothing' object has no attribute 'missing'."
    )
    status = read_status(tmp_path)
    assert status is not None
    said = str(error.value).removeprefix("error: ").removesuffix(".")
    assert (status.state, status.reason) == ("failed", said)


def test_a_defect_of_this_package_stays_one() -> None:
    for part in (agreement, partial(agreement, 1), GeneratedSource(generator=agreement, rows={})):
        with pytest.raises(KeyError), calling(part, "It"):
            raise KeyError("sentence")
    with (
        pytest.raises(UserCodeError, match=r"^It failed with KeyError: 'sentence'$"),
        calling(partial(looks_up, 1), "It"),
    ):
        raise KeyError("sentence")
