"""The best ensemble and what stands beside it, on runs whose right answer is known."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from run_folders import EMBEDDINGS, HEAD, LINEAR, OTHER, results, write

from multiprune.budget import CountBudget, FractionBudget
from multiprune.report.compare import MEAN, Spread
from multiprune.report.ensembles import Ensemble, Request, best_ensemble, best_ensembles
from multiprune.report.scores import Scores
from multiprune.runs.frame import Runs as Found
from multiprune.runs.frame import read_runs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# By size: the score of seed 0; that of seed 1 is 0.02 above. Test scores are 0.1 below.
EASY = {100_000: 0.90, 200_000: 0.91, 400_000: 0.92}
HARD = {100_000: 0.50, 200_000: 0.60, 400_000: 0.80}
EXAMPLES = {"easy": 300, "hard": 100}


class Runs:
    """A folder of runs that grows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0

    def add(self, validation: Mapping[str, float], **described: Any) -> None:
        content = results(validation, **({"examples": EXAMPLES} | described))
        write(self.folder / f"{self.count:03}", content)
        self.count += 1

    def add_curve(self, task: str, curve: Mapping[int, float], **described: Any) -> None:
        for kept, score in curve.items():
            for seed in (0, 1):
                value = score + 0.02 * seed
                self.add({task: value}, kept=kept, seed=seed, test={task: value - 0.1}, **described)

    def found(self) -> Found:
        return read_runs(self.folder)

    def scores(self, ensemble: Ensemble, name: str, split: str = "validation") -> dict[str, Spread]:
        return Scores(self.found().finished).spreads(ensemble.candidates[name], split)

    def ensemble(self, budget: int, **asked: Any) -> Ensemble:
        request = Request(CountBudget(count=budget, of=asked.pop("of", "encoder_linear")), **asked)
        return best_ensemble("Magnitude", self.found().finished, request)


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    runs = Runs(tmp_path / "runs")
    runs.add_curve("easy", EASY)
    runs.add_curve("hard", HARD)
    return runs


def test_room_goes_where_it_helps_most(runs: Runs) -> None:
    ensemble = runs.ensemble(500_000)
    best = ensemble.candidates["best"]
    assert ensemble.tasks == ("easy", "hard")
    assert best.sizes == {"easy": 100_000, "hard": 400_000}
    assert best.parameters == 500_000
    found = runs.scores(ensemble, "best")
    easy, mean = found["easy"], found[MEAN]
    assert (easy.low, easy.mean, easy.high) == pytest.approx((0.90, 0.91, 0.92))
    assert easy.seeds == 2
    assert (mean.low, mean.mean, mean.high) == pytest.approx((0.85, 0.86, 0.87))
    assert runs.scores(ensemble, "best", "test")[MEAN].mean == pytest.approx(0.76)


def test_uniform_and_proportional_shares_stand_beside(runs: Runs) -> None:
    ensemble = runs.ensemble(550_000)
    # 275,000 each; 412,500 and 137,500 as 300 to 100 examples.
    assert ensemble.candidates["uniform"].sizes == {"easy": 200_000, "hard": 200_000}
    assert ensemble.candidates["proportional"].sizes == {"easy": 400_000, "hard": 100_000}
    assert ensemble.candidates["proportional"].parameters == 500_000


def test_share_that_holds_no_size_is_refused_alone(runs: Runs) -> None:
    ensemble = runs.ensemble(300_000)
    assert ensemble.candidates["best"].sizes == {"easy": 100_000, "hard": 200_000}
    assert "proportional" not in ensemble.candidates
    expected = "that of hard is 75,000 parameters and its nearest trained sizes are 100,000"
    assert expected in ensemble.refused["proportional"]


def test_choice_does_not_look_at_test_scores(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    runs.add({"easy": 0.9}, kept=100, test={"easy": 0.1})
    runs.add({"easy": 0.8}, kept=90, test={"easy": 0.99})
    assert runs.ensemble(100).candidates["best"].sizes == {"easy": 100}


def test_test_scores_are_averaged_over_the_tasks_that_have_them(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    runs.add({"easy": 0.9}, kept=100, test={"easy": 0.7})
    runs.add({"hard": 0.5}, kept=100)
    found = runs.scores(runs.ensemble(200), "best", "test")
    assert set(found) == {"easy", MEAN}
    assert found[MEAN].mean == 0.7


def test_spread_of_a_mean_is_unknown_if_tasks_differ_in_seeds(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    for seed, score in ((0, 0.2), (1, 0.4)):
        runs.add({"easy": score}, kept=10, seed=seed)
    runs.add({"hard": 0.5}, kept=10, seed=0)
    mean = runs.scores(runs.ensemble(20), "best")[MEAN]
    assert mean.mean == pytest.approx(0.4)
    assert (mean.low, mean.high, mean.seeds) == (None, None, 1)


def test_seeds_that_keep_different_numbers_are_one_size_the_largest(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    runs.add({"easy": 0.9}, kept=95, asked=100, seed=0)
    runs.add({"easy": 0.7}, kept=99, asked=100, seed=1)
    best = runs.ensemble(99).candidates["best"]
    assert best.sizes == {"easy": 99}
    assert [run.seed for run in best.runs["easy"]] == [0, 1]
    with pytest.raises(ValueError, match="its only trained size is 99"):
        runs.ensemble(98)


def test_best_multitask_run_within_the_budget_stands_beside(runs: Runs) -> None:
    for kept, score in ((300_000, 0.7), (500_000, 0.75), (600_000, 0.99)):
        for seed in (0, 1):
            scores = {"hard": score, "easy": score + 0.1}
            runs.add(scores, kept=kept, seed=seed, test={"easy": 0.4 + 0.1 * seed})
    ensemble = runs.ensemble(500_000)
    multitask = ensemble.candidates["multitask"]
    assert multitask.parameters == 500_000
    assert [run.budget.kept for run in multitask.runs["easy"]] == [500_000, 500_000]
    mean, test = (runs.scores(ensemble, "multitask", one)[MEAN] for one in ("validation", "test"))
    assert mean.mean == pytest.approx(0.8)
    assert test.mean == pytest.approx(0.45)
    assert test.seeds == 2
    assert "the smallest has 300,000" in runs.ensemble(299_999).refused["multitask"]


def test_multitask_runs_of_another_mixing_are_not_further_seeds(runs: Runs) -> None:
    scores = {"easy": 0.5, "hard": 0.5}
    runs.add(scores, kept=100_000, seed=0)
    other = results({"easy": 0.6, "hard": 0.6}, kept=100_000, seed=1, examples=EXAMPLES)
    other["config"]["data"]["mixing"] = {"_target_": "Uniform"}
    write(runs.folder / "other", other)
    multitask = runs.ensemble(500_000).candidates["multitask"]
    assert [one.path.name for one in multitask.runs["easy"]] == ["other"]


def test_multitask_runs_of_other_tasks_are_skipped(runs: Runs) -> None:
    runs.add({"easy": 0.9, "hard": 0.9, "third": 0.9}, kept=10)
    runs.add({"easy": 0.9, "fourth": 0.9}, kept=10)
    ensemble = runs.ensemble(500_000)
    assert "No multitask run has exactly these tasks" in ensemble.refused["multitask"]
    assert [(one.path.name, one.reason) for one in ensemble.skipped] == [
        ("012", "multitask, but there is no single-task run of third"),
        ("013", "multitask, but there is no single-task run of fourth"),
    ]


def test_repeated_run_is_skipped_and_is_no_seed_of_its_own(runs: Runs) -> None:
    runs.add({"hard": 0.9}, kept=400_000, seed=0)
    ensemble = runs.ensemble(500_000)
    assert [run.path.name for run in ensemble.candidates["best"].runs["hard"]] == ["012", "011"]
    (skipped,) = ensemble.skipped
    assert skipped.path.name == "010"
    assert skipped.reason == f"repeated by {runs.folder / '012'}"


def test_denominator_is_counted_in_each_model(runs: Runs) -> None:
    fixed = EMBEDDINGS + OTHER
    ensemble = runs.ensemble(2 * fixed + 500_000, of="encoder")
    assert ensemble.candidates["best"].sizes == {"easy": fixed + 100_000, "hard": fixed + 400_000}
    ensemble = runs.ensemble(2 * (fixed + HEAD) + 500_000, of="total")
    assert ensemble.candidates["best"].parameters == 2 * (fixed + HEAD) + 500_000
    with pytest.raises(ValueError, match="must hold a trained size of each of 2 tasks"):
        runs.ensemble(500_000, of="total")


def test_fraction_is_of_one_dense_model_with_all_heads(runs: Runs) -> None:
    dense = {"encoder_linear": LINEAR, "total": LINEAR + EMBEDDINGS + OTHER + 2 * HEAD}
    for of, whole in dense.items():
        budget = FractionBudget(fraction=0.75, of=of)
        ensemble = best_ensemble("Magnitude", runs.found().finished, Request(budget))
        assert ensemble.dense == whole
        assert ensemble.budget == int(0.75 * whole)


def test_shared_embeddings_count_once(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    runs.add_curve("easy", EASY, frozen=True)
    runs.add_curve("hard", HARD, frozen=True)
    budget = EMBEDDINGS + 2 * OTHER + 500_000
    ensemble = runs.ensemble(budget, of="encoder", shared_embeddings=True)
    best = ensemble.candidates["best"]
    assert ensemble.shared == EMBEDDINGS
    assert best.sizes == {"easy": OTHER + 100_000, "hard": OTHER + 400_000}
    assert best.parameters == budget
    # Half of what is left beside the embeddings.
    assert ensemble.candidates["uniform"].sizes == dict.fromkeys(("easy", "hard"), OTHER + 200_000)
    with pytest.raises(ValueError, match="must hold the shared embeddings, but those are 300,000"):
        runs.ensemble(200_000, of="encoder", shared_embeddings=True)


def test_embeddings_that_were_trained_or_are_not_counted_cannot_be_shared(runs: Runs) -> None:
    with pytest.raises(ValueError, match=re.escape(f"but in {runs.folder}/000 they were not")):
        runs.ensemble(10**6, of="total", shared_embeddings=True)
    with pytest.raises(ValueError, match="that counts them, but encoder_linear does not"):
        Request(CountBudget(count=10), shared_embeddings=True)


def test_unknown_numbers_of_examples_refuse_the_proportional_split_only(tmp_path: Path) -> None:
    content = results({"easy": 0.5}, kept=10)
    del content["examples"]
    write(tmp_path / "old", content)
    ensemble = Runs(tmp_path).ensemble(20)
    assert set(ensemble.candidates) == {"best", "uniform"}
    assert f"the results of {tmp_path / 'old'} do not hold it" in ensemble.refused["proportional"]


def test_methods_are_shared_out_one_by_one(runs: Runs) -> None:
    runs.add({"easy": 0.9}, kept=600_000, pruner="Movement")
    runs.add({"hard": 0.9}, kept=100_000, pruner="Movement")
    runs.add({"easy": 0.9, "hard": 0.9}, kept=100_000, pruner="LowRank")
    ensembles = best_ensembles(runs.found(), Request(CountBudget(count=500_000)))
    assert [one.method for one in ensembles.found] == ["Magnitude"]
    assert list(ensembles.refused) == ["LowRank", "Movement"]
    assert "No single-task runs: all are multitask" in ensembles.refused["LowRank"]
    assert "its only trained size is 600,000" in ensembles.refused["Movement"]
    with pytest.raises(ValueError, match=r"^LowRank: .*\. Magnitude: .*\. Movement: .*\.$"):
        best_ensembles(runs.found(), Request(CountBudget(count=5)))


def test_multitask_runs_alone_are_an_error(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    runs.add({"easy": 0.9, "hard": 0.9}, kept=10)
    runs.add({"easy": 0.9, "hard": 0.9}, kept=20, pruner="LowRank")
    with pytest.raises(ValueError, match="No single-task runs: all 2 are multitask"):
        best_ensembles(runs.found(), Request(CountBudget(count=50)))


def test_nothing_finished_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "run" / ".hydra").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"run: unfinished: it has no results\.json"):
        best_ensembles(read_runs(tmp_path), Request(CountBudget(count=5)))
