"""The sweeper that lets Optuna propose runs, on runs that compute a formula."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

optuna = pytest.importorskip("optuna", reason="optuna is not installed")

from optuna.distributions import (  # noqa: E402
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from hydra_plugins.multiprune_optuna_study._space import search_space  # noqa: E402
from hydra_plugins.multiprune_optuna_study.sweeper import OptunaStudy  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

APPLICATION = """
import json, os, pathlib
import hydra
from hydra.core.hydra_config import HydraConfig
from multiprune.runs.status import GaveUpError

@hydra.main(version_base="1.3", config_path=None, config_name=None)
def main(config):
    hydra_config = HydraConfig.get()
    folder = pathlib.Path(hydra_config.runtime.output_dir)
    with open(folder / "started", "a") as file:
        file.write("once\\n")
    number = hydra_config.job.num
    if number == config.get("killed_at", -1) and not (folder / "killed").exists():
        (folder / "killed").touch()
        os._exit(9)
    if number == config.get("gives_up_at", -1):
        raise GaveUpError("Three were better.")
    if number == config.get("fails_at", -1):
        raise ValueError("This one is bad.")
    if number != config.get("empty_at", -1):
        results = {"score": config.x * (2 - config.x), "budget": {"kept": config.x}}
        (folder / "results.json").write_text(json.dumps(results | {"x": config.x}))

main()
"""

SPACE = ("hydra/sweeper=optuna_study", "hydra.sweeper.trials=6", "+x=interval(0,2)")
SEEDED = "+hydra.sweeper.sampler={_target_: optuna.samplers.RandomSampler, seed: 3}"
PARETO = "hydra.sweeper.objectives=[maximize score,minimize budget.kept]"


def study(folder: Path, *overrides: str, code: int = 0) -> str:
    """Run a study in ``folder``; return what it has said."""
    application = folder.parent / "application.py"
    application.write_text(APPLICATION)
    command = [sys.executable, str(application), "-m", *SPACE, f"hydra.sweep.dir={folder}"]
    done = subprocess.run(
        [*command, *overrides], capture_output=True, text=True, check=False, env=os.environ.copy()
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def results(folder: Path) -> dict[int, dict[str, Any]]:
    return {
        int(file.parent.name): json.loads(file.read_text())
        for file in folder.glob("*/results.json")
    }


def states(folder: Path) -> list[str]:
    """Return what Optuna itself has noted of the trials."""
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "study.journal"))
    storage = optuna.storages.JournalStorage(backend)
    loaded = optuna.load_study(study_name=folder.name, storage=storage)
    return [trial.state.name for trial in loaded.trials]


def best_trials(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "best_trials.json").read_text())
    return found


def test_what_no_run_beats_in_score_and_size_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    study(folder, PARETO, SEEDED, "hydra.sweeper.batch=4")
    runs = results(folder)
    assert sorted(runs) == list(range(6))
    unbeaten = {
        number
        for number, one in runs.items()
        if not any(
            other["score"] > one["score"] and other["budget"]["kept"] < one["budget"]["kept"]
            for other in runs.values()
        )
    }
    best = best_trials(folder)
    assert {one["trial"] for one in best} == unbeaten
    assert [one["budget.kept"] for one in best] == sorted(one["budget.kept"] for one in best)
    for one in best:
        assert one["params"]["+x"] == runs[one["trial"]]["x"]


@pytest.mark.slow
def test_stopped_study_goes_on_with_the_runs_that_were_under_way(tmp_path: Path) -> None:
    folder, whole = tmp_path / "study", tmp_path / "whole"
    study(folder, SEEDED, "+killed_at=2", "hydra.sweeper.batch=3", code=9)
    assert sorted(results(folder)) == [0, 1]
    study(folder, SEEDED, "+killed_at=2", "hydra.sweeper.batch=3")
    study(whole, SEEDED, "hydra.sweeper.batch=3")
    assert sorted(results(folder)) == sorted(results(whole)) == list(range(6))
    # What was proposed before the stop is what runs after it.
    for number in range(3):
        assert results(folder)[number]["x"] == results(whole)[number]["x"]
    assert (folder / "3" / "started").read_text() == "once\n"
    assert "Not beaten" in study(folder, SEEDED)
    assert len(results(folder)) == 6


def test_runs_that_fail_do_not_stop_the_others(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    fates = ("+fails_at=1", "+empty_at=3", "+gives_up_at=4")
    said = study(folder, SEEDED, *fates, "hydra.sweeper.batch=2", code=1)
    assert said.endswith(f"error: 2 of 6 jobs failed; `multiprune status {folder}` shows them.\n")
    assert "Traceback" not in said
    assert "Trial 4 gave up: Three were better." in said
    assert "Trial 1 failed: This one is bad." in said
    assert "Trial 3 failed: " in said
    assert sorted(results(folder)) == [0, 2, 5]
    assert states(folder) == ["COMPLETE", "FAIL", "COMPLETE", "FAIL", "PRUNED", "COMPLETE"]
    (best,) = best_trials(folder)
    assert best["score"] == max(one["score"] for one in results(folder).values())


def test_study_in_which_all_runs_fail_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    said = study(folder, "hydra.sweeper.trials=1", "+fails_at=0", code=1)
    assert "error: 1 of 1 jobs failed;" in said
    again = study(folder, "hydra.sweeper.trials=1", code=1)
    assert again == f"error: No run of the study in {folder} has finished.\n"


@pytest.mark.slow
def test_other_objectives_do_not_go_on_with_a_study(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    study(folder, "hydra.sweeper.trials=1")
    said = study(folder, "hydra.sweeper.objectives=[minimize score]", code=1)
    assert "has the objectives {'score': 'maximize'}" in said
    assert "Traceback" not in said


def test_objectives_have_a_direction(tmp_path: Path) -> None:
    said = study(tmp_path / "study", "hydra.sweeper.objectives=[up score]", code=1)
    assert said == (
        "error: Objectives must be `maximize KEY` or `minimize KEY` of results.json, but are "
        "['up score'].\n"
    )


def space_of(*lines: str) -> Any:
    return search_space(OverridesParser.create().parse_overrides(list(lines)))


def test_hydra_sweeps_are_optuna_distributions() -> None:
    space = space_of(
        "a=interval(0.5,8)",
        "b=int(interval(1,8))",
        "c=tag(log,interval(1e-5,1e-3))",
        "d=range(0,9,2)",
        "group/e=x,y",
        "+f=choice([a,b],c)",
        "g=1",
        "~h",
    )
    assert space.distributions == {
        "a": FloatDistribution(0.5, 8.0),
        "b": IntDistribution(1, 8),
        "c": FloatDistribution(1e-5, 1e-3, log=True),
        "d": IntDistribution(0, 8, step=2),
        "group/e": CategoricalDistribution(["x", "y"]),
        "+f": CategoricalDistribution(["[a,b]", "c"]),
    }
    chosen = {"a": 0.75, "b": 3, "c": 1e-4, "d": 4, "group/e": "y", "+f": "[a,b]"}
    assert space.overrides(chosen) == [
        "g=1", "~h", "a=0.75", "b=3", "c=0.0001", "d=4", "group/e=y", "+f=[a,b]",
    ]  # fmt: skip


def test_the_last_of_several_overrides_counts() -> None:
    space = space_of("a=interval(0,1)", "b=choice(x,y)", "a=3")
    assert list(space.distributions) == ["b"]
    assert space.fixed == ["a=3"]


@pytest.mark.parametrize("line", ["a=range(0,1,0.1)", "a=range(5,1,-1)"])
def test_ranges_that_cannot_be_searched_are_refused(line: str) -> None:
    with pytest.raises(ValueError, match="is not supported"):
        space_of(line)


def test_nothing_to_search_is_refused() -> None:
    with pytest.raises(ValueError, match="has nothing to search"):
        space_of("a=1")


@pytest.mark.parametrize("setting", ["trials", "batch"])
def test_numbers_of_the_sweeper_are_checked(setting: str) -> None:
    given: dict[str, Any] = {"trials": 3, "batch": 1, setting: 0}
    with pytest.raises(SystemExit) as ended:
        OptunaStudy(objectives=["maximize score"], **given)
    assert str(ended.value) == (
        f"error: `hydra.sweeper.{setting}` must be a whole number of at least 1, but is 0."
    )
