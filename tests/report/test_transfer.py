"""Chains of made-up runs, from pretraining to tasks, whose names and scores are known by hand."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from run_folders import LINEAR, results, task_config, write

from multiprune.cli import main
from multiprune.report.page.format import cells
from multiprune.report.questions import compared, runs, transfer
from multiprune.report.study import Study
from multiprune.report.write import Report
from multiprune.runs.frame import read_run, read_runs
from multiprune.runs.lineage import described

if TYPE_CHECKING:
    from pathlib import Path

    from multiprune.report.page.section import Section, Table

KEPT = 200_000
MASKED = "multiprune.tasks.masked_language.MaskedLanguage"


def stage(
    task: str, *before: dict[str, Any], kept: int = LINEAR, mask: str = "all", **changed: Any
) -> dict[str, Any]:
    """Return the results of a run that goes on where the last of ``before`` has ended."""
    score, seed = changed.pop("score", 0.5), changed.pop("seed", 0)
    content = results({task: score}, kept=kept, seed=seed, test=changed.pop("test", None))
    content |= {"mask_sha256": mask, "lineage": list(before), "steps": changed.pop("steps", 100)}
    if before:
        encoder = {"_target_": "multiprune.models.encoder.pretrained", "path": f"runs/{seed}"}
        content["config"]["encoder"] = encoder
    content["config"] |= changed
    return content


def masked(
    task: str, *before: dict[str, Any], perplexity: float = 9.0, **changed: Any
) -> dict[str, Any]:
    """Return the results of a run of masked language modelling."""
    content = stage(task, *before, **changed)
    content["config"]["task"] = {task: task_config(task, _target_=MASKED)}
    content["validation"] = {task: {"accuracy": 0.3, "f1": 0.0, "perplexity": perplexity}}
    return content


class World:
    """The five chains of ``sweep/sparse_transfer.yaml``, of two tasks and two seeds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for seed in (0, 1):
            self._add(seed)

    def _add(self, seed: int) -> None:
        sparse: dict[str, Any] = {"kept": KEPT, "mask": f"sparse-{seed}", "seed": seed}
        general = masked("mlm", seed=seed, perplexity=10.0 + seed)
        pruned = masked("mlm", perplexity=20.0 + seed, **sparse)
        domain = masked("biomed", general, seed=seed)
        kept = masked("biomed", pruned, perplexity=30.0 + seed, **sparse)
        for name, one in (("g", general), ("p", pruned), ("d", domain), ("k", kept)):
            write(self.folder / f"{name}-{seed}", one)
        for task, easy in (("chem", 0.0), ("gene", 0.2)):
            score = easy + seed / 10
            self.add(f"1-{task}-{seed}", stage(task, general, domain, score=score + 0.7, seed=seed))
            self.add(f"2-{task}-{seed}", stage(task, general, score=score + 0.6, seed=seed))
            self.add(f"3-{task}-{seed}", stage(task, pruned, kept, score=score + 0.5, **sparse))
            self.add(f"4-{task}-{seed}", stage(task, pruned, score=score + 0.4, **sparse))
            own = sparse | {"mask": f"{task}-{seed}"}
            self.add(f"5-{task}-{seed}", stage(task, general, domain, score=score + 0.3, **own))

    def add(self, name: str, content: dict[str, Any]) -> None:
        write(self.folder / name, content)

    def study(self) -> Study:
        return Study.from_runs(read_runs(self.folder))

    def section(self) -> Section:
        section = transfer.answer(self.study())
        assert section is not None
        return section

    def table(self, name: str) -> dict[str, list[str]]:
        return rows(next(one for one in self.section().tables if one.name == name))


def rows(table: Table) -> dict[str, list[str]]:
    found = {row[0].text: [cell.text for cell in row[1:]] for row in cells(table)}
    assert len(found) == len(table.frame)
    return found


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "runs")


def test_chains_are_called_by_what_was_done_with_weights_and_have_the_scores_of_their_tasks(
    world: World,
) -> None:
    shown = world.table("transfer-validation")
    whole, small = ["1.000", "1,000,000", "2"], ["0.200", "200,000", "2"]
    all_steps, fewer = ["100 + 100 + 100", "300"], ["100 + 100", "200"]
    # A task is 0.2 easier than the other, and a seed 0.1 better: means are 0.15 above.
    assert shown == {
        "mlm dense → tasks dense": [
            *whole, *fewer, "0.750 (0.700 to 0.800)", "0.650 (0.600 to 0.700)",
            "0.850 (0.800 to 0.900)",
        ],
        "mlm dense → biomed dense → tasks dense": [
            *whole, *all_steps, "0.850 (0.800 to 0.900)", "0.750 (0.700 to 0.800)",
            "0.950 (0.900 to 1.000)",
        ],
        "mlm pruned → tasks mask kept": [
            *small, *fewer, "0.550 (0.500 to 0.600)", "0.450 (0.400 to 0.500)",
            "0.650 (0.600 to 0.700)",
        ],
        "mlm pruned → biomed mask kept → tasks mask kept": [
            *small, *all_steps, "0.650 (0.600 to 0.700)", "0.550 (0.500 to 0.600)",
            "0.750 (0.700 to 0.800)",
        ],
        "mlm dense → biomed dense → tasks pruned": [
            *small, *all_steps, "0.450 (0.400 to 0.500)", "0.350 (0.300 to 0.400)",
            "0.550 (0.500 to 0.600)",
        ],
    }  # fmt: skip
    assert "same number of steps in every stage" in world.section().text[-1]
    assert "their sums differ (200, 300)" in world.section().text[-1]
    assert world.section().answer == (
        "The best sparse chain, mlm pruned → biomed mask kept → tasks mask kept at a density of "
        "0.2, scores 0.650 (0.600 to 0.700) (76.5 %); the best dense one, mlm dense → biomed dense "
        "→ tasks dense, 0.850 (0.800 to 0.900) (chem and gene, validation)."
    )


def test_each_stage_of_pretraining_is_shown_once_with_its_seeds(world: World) -> None:
    shown = world.table("transfer-pretraining")
    accuracy, f1 = "0.300 (0.300 to 0.300)", "0.000 (0.000 to 0.000)"
    dense, small = ["1.000", "1,000,000", "2", "100"], ["0.200", "200,000", "2", "100"]
    assert shown == {
        "mlm dense": ["mlm", *dense, accuracy, f1, "10.500 (10.000 to 11.000)"],
        "mlm pruned": ["mlm", *small, accuracy, f1, "20.500 (20.000 to 21.000)"],
        "mlm dense → biomed dense": ["biomed", *dense, accuracy, f1, "9.000 (9.000 to 9.000)"],
        "mlm pruned → biomed mask kept": [
            "biomed", *small, accuracy, f1, "30.500 (30.000 to 31.000)",
        ],
    }  # fmt: skip


def test_runs_before_that_are_not_there_are_told_by_the_lineage(world: World) -> None:
    chains, pretraining = world.table("transfer-validation"), world.table("transfer-pretraining")
    for run in world.folder.glob("[gpdk]-*"):
        run.rename(world.folder.parent / run.name)
    assert world.table("transfer-validation") == chains
    assert world.table("transfer-pretraining") == pretraining
    assert len(world.study().all_runs) == 20


def test_other_sections_are_of_tasks_and_keep_chains_apart(world: World) -> None:
    found = world.study()
    assert found.tasks == ("chem", "gene")
    assert found.methods == [
        "Magnitude after mlm dense",
        "Magnitude after mlm dense → biomed dense",
        "Magnitude after mlm pruned",
        "Magnitude after mlm pruned → biomed mask kept",
    ]
    assert not found.skipped
    assert len(found.pretraining) == 8
    assert len(found.all_runs) == 28
    assert found.runs[0].encoder == "minilm"
    (told,) = compared.answer(found).text
    assert told.startswith("8 runs of masked language modelling: in the section on sparse transfer")
    wall_time, _ = runs.answer(found).tables
    assert set(wall_time.frame.models) == {"alone", "pretraining"}


def test_numbers_of_steps_that_differ_are_said_and_never_averaged(world: World) -> None:
    longer = masked("mlm", steps=900)
    world.add("longer", stage("chem", longer, score=0.1))
    world.add("last", stage("gene", masked("mlm"), score=0.1, steps=7, trainer={"max_steps": 7}))
    assert world.section().text[-1] == (
        "Chains were not trained for the same numbers of steps: mlm 100, 900; gene 7, 100."
    )
    shown = world.table("transfer-validation")
    steps = {label: row[3] for label, row in shown.items() if label.startswith("mlm dense → tasks")}
    assert sorted(steps.values()) == ["100 + 100", "100 + 7", "900 + 100"]
    (label,) = (one for one, count in steps.items() if count == "900 + 100")
    assert "before.0.steps=900" in label
    # It has one of the tasks only.
    assert shown[label][5:] == ["", "0.100", ""]


def test_multitask_models_are_chains_of_their_own(world: World) -> None:
    both = results({"chem": 0.9, "gene": 0.7}, kept=LINEAR)
    both |= {"lineage": [masked("mlm")], "steps": 100, "mask_sha256": "all"}
    world.add("both", both)
    shown = world.table("transfer-validation")
    assert shown["mlm dense → tasks together dense"][5:] == ["0.800", "0.900", "0.700"]
    assert shown["mlm dense → tasks dense"][5] == "0.750 (0.700 to 0.800)"


def test_encoder_as_it_came_stands_beside_those_that_were_pretrained(world: World) -> None:
    for task in ("chem", "gene"):
        world.add(f"plain-{task}", stage(task, score=0.25))
    assert world.table("transfer-validation")["tasks dense"][2:6] == ["1", "100", "100", "0.250"]


def test_figure_has_a_line_for_sizes_and_a_level_for_dense(world: World) -> None:
    sparse: dict[str, Any] = {"kept": KEPT // 2, "mask": "smaller"}
    pruned = masked("mlm", **sparse)
    for task in ("chem", "gene"):
        world.add(f"small-{task}", stage(task, pruned, score=0.1, **sparse))
    (figure,) = world.section().figures
    assert "mlm pruned → tasks mask kept 0.100 at 100k; " in figure.alt
    assert "mlm pruned → tasks mask kept 0.550 at 200k; " in figure.alt
    assert figure.alt.endswith(
        "mlm dense → tasks dense 0.750; mlm dense → biomed dense → tasks dense 0.850."
    )
    (axes,) = figure.draw().axes
    lines = {str(line.get_label()): line for line in axes.get_lines()}
    sizes = np.asarray(lines["mlm pruned → tasks mask kept"].get_xdata())
    assert sizes.tolist() == [KEPT // 2, KEPT]
    assert np.asarray(lines["mlm dense → tasks dense"].get_ydata()) == pytest.approx(0.75)
    assert len(lines) == 5


def test_density_of_a_run_before_is_named_where_it_is_not_that_of_the_last(tmp_path: Path) -> None:
    first = masked("mlm", kept=500_000, mask="half")
    again = stage("chem", first, kept=100_000, mask="tenth")
    chain = read_run(write(tmp_path / "again", again)).record.chain
    assert described(chain, 100_000) == ("mlm pruned to 0.5", "chem pruned")
    regrown = stage("chem", first)
    chain = read_run(write(tmp_path / "regrown", regrown)).record.chain
    assert described(chain, LINEAR) == ("mlm pruned to 0.5", "chem dense")
    assert described([], LINEAR) == ()


def test_a_mask_that_weights_have_grown_out_of_is_not_kept(tmp_path: Path) -> None:
    pruned = masked("mlm", kept=KEPT, mask="first")
    grown = masked("biomed", pruned, kept=KEPT, mask="second")
    kept = stage("gene", pruned, grown, kept=KEPT, mask="second")
    write(tmp_path / "run", kept)
    links = read_run(tmp_path / "run").record.chain
    assert described(links, KEPT) == ("mlm pruned", "biomed pruned", "gene mask kept")


def test_runs_without_pretraining_before_them_have_no_such_section(tmp_path: Path) -> None:
    dense = stage("chem", score=0.4)
    write(tmp_path / "dense", dense)
    write(tmp_path / "after", stage("gene", dense, score=0.4))
    assert transfer.answer(Study.from_runs(read_runs(tmp_path))) is None
    assert "transfer" not in {section.name for section in Report.read([tmp_path]).sections}
    alone = Study.from_runs(read_runs(write(tmp_path / "mlm", masked("mlm"))))
    assert transfer.answer(alone) is None
    assert alone.tasks == ("mlm",)


def test_pretraining_whose_tasks_are_to_come_is_shown(tmp_path: Path) -> None:
    first = masked("mlm", perplexity=4.0)
    write(tmp_path / "first", first)
    write(tmp_path / "second", masked("biomed", first))
    section = transfer.answer(Study.from_runs(read_runs(tmp_path)))
    assert section is not None
    assert section.answer == "No task was learned yet."
    assert not section.figures
    (table,) = section.tables
    assert list(table.frame.stages) == ["mlm dense", "mlm dense → biomed dense"]


def test_chains_of_another_encoder_are_refused(world: World) -> None:
    other = masked("mlm")
    other["config"]["encoder"] = other["config"]["encoder"] | {"path": "bert"}
    world.add("other", stage("chem", other, seed=5))
    with pytest.raises(ValueError, match=r"same encoder\.path, but it is 'minilm' in .*'bert' in"):
        world.study()


def test_damaged_lineage_is_skipped_with_the_reason(world: World) -> None:
    first = masked("mlm")
    del first["config"]
    world.add("damaged", stage("chem", masked("mlm"), first, seed=3))
    (skipped,) = world.study().skipped
    assert skipped.path.name == "damaged"
    assert skipped.reason == "results.json has no `lineage.1.config`"


def test_every_format_has_the_chains(world: World, tmp_path: Path) -> None:
    for format in ("html", "markdown", "json", "csv"):
        out = tmp_path / format
        main(["report", str(world.folder), "--out", str(out), "--format", format])
    assert (tmp_path / "html" / "transfer.svg").is_file()
    assert "mlm pruned → biomed mask kept" in (tmp_path / "html" / "index.html").read_text()
    document = json.loads((tmp_path / "json" / "report.json").read_text())
    tables = document["sections"]["transfer"]["tables"]
    assert {"chem", "gene"} < tables["transfer-validation"][0].keys()
    means = {row["chain"]: row["mean"]["mean"] for row in tables["transfer-validation"]}
    assert means["mlm pruned → biomed mask kept → tasks mask kept"] == pytest.approx(0.65)
    assert len(tables["transfer-pretraining"]) == 4


def test_sizes_are_shared_among_tasks_without_the_runs_that_pretrain(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["allocate", str(world.folder), "--budget", "0.5"])
    printed = capsys.readouterr().out
    assert "biomed mask kept" in printed
    assert "chem" in printed
