"""Folders of runs read into one table; what is not whole is listed with the reason."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from application import ROOT, SMALL, run_in
from run_folders import EMBEDDINGS, HEAD, LINEAR, OTHER, results, write

from multiprune.runs.command import command_of
from multiprune.runs.frame import read_run, read_runs


def test_row_holds_what_the_results_say(tmp_path: Path) -> None:
    content = results({"rte": 0.75, "sst2": 0.5}, kept=1_234, seed=3, test={"sst2": 0.25})
    row = read_run(write(tmp_path / "run", content, "seed=3", "task=[rte,sst2]"))
    assert row.path == tmp_path / "run"
    assert row.tasks == ("rte", "sst2")
    assert (row.record.method.name, row.encoder, row.record.seed) == ("Magnitude", "minilm", 3)
    assert (row.budget.scope, row.budget.dense, row.budget.asked, row.budget.kept) == (
        "encoder_linear",
        LINEAR,
        1_234,
        1_234,
    )
    assert row.kept_in("encoder") == EMBEDDINGS + 1_234 + OTHER
    assert sum(row.dense.values()) == EMBEDDINGS + LINEAR + OTHER + 2 * HEAD
    assert row.metrics == {"rte": "accuracy", "sst2": "accuracy"}
    assert [row.score(task, "validation") for task in row.tasks] == [0.75, 0.5]
    assert [row.score(task, "test") for task in row.tasks] == [None, 0.25]
    assert row.record.examples == {"rte": 100, "sst2": 100}
    assert row.record.density == {"model.encoder.layer.0.weight": 1_234 / LINEAR}
    assert (row.record.steps, row.record.wall_seconds) == (12, 3.0)
    assert row.command == "python train.py seed=3 'task=[rte,sst2]'"
    assert not row.frozen_embeddings


def test_embeddings_are_frozen_only_if_none_is_pruned(tmp_path: Path) -> None:
    content = results({"rte": 0.75}, kept=10, frozen=True)
    assert read_run(write(tmp_path / "frozen", content)).frozen_embeddings
    content["ledger"][0]["kept"] -= 1
    assert not read_run(write(tmp_path / "pruned", content)).frozen_embeddings


def test_results_of_a_real_run_are_read(tmp_path: Path) -> None:
    run_in(tmp_path / "run", *SMALL, "pruner=movement", "budget.fraction=0.3", "seed=5")
    row = read_run(tmp_path / "run")
    content = json.loads((tmp_path / "run" / "results.json").read_text())
    assert row.tasks == ("agreement", "entailment", "quantity", "roles")
    assert sum(row.score(task, "validation") or 0 for task in row.tasks) / 4 == pytest.approx(
        content["score"]
    )
    assert row.budget.kept == row.kept_in("encoder_linear") == content["budget"]["kept"]
    assert (row.record.method.name, row.record.seed) == ("Movement", 5)
    assert row.record.examples == dict.fromkeys(row.tasks, 48)


def test_runs_are_found_at_any_depth_once_and_in_order(tmp_path: Path) -> None:
    content = results({"rte": 0.75}, kept=10)
    for name in ("b/2", "b/1", "a/x/y/z"):
        write(tmp_path / name, content)
    # What lies within a run is no run of its own.
    write(tmp_path / "b" / "1" / "model", content)
    (tmp_path / "logs").mkdir()
    expected = [tmp_path / name for name in ("a/x/y/z", "b/1", "b/2")]
    assert [row.path for row in read_runs(tmp_path).finished] == expected
    paths = (tmp_path / "b", tmp_path / "b" / "1", tmp_path / "a" / "x" / "y" / "z", tmp_path)
    assert [row.path for row in read_runs(*paths).finished] == expected
    assert len(read_runs(tmp_path / "b" / "1" / "results.json").finished) == 1


def test_unfinished_and_corrupt_runs_are_skipped_with_the_reason(tmp_path: Path) -> None:
    content = results({"rte": 0.75}, kept=10)
    write(tmp_path / "good", content)
    (write(tmp_path / "unfinished", content) / "results.json").unlink()
    whole = (write(tmp_path / "half", content) / "results.json").read_bytes()
    (tmp_path / "half" / "results.json").write_bytes(whole[:500])
    write(tmp_path / "binary", content)
    (tmp_path / "binary" / "results.json").write_bytes(b"\xff\xfe\x00")
    frame = read_runs(tmp_path)
    assert [row.path.name for row in frame.finished] == ["good"]
    reasons = {one.path.name: one.reason for one in frame.skipped}
    assert list(reasons) == ["binary", "half", "unfinished"]
    assert "results.json is not JSON" in reasons["half"]
    assert "results.json is not JSON" in reasons["binary"]
    assert reasons["unfinished"] == "unfinished: it has no results.json"


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (["budget", "kept"], None, "must be a valid integer, but is None"),
        (["budget", "asked"], True, "must be a valid integer, but is True"),
        (["budget", "of"], "weights", "encoder_linear, encoder, total, but is 'weights'"),
        (["ledger"], [], "no row 'embeddings'"),
        (["seed"], "0", "must be a valid integer, but is '0'"),
        (["config", "task"], {}, "has no task"),
        (["validation", "rte"], {"f1": 0.5}, "has no `validation.rte.accuracy`"),
        (["validation"], {}, "has no `validation.rte.accuracy`"),
        (["validation", "rte", "accuracy"], float("nan"), "validation score of rte is nan"),
        (["test"], {"rte": {}}, "has no `test.rte.accuracy`"),
        (["density"], 3, "must be an object"),
    ],
)
def test_results_that_are_not_whole_are_skipped(
    tmp_path: Path, path: list[str], value: Any, reason: str
) -> None:
    content = results({"rte": 0.75}, kept=10)
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    write(tmp_path / "run", content)
    (skipped,) = read_runs(tmp_path).skipped
    assert reason in skipped.reason


@pytest.mark.parametrize(
    "key", ["config", "budget", "ledger", "validation", "test", "seed", "steps", "wall_seconds"]
)
def test_missing_keys_are_named(tmp_path: Path, key: str) -> None:
    content = results({"rte": 0.75}, kept=10)
    del content[key]
    write(tmp_path / "run", content)
    (skipped,) = read_runs(tmp_path).skipped
    assert skipped.reason.startswith(f"results.json has no `{key}")


def test_results_that_are_no_object_are_skipped(tmp_path: Path) -> None:
    write(tmp_path / "run", results({"rte": 0.75}, kept=10))
    (tmp_path / "run" / "results.json").write_text("[]")
    assert read_runs(tmp_path).skipped[0].reason == "results.json must be an object, but is []"


def test_runs_that_did_not_note_their_examples_are_read(tmp_path: Path) -> None:
    content = results({"rte": 0.75}, kept=10)
    del content["examples"]
    assert read_run(write(tmp_path / "run", content)).record.examples == {}


def test_folder_without_runs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere is not a directory"):
        read_runs(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=f"No runs found in {tmp_path}"):
        read_runs(tmp_path)


def test_command_of_a_job_of_a_sweep_names_the_sweep(tmp_path: Path) -> None:
    run = write(tmp_path / "run", results({"rte": 0.75}, kept=10), "task=rte", "seed=1")
    hydra = {
        "job": {"config_name": "density"},
        "mode": "MULTIRUN",
        "overrides": {"hydra": ["hydra.sweep.dir=runs/mine", "hydra.launcher.workers=2"]},
        "runtime": {
            "cwd": str(ROOT),
            "config_sources": [
                {"path": "hydra.conf", "provider": "hydra"},
                {"path": str(ROOT / "conf"), "provider": "main"},
                {"path": str(ROOT / "sweep"), "provider": "command-line"},
            ],
        },
    }
    # JSON is YAML.
    (run / ".hydra" / "hydra.yaml").write_text(json.dumps({"hydra": hydra}))
    expected = "python train.py -cd sweep -cn density hydra.mode=RUN hydra.sweep.dir=runs/mine"
    assert read_run(run).command == f"{expected} task=rte seed=1"


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ["-m", "-cd", "my confs", "seed=0,1"],
        ["-cd", "my confs", "-cn", "sweeps"],
        ["hydra.searchpath=[file://my confs]", "hydra.run.dir=runs/one"],
        ["--config-path", "{folder}/my confs", "-cn", "other", "hydra.searchpath=[file://{root}]"],
    ],
    ids=["config-dir", "sweep of its own", "searchpath", "config-path"],
)
def test_command_repeats_a_run_whose_configuration_lies_elsewhere(
    options: list[str], tmp_path: Path
) -> None:
    mine = tmp_path / "my confs"
    (mine / "task").mkdir(parents=True)
    task = (ROOT / "conf" / "task" / "rte.yaml").read_text()
    (mine / "task" / "mine.yaml").write_text(task.replace("rte:", "mine:"))
    (mine / "other.yaml").write_text("defaults: [train, _self_]\nseed: 5\n")
    sweep = "hydra: {mode: MULTIRUN, sweeper: {params: {seed: '3,4'}}, sweep: {dir: runs/of}}\n"
    where = "data: {mirror: '${hydra:sweep.dir}'}\n"
    (mine / "sweeps.yaml").write_text(f"defaults: [train, _self_]\n{where}{sweep}")
    application = "import json\ndef run(config):\n    print('seen', config)\n    return 1.0\n"
    (tmp_path / "toy.py").write_text(application)
    filled = [one.format(folder=tmp_path, root=ROOT / "conf") for one in options]
    words = [*filled, "task=mine", "+application=toy.run", "+data.cap.mine=7"]
    python = f'python() {{ PYTHONPATH=. {sys.executable} "$@"; }}; '

    def seen(command: str) -> list[str]:
        done = subprocess.run(
            ["bash", "-c", python + command],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return [line for line in done.stdout.splitlines() if line.startswith("seen")]

    # With --config-path, Hydra does not note where the script lies: in the working folder, then.
    script = ROOT / "train.py"
    if "--config-path" in options:
        script = Path(shutil.copy(script, tmp_path))
    first = seen(shlex.join(["python", str(script), *words]))
    runs = [one.parent for one in sorted((tmp_path / "runs").rglob(".hydra"))]
    assert len(runs) == len(first)
    for run, expected in zip(runs, first, strict=True):
        assert "'mine'" in expected
        command = command_of(run)
        assert command is not None
        assert seen(command) == [expected]


@pytest.mark.parametrize("text", ["- [unclosed", "hydra: {}", "3"])
def test_command_is_unknown_where_hydra_left_nothing_to_read(tmp_path: Path, text: str) -> None:
    run = write(tmp_path / "run", results({"rte": 0.75}, kept=10))
    (run / ".hydra" / "hydra.yaml").write_text(text)
    assert read_run(run).command is None
    shutil.rmtree(run / ".hydra")
    assert read_run(run).command is None
