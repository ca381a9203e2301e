"""``multiprune specialize`` on a run that was trained: what it writes, and what it refuses."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from application import SMALL, run_in
from hydra.utils import instantiate
from safetensors.torch import load_file, save_file
from torch import nn

import multiprune
from multiprune.cli import main
from multiprune.export.checkpoint import save_model
from multiprune.export.convert import ExportSettings, export_model
from multiprune.export.digests import write_digests
from multiprune.models.architectures import NEURONS, QUERY_KEY, VALUE
from multiprune.models.from_scratch import from_scratch
from multiprune.models.low_rank import LowRankLinear
from multiprune.models.multitask import MultitaskModel
from multiprune.models.shrink import shrink_layer
from multiprune.models.structure import layers_of
from multiprune.specialize.recipe import METHODS
from multiprune.tasks.synthetic import agreement

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from transformers import PreTrainedModel

TASKS = ["agreement", "entailment", "quantity", "roles"]
# One layer: four projections of 16 x 16 and two of 16 x 32.
DENSE = 4 * 16**2 + 2 * 16 * 32
HEAD, NEURON = 4 * 8 * 16, 2 * 16
TEXTS: dict[str, tuple[list[Any], list[str] | None]] = {
    "agreement": (["the fox runs"], None),
    "entailment": (["the fox runs"], ["the fox runs"]),
    "quantity": (["two dogs sleep"], None),
    "roles": ([["the", "fox", "runs"]], None),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train all tasks a little, without pruning."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    run_in(folder, *SMALL, "pruner=none", "budget=full")
    return folder


@pytest.fixture
def specialize(tmp_path: Path) -> Callable[..., Path]:
    def run(folder: Path, *arguments: str, out: str = "out") -> Path:
        target = tmp_path / out
        main(["specialize", str(folder), f"out={target}", *arguments])
        return target

    return run


SOME = ("tasks=[agreement]", "budget.fraction=0.5", "examples=16")


def outcome(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "specialized.json").read_text())
    return content


def test_model_of_one_task_is_really_smaller_and_answers(
    finished: Path, specialize: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    out = specialize(finished, *SOME)
    model = multiprune.load(out / "agreement")
    assert list(model.meaning) == list(model.heads) == ["agreement"]
    linear = [one for one in model.encoder.modules() if isinstance(one, nn.Linear)]
    kept = sum(one.weight.numel() for one in linear)
    assert DENSE // 2 - HEAD < kept <= DENSE // 2
    assert model.logits(*("agreement", *TEXTS["agreement"])).shape == (1, 2)
    written = outcome(out / "agreement")
    assert written["budget"] == {
        "scope": "encoder_linear", "dense": DENSE, "asked": DENSE // 2, "kept": kept,
    }  # fmt: skip
    said = capsys.readouterr()
    assert said.err == ""
    assert "fisher: 16 examples, gold labels" in said.out
    for one in (f"{kept:,}", f"{DENSE:,}", f"{written['before']['accuracy']:.4f}"):
        assert one in said.out
    assert [one.name for one in out.iterdir()] == ["agreement"]


def test_scores_before_are_those_of_the_run(
    finished: Path, specialize: Callable[..., Path]
) -> None:
    out = specialize(finished, "budget.fraction=0.6", "examples=24")
    expected = json.loads((finished / "results.json").read_text())["validation"]
    for task in TASKS:
        written = outcome(out / task)
        assert written["before"].keys() == expected[task].keys()
        for metric, value in expected[task].items():
            assert written["before"][metric] == pytest.approx(value, abs=1e-5)
        assert written["validation"][task].keys() == expected[task].keys()


def test_scores_after_are_those_of_the_written_model(
    finished: Path, specialize: Callable[..., Path]
) -> None:
    out = specialize(finished, *SOME)
    rows = agreement(16, 1)  # the split of validation has the second seed
    model = multiprune.load(out / "agreement")
    answers = model.logits("agreement", list(rows["sentence"])).argmax(-1)
    right = float((answers == torch.tensor(rows["label"])).float().mean())
    assert outcome(out / "agreement")["validation"]["agreement"]["accuracy"] == right
    assert f"| agreement | accuracy | {right:.4f} |" in (out / "agreement/README.md").read_text()


def test_every_task_gets_a_folder_of_its_own(
    finished: Path, specialize: Callable[..., Path]
) -> None:
    out = specialize(finished, "budget.fraction=0.5", "examples=24", "evaluate=false")
    assert sorted(one.name for one in out.iterdir()) == TASKS
    for task in TASKS:
        model = multiprune.load(out / task)
        assert list(model.meaning) == [task]
        assert bool(model.logits(task, *TEXTS[task]).isfinite().all())
        written = outcome(out / task)
        assert written["before"] == written["validation"] == {}
        assert "Scores" not in (out / task / "README.md").read_text()


def test_weights_that_stay_are_those_of_the_run(
    finished: Path, specialize: Callable[..., Path]
) -> None:
    out = specialize(finished, *SOME)
    before = load_file(finished / "model" / "model.safetensors")
    after = load_file(out / "agreement" / "model.safetensors")
    assert before.keys() == after.keys()
    for name, weight in after.items():
        if weight.shape == before[name].shape:
            assert torch.equal(weight, before[name])
    whole, small = before[f"{LAYER}.weight"], after[f"{LAYER}.weight"]
    assert len(small) < len(whole)
    assert all(any(torch.equal(row, one) for one in whole) for row in small)


LAYER = "encoder.layer.0.intermediate.dense"


def test_budget_of_everything_leaves_the_model_as_it_is(
    finished: Path, specialize: Callable[..., Path]
) -> None:
    out = specialize(finished, "budget.fraction=1.0", "examples=24")
    whole = multiprune.load(finished)
    for task in TASKS:
        alone = multiprune.load(out / task)
        torch.testing.assert_close(
            alone.logits(task, *TEXTS[task]), whole.logits(task, *TEXTS[task])
        )
        assert outcome(out / task)["before"] == outcome(out / task)["validation"][task]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_meets_the_budget_and_says_so_again(
    finished: Path, specialize: Callable[..., Path], method: str
) -> None:
    options = (*SOME, f"method={method}", "evaluate=false", "rounds=2")
    first, again = (specialize(finished, *options, out=out) for out in ("first", "again"))
    written = outcome(first / "agreement")
    assert written["recipe"]["method"] == method
    assert DENSE // 2 - HEAD < written["budget"]["kept"] <= DENSE // 2
    states = [load_file(one / "agreement" / "model.safetensors") for one in (first, again)]
    torch.testing.assert_close(*states, rtol=0, atol=0)


def test_rescaling_changes_output_projections_alone(
    finished: Path, specialize: Callable[..., Path]
) -> None:
    plain = specialize(finished, *SOME, out="plain")
    rescaled = specialize(finished, *SOME, "repair=rescale", out="rescaled")
    assert outcome(rescaled / "agreement")["rescaled_layers"] == 1
    before, after = (
        load_file(one / "agreement" / "model.safetensors") for one in (plain, rescaled)
    )
    changed = [name for name, weight in after.items() if not torch.equal(weight, before[name])]
    layer = "encoder.layer.0"
    assert changed == [f"{layer}.attention.output.dense.weight", f"{layer}.output.dense.weight"]


def test_pseudo_labels_need_no_gold_labels(finished: Path, specialize: Callable[..., Path]) -> None:
    out = specialize(finished, *SOME, "labels=pseudo", "weight_by_confidence=true")
    written = outcome(out / "agreement")
    drawn = {"examples": 16, "labels": "pseudo", "weight_by_confidence": True, "seed": 0}
    assert written["recipe"].items() >= drawn.items()
    assert sum(written["labels"].values()) == 16


def test_pseudo_labels_of_one_class_are_a_warning(
    finished: Path,
    specialize: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "biased"
    export_model(finished, run, ExportSettings())
    heads = load_file(run / "heads.safetensors")
    heads["agreement.output.bias"] = torch.tensor([0.0, 1e6])
    save_file(heads, run / "heads.safetensors")
    write_digests(run)
    specialize(run, *SOME, "labels=pseudo", f"data_of={finished}", "evaluate=false")
    said = capsys.readouterr().err
    assert said == ("warning: agreement: All answers are of one class (disagrees 0, agrees 16).\n")


def test_exported_folder_is_specialized_with_the_data_of_its_run(
    finished: Path, specialize: Callable[..., Path], tmp_path: Path
) -> None:
    main(["export", str(finished), "--out", str(tmp_path / "exported")])
    of_run = specialize(finished, *SOME, out="a")
    of_export = specialize(tmp_path / "exported", *SOME, f"data_of={finished}", out="b")
    states = [load_file(one / "agreement/model.safetensors") for one in (of_run, of_export)]
    torch.testing.assert_close(*states, rtol=0, atol=0)


def test_run_of_one_task_is_a_multitask_run_of_one(
    specialize: Callable[..., Path], tmp_path: Path
) -> None:
    rows = next(one for one in SMALL if one.startswith("task.agreement."))
    small = [one for one in SMALL if not one.startswith("task.")]
    run_in(
        tmp_path / "run", *small, rows, "task=agreement", "pruner=structured", "budget.fraction=0.8"
    )
    out = specialize(tmp_path / "run", "budget.count=1000", "examples=8")
    budget = outcome(out / "agreement")["budget"]
    assert budget["kept"] <= 1000 < budget["dense"] <= 0.8 * DENSE


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Return what is said to wrong input: one sentence."""
    with pytest.raises(SystemExit) as caught:
        main(["specialize", *map(str, arguments)])
    said = str(caught.value)
    assert said.startswith("error: ")
    assert len(said.splitlines()) == 1
    assert capsys.readouterr().out == ""
    return said


def test_folder_without_a_finished_run_is_refused(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, tmp_path, *SOME)
    assert f"{tmp_path} must be the folder of a finished run" in said
    run = shutil.copytree(finished, tmp_path / "run")
    (run / "results.json").unlink()
    assert f"{run} has no results.json" in refused(capsys, run, *SOME)
    assert not (run / "specialized").exists()


def test_folder_of_several_models_is_refused(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = shutil.copytree(finished / "model", tmp_path / "packed")
    (packed / "shared.bitmask.safetensors").touch()
    assert "holds several models" in refused(capsys, packed, *SOME, f"data_of={finished}")


def test_unknown_task_is_refused_with_those_there_are(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, finished, "tasks=[roles,rte]", "budget.fraction=0.5")
    assert f"which are {', '.join(TASKS)}, but names rte." in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("examples=1", "at least the 2 classes of agreement, but is 1"),
        ("examples=49", "at most the 48 training examples of agreement, but is 49"),
        ("labels=silver", "`labels` must be one of gold, pseudo, but is 'silver'"),
        ("method=guess", "`method` must be one of attribution, "),
        ("repair=rescale granularity=[heads,layers]", "all stay to be rescaled"),
        ("rounds=0", "`rounds` must be a whole number of at least 1, but is 0"),
        ("budget.fraction=half", "`fraction` must be a number in (0, 1], but is 'half'"),
        ("budget.fraction=null", "`budget.count` must be given, but neither is"),
        ("budget.count=1000", "`budget.count` must be given, but both are"),
        ("budget.fraction=2", "`fraction` must be in (0, 1], but is 2"),
        # A head and a neuron of its layer.
        (
            f"budget.fraction=null budget.count={HEAD + NEURON - 1}",
            f"has to leave, but that is {HEAD + NEURON}",
        ),
        ("granularity=[words]", "`granularity` must be some of heads"),
        ("granularity=heads", "`granularity` must be a list, as in granularity=[heads], but is"),
        ("tasks=agreement", "`tasks` must be a list, as in tasks=[agreement], but is 'agreement'"),
        ("at=inputs", "`at` must be one of null, outputs, gates, but is 'inputs'"),
        ("rank=relative", "`rank` must be one of null, together, by_module, but is 'relative'"),
        ("exmples=8", "There is no setting `exmples`: correct its name"),
        ("+exmples=8", "`exmples` is not a setting of specialize: correct its name"),
        ("data=file.csv", "There is no setting `data`"),
        ("examples", "examples"),
        ("--examples 8", "unrecognized arguments: --examples 8"),
        ("budget.of=everything", "but is 'everything'"),
    ],
)
def test_wrong_choices_are_refused(
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: str,
    said: str,
) -> None:
    out = tmp_path / "out"
    assert said in refused(capsys, finished, *SOME, *options.split(), f"out={out}")
    assert not out.exists() or not any(out.iterdir())


def test_folder_that_exists_is_refused_before_anything_is_written(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out" / "roles").mkdir(parents=True)
    said = refused(capsys, finished, "budget.fraction=0.5", f"out={tmp_path / 'out'}")
    assert f"{tmp_path / 'out' / 'roles'} already exists" in said
    assert [one.name for one in (tmp_path / "out").iterdir()] == ["roles"]


def test_data_that_are_gone_are_one_sentence(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    results = json.loads((run / "results.json").read_text())
    results["config"]["task"]["agreement"]["source"] = {
        "_target_": "multiprune.data.source.HubSource", "path": None, "mirror": "glue/rte",
    }  # fmt: skip
    (run / "results.json").write_text(json.dumps(results))
    said = refused(capsys, run, *SOME, f"mirror={tmp_path / 'mirror'}")
    assert f"{tmp_path / 'mirror' / 'glue/rte'} does not exist" in said
    results["config"]["task"]["agreement"]["_target_"] = "mine.Task"
    (run / "results.json").write_text(json.dumps(results))
    assert "mine.Task" in refused(capsys, run, *SOME)


def by_rank(encoder: PreTrainedModel) -> None:
    dense = encoder.get_submodule("encoder.layer.0.output.dense")
    assert isinstance(dense, nn.Linear)
    factored = LowRankLinear.from_linear(dense, rank=2).factored()
    encoder.get_submodule("encoder.layer.0.output").add_module("dense", factored)


def by_layers(encoder: PreTrainedModel) -> None:
    nothing = {QUERY_KEY: torch.zeros(16), VALUE: torch.zeros(16), NEURONS: torch.zeros(12)}
    shrink_layer(layers_of(encoder)[0], {kind: mask.bool() for kind, mask in nothing.items()})


@pytest.mark.parametrize("pruned", [by_rank, by_layers])
def test_layers_that_cannot_be_cut_again_are_one_sentence(
    pruned: Callable[[PreTrainedModel], None],
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    encoder = from_scratch(layers=2, hidden=16, heads=2, intermediate=12)
    pruned(encoder.model)
    results = json.loads((finished / "results.json").read_text())
    config = results["config"]["task"]["agreement"]
    tasks = {"agreement": instantiate(config, _convert_="all")}
    model = MultitaskModel(encoder.model, tasks)
    save_model(tmp_path / "run" / "model", model, encoder.tokenizer, tasks)
    shutil.copyfile(finished / "results.json", tmp_path / "run" / "results.json")
    assert "Layers must" in refused(capsys, tmp_path / "run", *SOME)
