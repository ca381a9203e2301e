"""Whole runs of ``train.py`` with every pruner: stopped, resumed, exported, and used elsewhere."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from acceptance_rows import (
    BOTH,
    ELEMENTS,
    FILES,
    KINDS,
    NOTHING,
    UNITS,
    rows,
)
from acceptance_world import (
    Training,
    batch,
    nonzero_weights,
)
from application import NARROW, QUICK, results_of, run_in, run_interrupted
from clean_environment import run_without_multiprune

import multiprune
from multiprune.cli import main
from multiprune.tasks.classification import Classification

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

pytestmark = pytest.mark.slow

#: Ten steps, of which seven prune.
RUN = (
    *QUICK,
    *NARROW,
    "encoder.layers=2",
    "task=agreement",
    "task.agreement.source.rows={train: 80, validation: 8, test: 8}",
    "trainer.max_epochs=2",
    "schedule.stop=0.7",
)
# Two layers of four matrices of 16 x 16 and two of 16 x 32.
DENSE = 2 * (4 * 16**2 + 2 * 16 * 32)
TEXTS = ["the fox runs", "the red dogs chase one cat"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the folders of runs that were not stopped."""
    folder = tmp_path_factory.mktemp("runs")
    runs = {name: folder / name for name in sorted(FILES, key="fixed".__eq__)}
    for name, run in runs.items():
        run_in(run, *options_of(name, folder))
    return runs


def options_of(name: str, runs: Path) -> list[str]:
    options = [*RUN, f"pruner={name}"]
    options += ["budget=full"] if KINDS[name] == NOTHING else ["budget.fraction=0.5"]
    return options + ([f"pruner.mask.run={runs / 'magnitude'}"] if name == "fixed" else [])


def losses(run: Path) -> list[tuple[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    of_loss = [key for key in lines[0] if "loss" in key]
    assert of_loss
    return [(key, line[key]) for line in lines for key in of_loss]


@rows(1)
def test_01_run_that_was_stopped_ends_the_same(
    name: str, finished: dict[str, Path], tmp_path: Path
) -> None:
    straight, options = finished[name], options_of(name, finished["magnitude"].parent)
    options += ["checkpoint.every_n_steps=2"]
    run_interrupted(tmp_path, *options, kind=Classification, at=4)
    run_in(tmp_path, *options)
    before, after = results_of(straight), results_of(tmp_path)
    for key in ("mask_sha256", "validation", "test", "budget", "ledger", "density", "steps"):
        assert after[key] == before[key], key
    assert losses(tmp_path) == losses(straight)
    weights = "model/model.safetensors"
    assert (tmp_path / weights).read_bytes() == (straight / weights).read_bytes()


@rows(3)
def test_03_results_say_that_asked_is_kept(name: str, finished: dict[str, Path]) -> None:
    budget = results_of(finished[name])["budget"]
    asked = DENSE if KINDS[name] == NOTHING else DENSE // 2
    assert (budget["dense"], budget["asked"]) == (DENSE, asked)
    # A neuron, or a rank of a square matrix, is the smallest that goes as a whole.
    assert asked - 32 < budget["kept"] <= asked
    assert nonzero_weights(multiprune.load(finished[name]).encoder) == budget["kept"]


@rows(6)
def test_06_results_say_what_was_out_of_scope(name: str, finished: dict[str, Path]) -> None:
    ledger = {row["part"]: row for row in results_of(finished[name])["ledger"]}
    for part in ("embeddings", "heads"):
        assert ledger[part]["kept"] == ledger[part]["dense"] > 0
        assert not ledger[part]["in_scope"]
    assert ledger["encoder_linear"]["in_scope"] == (KINDS[name] != NOTHING)
    assert ledger["encoder_other"]["in_scope"] == (KINDS[name] in (UNITS, BOTH))


#: Runs the model card of each run, and loads what was trained in a loop of one's own.
SCRIPT = """
import json, os, sys
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

world, names, texts, ids = sys.argv[1], *map(json.loads, sys.argv[2:])
# Whether it is installed or not: an environment may borrow the packages of another.
sys.modules["multiprune"] = None
found = {}
for name in names:
    os.chdir(os.path.join(world, "exported", name))
    code = open("README.md").read().split("```python\\n")[1].split("```")[0]
    variables = {}
    exec(compile(code, name + "/README.md", "exec"), variables)
    own = os.path.join(world, "own", name)
    trusted = "auto_map" in json.load(open(own + "/config.json"))
    model = AutoModelForSequenceClassification.from_pretrained(own, trust_remote_code=trusted)
    with torch.no_grad():
        answers = model.eval()(input_ids=torch.tensor(ids)).logits
    found[name] = {
        "run": variables["logits"]("agreement", texts, None).tolist(),
        "own": answers.tolist(),
        "code": ["trust_remote_code" in code, trusted],
    }
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def elsewhere(
    finished: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    """Return by pruner what models answer without multiprune, and what they answered here."""
    world = tmp_path_factory.mktemp("world")
    here = {}
    for name, run in finished.items():
        main(["export", str(run), "--out", str(world / "exported" / name), "--dtype", "fp32"])
        training = Training.begun(name).train()
        training.pruner.finalize()
        multiprune.save(world / "own" / name, training.model)
        answers = multiprune.load(run).logits("agreement", TEXTS)
        here[name] = {"run": answers, "own": training.logits()}
    (world / "script.py").write_text(SCRIPT)
    arguments = (json.dumps(one) for one in ([*finished], TEXTS, batch(-1)["input_ids"].tolist()))
    said = run_without_multiprune(world / "script.py", world, *arguments)
    return json.loads(said.splitlines()[-1]), here


@rows(7)
def test_07_answers_are_the_same_where_multiprune_is_not_installed(
    name: str, elsewhere: tuple[dict[str, Any], dict[str, dict[str, Tensor]]]
) -> None:
    there, here = (answers[name] for answers in elsewhere)
    for kind in ("run", "own"):
        torch.testing.assert_close(torch.tensor(there[kind]), here[kind], rtol=0, atol=1e-5)
    assert there["code"] == [KINDS[name] not in (NOTHING, ELEMENTS)] * 2
