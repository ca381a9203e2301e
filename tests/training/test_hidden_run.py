"""Hidden dimensions pruned in whole runs: stopped and resumed, distilled, shipped, continued."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tiny_run as tiny
import torch
from application import SMALL, run_in
from omegaconf import OmegaConf
from teacher_world import TASKS, encoded, encoder_of, save_teacher
from test_masked_run import with_masked_language
from tiny_run import InterruptionError, assert_same

from multiprune.budget import FractionBudget
from multiprune.evaluate import EvaluationRequest, evaluate
from multiprune.export.loading import load
from multiprune.models.encoder import pretrained
from multiprune.models.multitask import MultitaskModel
from multiprune.pruning.importance import RandomImportance
from multiprune.pruning.structured import Structured
from multiprune.training.distillation import HiddenDistillation

if TYPE_CHECKING:
    from multiprune.tasks.task import Task

PRUNERS = Path(__file__).parents[2] / "conf" / "pruner"


def with_hidden(folder: Path, name: str) -> Path:
    """Write the configuration of a pruner with hidden dimensions among what may go."""
    config = OmegaConf.load(PRUNERS / f"{name}.yaml")
    config.granularity = ["heads", "hidden"]
    OmegaConf.save(config, folder / f"{name}.yaml")
    return folder / f"{name}.yaml"


@pytest.mark.parametrize("stop_at", [5, 10])  # while dimensions are masked, and after the cut
@pytest.mark.parametrize("name", ["structured", "structured_l0"])
def test_a_resumed_run_ends_the_same(
    name: str, stop_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny, "tasks", with_masked_language)
    pruner = with_hidden(tmp_path, name)
    straight = tiny.tiny_run(tmp_path / "straight", pruner, every_n_steps=1000)
    straight.trainer.fit(straight.module, straight.data)
    stopped = tiny.tiny_run(tmp_path / "stopped", pruner, stop_at=stop_at)
    with pytest.raises(InterruptionError):
        stopped.trainer.fit(stopped.module, stopped.data)
    resumed = tiny.tiny_run(tmp_path / "stopped", pruner)
    last = tmp_path / "stopped" / "last.ckpt"
    resumed.trainer.fit(resumed.module, resumed.data, ckpt_path=last, weights_only=True)
    assert_same(resumed.state(), straight.state())
    hidden = resumed.module.model.encoder.config.hidden_size
    assert hidden < 16
    heads: Any = resumed.module.model.heads
    assert heads["quantity"].output.weight.shape == (1, hidden)
    assert heads["mlm"].dense.weight.shape == (hidden, hidden)
    for key in ("val/mlm/accuracy", "val/quantity/pearson", "val/score"):
        assert resumed.trainer.callback_metrics[key] == straight.trainer.callback_metrics[key]


def test_a_run_ships_smaller_embeddings_and_others_continue_from_it(tmp_path: Path) -> None:
    run = tmp_path / "run"
    asked = ["pruner=structured", "pruner.granularity=[heads,neurons,hidden]"]
    asked += ["budget.fraction=0.4", "budget.of=encoder", f"+data.cache={tmp_path / 'cache'}"]
    run_in(run, *SMALL, *asked)
    results = json.loads((run / "results.json").read_text())
    shipped = load(run)
    hidden = shipped.encoder.config.hidden_size
    assert hidden < 16
    rows = {row["part"]: row for row in results["ledger"]}
    assert all(row["in_scope"] for row in rows.values())
    counted = sum(one.numel() for one in shipped.encoder.parameters())
    assert counted == sum(rows[part]["kept"] for part in rows if part != "heads")
    assert counted <= 0.4 * sum(rows[part]["dense"] for part in rows if part != "heads")
    embeddings = shipped.encoder.get_input_embeddings().weight
    assert embeddings.shape[1] == hidden  # type: ignore[index]
    found = evaluate(EvaluationRequest(folder=run, tasks=["agreement"]))["agreement"].scores
    assert found == pytest.approx(results["validation"]["agreement"], rel=1e-4)

    # It is an encoder to begin from, with its heads, and to prune further.
    start = pretrained(str(run / "model"))
    assert start.model.config.hidden_size == hidden
    tasks: dict[str, Task] = TASKS
    model = MultitaskModel(start.model, tasks)
    pruner = Structured(
        budget=FractionBudget(0.5, of="encoder"),
        importance=RandomImportance(),
        granularity=["neurons", "hidden"],
    )
    pruner.prepare(model, model.encoder)
    pruner.prune(1.0)
    pruner.finalize()
    assert sum(one.numel() for one in model.encoder.parameters()) <= counted / 2


@pytest.mark.parametrize("relative", [False, True])
def test_hidden_states_are_compared_where_the_student_keeps_them(
    relative: bool, tmp_path: Path
) -> None:
    """Masked and cut alike, by hand from the library's own way to hidden states."""
    student = encoder_of()
    distillation = HiddenDistillation(
        teacher=save_teacher(tmp_path / "run"),
        temperature=2.0,
        weight=0.9,
        hidden_weight=0.6,
        relative=relative,
    )
    distillation.prepare(student, TASKS, 32)
    model = MultitaskModel(student.model, TASKS).eval()
    pruner = Structured(
        budget=FractionBudget(0.5), importance=RandomImportance(), granularity=["hidden"]
    )
    pruner.prepare(model, model.encoder)
    pruner.prune(1.0)
    kept = pruner.masks()["hidden"]
    task, batch = TASKS["classes"], encoded("classes").batch("train", [5, 0, 3])
    masked = distillation.losses(model, task, batch)
    teacher = distillation.teachers["classes"].model.encoder
    with torch.no_grad():
        real = batch.inputs["attention_mask"].bool()
        layers = [
            [
                states[real][:, kept]
                for states in one(**batch.inputs, output_hidden_states=True).hidden_states[1:]
            ]
            for one in (model.encoder, teacher)
        ]
        errors = [
            (own - its).square().mean() / (its.square().mean() if relative else 1)
            for own, its in zip(*layers, strict=True)
        ]
    torch.testing.assert_close(masked.terms["hidden"], torch.stack(errors).mean())
    assert 0 < int(kept.sum()) < len(kept)
    pruner.shrink()
    cut = distillation.losses(model, task, batch)
    torch.testing.assert_close(cut.total, masked.total)
    torch.testing.assert_close(cut.terms["hidden"], masked.terms["hidden"])
    cut.total.backward()  # type: ignore[no-untyped-call]
