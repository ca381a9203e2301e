"""What trackers are told, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from application import run_in
from pytorch_lightning.loggers.logger import DummyLogger
from tracked_world import description, outcome
from typing_extensions import override

from multiprune.tracking import tracker as tracking
from multiprune.tracking.tracker import Tracker, conclude, tracked

if TYPE_CHECKING:
    from pathlib import Path


class Noting(DummyLogger, Tracker):
    """Notes what it is told."""

    def __init__(self, *, predictions: int = 0, model: bool = False) -> None:
        super().__init__()
        self.predictions, self.keeps_model = predictions, model
        self.told: list[tuple[Any, ...]] = []

    @override
    def begin(self, description: Any) -> None:
        self.told.append(("begin", description.name))

    @override
    def summarize(self, summary: Any, step: int) -> None:
        self.told.append(("summarize", summary["score"], step))

    @override
    def draw(self, name: str, image: Any, step: int) -> None:
        self.told.append(("draw", name, step))

    @override
    def tabulate(self, name: str, table: Any, step: int) -> None:
        self.told.append(("tabulate", name, len(table.rows)))

    @override
    def keep_model(self, folder: Path) -> None:
        self.told.append(("keep_model", folder.name))

    @override
    def close(self, *, succeeded: bool) -> None:
        self.told.append(("close", succeeded))


def test_every_tracker_is_told_what_it_is_asked_for(tmp_path: Path) -> None:
    frugal, greedy = Noting(), Noting(predictions=5, model=True)
    with tracked([frugal, greedy], description(name="one")):
        conclude([frugal, greedy], outcome(tmp_path / "model"))
    always = [("summarize", 0.75, 12), ("draw", "density_by_layer", 12)]
    assert frugal.told == [("begin", "one"), *always, ("close", True)]
    asked = [("tabulate", "predictions/rte", 1), ("keep_model", "model")]
    assert greedy.told == [("begin", "one"), *always, *asked, ("close", True)]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_every_failure_ends_the_run_as_failed(error: type[BaseException]) -> None:
    tracker = Noting()
    with pytest.raises(error), tracked([tracker], description(name="one")):
        raise error
    assert tracker.told == [("begin", "one"), ("close", False)]


def test_any_other_logger_gets_the_configuration() -> None:
    class Plain(DummyLogger):
        @override
        def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
            self.params = params

    logger = Plain()
    with tracked([logger], description(config={"seed": 3})):
        conclude([logger], outcome(None))  # type: ignore[arg-type]
    assert logger.params == {"seed": 3}


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_logger_that_is_not_installed_is_one_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda _: None)
    with pytest.raises(SystemExit) as error:
        run_in(tmp_path / "run", "trainer=cpu", f"logger={name}")
    assert str(error.value) == (
        f"error: `logger={name}` needs the package {name}, which is not installed: "
        f"pip install 'multiprune[{name}]'."
    )
    assert not (tmp_path / "run").exists()
