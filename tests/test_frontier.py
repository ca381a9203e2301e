"""One run with every size: what it writes, and what each size scores."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import torch
from application import ROOT, SMALL, run_in, save_untrained

from multiprune.cli import main
from multiprune.export.convert import ExportSettings, export_model
from multiprune.export.dynamic import DynamicModel
from multiprune.export.loading import load, load_sizes
from multiprune.export.shipped import ShippedModel
from multiprune.frontier import Size, frontier
from multiprune.measure.cost import parameters
from multiprune.models.encoder import Encoder
from multiprune.specialize.origin import read_origin
from multiprune.tasks.answers import answers_to, joined
from multiprune.tasks.scores import scores_of

if TYPE_CHECKING:
    from pathlib import Path

DYNAMIC = (
    *SMALL,
    "pruner=dynamic_sparsification",
    "pruner.granularity=[heads,neurons,layers]",
    "encoder.layers=2",
    "budget.fraction=0.4",
    "schedule.stop=0.6",
)
#: A block of Python in a README.
PYTHON = r"```python\n(.*?)```"
TASKS = ["agreement", "entailment", "quantity", "roles"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("dynamic")
    run_in(folder, *DYNAMIC)
    return folder


def test_example_of_the_readme_takes_the_density_that_it_asks_for(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = (ROOT / "README.md").read_text()
    (example,) = [one for one in re.findall(PYTHON, readme, re.S) if "set_density" in one]
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "every-size").symlink_to(run)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(example, "README.md", "exec"), names)
    sizes = load_sizes(run).order.sizes
    assert names["model"].size == max(size for size in sizes.tolist() if size <= 0.5 * sizes[0])
    assert names["logits"].shape == (1, 2)


def results_of(run: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((run / "results.json").read_text())
    return results


@torch.no_grad()
def scored(run: Path, model: ShippedModel, split: str) -> dict[str, dict[str, float]]:
    """Evaluate a model row by row."""
    origin, encoder = read_origin(run), Encoder(model.encoder, model.tokenizer)
    found = {}
    for name in TASKS:
        encoded = origin.encoded(name, encoder)
        answers = []
        for row in range(len(encoded.splits[split])):
            batch = encoded.batch(split, [row])
            answers.append(answers_to(encoded.task, batch, model(name, batch.inputs)))
        together = encoded.task.output.combined(joined(answers))
        found[name] = scores_of(encoded.task, together, encoded.evaluated.get(split))
    return found


def assert_same_scores(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Correlations read logits, whose last bits depend on how long the texts of a batch are."""
    assert found.keys() == expected.keys()
    for task, scores in expected.items():
        assert found[task] == pytest.approx(scores, rel=1e-5, abs=1e-7)


def test_model_of_the_run_is_the_smallest_and_meets_the_budget(run: Path) -> None:
    results, model = results_of(run), load(run)
    assert type(model) is ShippedModel
    budget = results["budget"]
    # Two layers of width 16: four projections of 16 x 16 and two of 16 x 32 each.
    assert budget["dense"] == 4096
    assert budget["kept"] <= budget["asked"] == 1638
    linear = [one for one in model.encoder.modules() if isinstance(one, torch.nn.Linear)]
    assert sum(one.weight.numel() for one in linear) == budget["kept"]


def test_sizes_of_the_run_go_from_the_whole_to_its_budget(run: Path) -> None:
    model, budget = load(run / "sizes"), results_of(run)["budget"]
    assert isinstance(model, DynamicModel)
    assert model.of == budget["scope"]
    assert int(model.order.sizes[0]) == budget["dense"]
    assert int(model.order.sizes[-1]) == budget["kept"]
    model.set_density(model.smallest_density)
    texts = ["the red dog chased one cat", "a fox"]
    for task in ("agreement", "quantity"):
        pairs = None if len(read_origin(run).config["task"][task]["text"]) == 1 else texts
        torch.testing.assert_close(
            model.logits(task, texts, pairs), load(run).logits(task, texts, pairs)
        )


@pytest.mark.parametrize("split", ["validation", "test"])
def test_ends_of_the_frontier_score_what_the_run_and_its_whole_do(run: Path, split: str) -> None:
    largest, smallest = frontier(run, [load_sizes(run).smallest_density, 1.0], split=split)
    results = results_of(run)
    assert_same_scores(smallest.scores, results[split])
    assert smallest.kept == results["budget"]["kept"]
    assert largest.kept == results["budget"]["dense"]
    assert largest.density == 1
    if split == "validation":
        assert smallest.score == pytest.approx(results["score"], rel=1e-5)
    whole = load(run / "sizes")
    assert_same_scores(largest.scores, scored(run, whole, split))
    assert largest.parameters == parameters(whole.encoder)
    assert smallest.parameters == parameters(load(run).encoder)
    tables = [one for one in whole.encoder.modules() if isinstance(one, torch.nn.Embedding)]
    for one in (largest, smallest):
        assert one.parameters - one.without_embeddings == sum(map(parameters, tables))
        first = [next(iter(scores.values())) for scores in one.scores.values()]
        assert one.score == pytest.approx(sum(first) / len(first))
        assert list(one.scores) == TASKS


def test_size_between_scores_what_its_export_does(run: Path, tmp_path: Path) -> None:
    (found,) = frontier(run, [0.6], split="validation")
    assert 0.5 < found.density <= 0.6
    export_model(run, tmp_path / "out", ExportSettings(), density=0.6)
    exported = load(tmp_path / "out")
    assert_same_scores(found.scores, scored(run, exported, "validation"))
    assert found.parameters == parameters(exported.encoder)


def test_command_shows_every_tenth_and_the_smallest_and_writes_them(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "sizes.json"
    main(["frontier", str(run), "--split", "test", "--json", str(file)])
    shown = capsys.readouterr().out
    rows = [Size(**one) for one in json.loads(file.read_text())]
    smallest = load_sizes(run).smallest_density
    asked = [tenth / 10 for tenth in range(10, 0, -1) if tenth / 10 > smallest]
    assert len(rows) == len(asked) + 1
    for row, most in zip(rows, [*asked, smallest], strict=True):
        assert row.density <= most
        assert f"{row.density:.4f}" in shown
        assert f"{row.kept:,}" in shown
    assert rows[-1].density == smallest
    assert_same_scores(rows[-1].scores, results_of(run)["test"])
    assert rows == frontier(run, None, split="test")
    assert all(task in shown for task in TASKS)


@pytest.mark.parametrize("density", ["0.1", "1.5", "nan", "0.5,0"])
def test_densities_that_were_not_trained_are_refused(run: Path, density: str) -> None:
    with pytest.raises(ValueError, match=r"must be in \[0\.\d+, 1\], for which the model was"):
        frontier(run, [float(one) for one in density.split(",")], split="validation")


def test_run_of_a_single_size_is_refused(tmp_path: Path) -> None:
    save_untrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="is not a dynamic model"):
        frontier(tmp_path, None, split="validation")
