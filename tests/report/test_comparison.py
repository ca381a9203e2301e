"""Which runs may be compared, and what tells methods apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from run_folders import results, write

from multiprune.report.methods import check_comparable, methods
from multiprune.runs.frame import FinishedRun, read_run

if TYPE_CHECKING:
    from pathlib import Path


def row(folder: Path, change: dict[str, Any] | None = None, **described: Any) -> FinishedRun:
    """Write and read a run; ``change`` sets dotted keys of its results."""
    settings: dict[str, Any] = {"validation": {"rte": 0.5}, "kept": 10} | described
    content = results(**settings)
    for dotted, value in (change or {}).items():
        inner, (*path, last) = content, dotted.split(".")
        for key in path:
            inner = inner[key] if isinstance(inner, dict) else inner[int(key)]
        inner[last] = value
    return read_run(write(folder, content))


@pytest.mark.parametrize(
    ("dotted", "value", "said"),
    [
        ("config.encoder.path", "bert", "encoder.path, but it is 'minilm' in {0} and 'bert' in"),
        ("config.encoder.dropout", 0.0, "encoder.dropout, but it is not set in {0} and 0.0 in"),
        ("config.encoder.freeze_embeddings", True, "encoder.freeze_embeddings"),
        ("budget.of", "total", "budget.of, but it is 'encoder_linear' in {0} and 'total' in"),
        ("ledger.1.dense", 999, "number of encoder_linear, but it is 1,000,000 in {0} and 999 in"),
        ("ledger.0.dense", 1, "number of embeddings, but"),
        ("config.data.max_length", 64, "data.max_length, but it is 128 in {0} and 64 in"),
        ("config.task.rte.source.name", "mnli", "task.rte.source.name, but it is 'rte' in {0}"),
        ("config.task.rte.text", ["a", "b"], "task.rte.text, but"),
        ("config.task.rte.metrics", {"f1": {}}, "first metric of rte, but it is 'accuracy' in {0}"),
        (
            "metrics.rte.accuracy",
            {"name": "recall_at_k", "k": 2},
            "metric of rte.name, but it is 'accuracy' in {0} and 'recall_at_k' in",
        ),
        ("examples.rte", 99, "number of training examples of rte, but it is 100 in {0} and 99"),
    ],
)
def test_difference_is_refused_naming_key_and_both_runs(
    tmp_path: Path, dotted: str, value: Any, said: str
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    rows = [row(first), row(second, {dotted: value})]
    with pytest.raises(ValueError, match="must have the same") as caught:
        check_comparable(rows)
    message = str(caught.value)
    assert said.format(first) in message
    way = "; `multiprune report --by-examples` is for such runs" if "examples" in dotted else ""
    assert message.endswith(f"in {second}{way}.")


def test_where_the_code_of_metrics_is_and_what_else_is_measured_may_differ(tmp_path: Path) -> None:
    others = {"accuracy": {"_target_": "elsewhere.Accuracy"}, "auroc": {"_target_": "x.AUROC"}}
    first, second = row(tmp_path / "a"), row(tmp_path / "b", {"config.task.rte.metrics": others})
    assert first.record.settings != second.record.settings
    assert first.metrics == second.metrics
    check_comparable([first, second])


def test_caps_are_compared_where_runs_did_not_note_their_examples(tmp_path: Path) -> None:
    rows = [
        row(tmp_path / name, {"examples": {}, "config.data.cap": cap})
        for name, cap in (("first", {}), ("second", {"rte": 9}))
    ]
    with pytest.raises(ValueError, match=r"data\.cap\.rte, but it is not set in .* and 9 in"):
        check_comparable(rows)
    check_comparable(rows, by_examples=True)


@pytest.mark.parametrize(
    ("dotted", "value"),
    [
        ("config.data.mirror", "/elsewhere"),
        ("config.data.cap", {"rte": 1000}),
        ("config.data.cap", {"sst2": 9}),
        ("config.task.rte.loss_weight", 0.5),
        ("config.encoder.dropout", None),
        ("config.encoder.freeze_embeddings", False),
        ("config.optimizer.learning_rate", 1.0),
        ("ledger.3.dense", 77),
    ],
)
def test_what_is_no_encoder_denominator_or_data_may_differ(
    tmp_path: Path, dotted: str, value: Any
) -> None:
    first, second = row(tmp_path / "first"), row(tmp_path / "second", {dotted: value})
    assert (first.record.config, first.dense) != (second.record.config, second.dense)
    check_comparable([first, second])


def test_runs_of_other_tasks_are_comparable_if_what_they_share_is_the_same(tmp_path: Path) -> None:
    both = {"validation": {"rte": 0.5, "sst2": 0.5}}
    rows = [
        row(tmp_path / "rte"),
        row(tmp_path / "sst2", validation={"sst2": 0.5}),
        row(tmp_path / "both", **both),
    ]
    check_comparable(rows)
    check_comparable([])
    other = row(tmp_path / "other", {"config.task.sst2.label": "gold"}, **both)
    with pytest.raises(ValueError, match=r"task\.sst2\.label.*/sst2 .*/other\."):
        check_comparable([*rows, other])


def test_runs_of_one_method_differ_in_task_size_seed_and_place(tmp_path: Path) -> None:
    rows = [
        row(tmp_path / "a", kept=10, seed=0),
        row(tmp_path / "b", kept=20, seed=1),
        row(tmp_path / "c", {"config.trainer.accelerator": "gpu"}),
        row(tmp_path / "d", validation={"rte": 0.5, "sst2": 0.5}),
        row(tmp_path / "e", {"config.data.mixing": {"_target_": "Uniform"}}),
    ]
    assert methods(rows) == {"Magnitude": rows}


def test_methods_are_called_by_pruner_and_what_differs(tmp_path: Path) -> None:
    magnitude = row(tmp_path / "a")
    longer = row(tmp_path / "b", {"config.trainer.max_epochs": 9})
    movement = row(tmp_path / "c", pruner="Movement")
    tuned = row(tmp_path / "d", {"config.pruner.rate": 0.1}, pruner="Movement")
    assert methods([movement, longer, magnitude, tuned]) == {
        "Magnitude trainer.max_epochs=3": [magnitude],
        "Magnitude trainer.max_epochs=9": [longer],
        "Movement pruner.rate=0.1": [tuned],
        "Movement pruner.rate=default": [movement],
    }
    assert list(methods([longer, magnitude], ignore=["trainer"])) == ["Magnitude"]
    assert list(methods([longer, magnitude], ignore=["trainer.max"])) == [
        "Magnitude trainer.max_epochs=3",
        "Magnitude trainer.max_epochs=9",
    ]
